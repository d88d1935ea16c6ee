"""What the short cut for HTTP/1.1 keeps of Hypercorn: logs, limits, timeouts, flow control, stops, errors."""

import asyncio
import logging
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from hypercorn.logging import Logger
from hypercorn.statsd import StatsdLogger

from support.short_cut import Counting, Recorder, Served, patch_short_cut, start, turn
from wizards.server import http1_heads
from wizards.server.http1 import HTTP1Protocol

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
VARIABLE: ContextVar[int] = ContextVar("VARIABLE")
Serve = Callable[..., Awaitable[Served]]


async def answer(send: Any, *bodies: bytes, status: int = 200, headers: Any = None) -> None:
    if headers is None:
        headers = [(b"content-length", b"%d" % sum(map(len, bodies)))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for number, body in enumerate(bodies, 1):
        await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})


async def hello(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
    await answer(send, b"Hello")


@pytest.fixture
async def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Yield what serves an application that is given to it, after the server has learned `GET`."""
    patch_short_cut(monkeypatch)
    servers: list[Served] = []

    async def start_server(app: Any, **settings: Any) -> Served:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await (hello if scope["path"] == "/learn" else app)(scope, receive, send)

        server = await start(application, tmp_path / f"socket{len(servers)}", **settings)
        servers.append(server)
        client = await server.connect()
        assert await client.send(GET.replace(b"/", b"/learn", 1))
        assert server.taken == 0
        client.transport.abort()
        await turn()
        return server

    yield start_server
    for server in servers:
        await server.end()


def has_used_h11(server: Served) -> bool:
    """Return whether h11 has parsed any request of the one connection that is open."""
    return server.connection.protocol.protocol.connection.their_http_version is not None  # type: ignore[union-attr]


async def test_known_blocks(serve: Serve) -> None:
    """A block that any connection has sent before needs no h11, from the first request of a connection on."""
    server = await serve(hello)
    for _ in range(2):
        client = await server.connect()
        for _ in range(2):
            received = await client.send(GET)
            assert received.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ndate: ")
            assert received.endswith(b" GMT\r\nserver: hypercorn-h11\r\n\r\nHello")
        assert not has_used_h11(server)
        client.transport.abort()
        await turn()
    assert server.taken == 4


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: test\r\n\r\n",
        GET.replace(b"test", b"Test"),
        GET + GET,
        b"\r\n" + GET,
    ],
)
async def test_other_requests(serve: Serve, data: bytes) -> None:
    """What is not exactly a GET or HEAD with a known block takes Hypercorn's way."""
    server = await serve(hello)
    client = await server.connect()
    await client.send(data)
    assert server.taken == 0


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        *((f"Connection: {value}", 1) for value in ("keep-alive", "Keep-Alive")),
        *((f"Connection: {value}", 0) for value in ("close", "keep-alive, close", "x")),
        *((header, 0) for header in ("Content-Length: 0", "Upgrade: x", "Expect: x")),
    ],
)
async def test_what_is_learned(serve: Serve, header: str, taken: int) -> None:
    """A block with a header that concerns more than its own request is not learned."""
    server = await serve(hello)
    for _ in range(2):
        client = await server.connect()
        assert await client.send(f"GET / HTTP/1.1\r\nHost: test\r\n{header}\r\n\r\n".encode())
    assert server.taken == taken


async def test_halves(serve: Serve) -> None:
    """Bytes that look like a request, but continue something else, are no request, and nothing is learned."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["method"], scope["headers"], await receive()))
        await answer(send, b"")

    server = await serve(app)
    client = await server.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(GET))
    await client.send(GET)
    assert [(method, message["body"]) for method, _, message in seen] == [("POST", GET)]
    client = await server.connect()
    await client.send(b"GET / HTTP/1.1\r\nX-Forged: ")
    await client.send(GET.replace(b"test", b"new"))
    await client.send(GET.replace(b"test", b"new"))
    assert [headers for _, headers, _ in seen[1:]] == [
        [(b"x-forged", b"GET / HTTP/1.1"), (b"host", b"new")],
        [(b"host", b"new")],
    ]
    assert server.taken == 0


async def test_order(serve: Serve) -> None:
    """A known request never overtakes what has arrived before it."""
    server = await serve(hello)
    client = await server.connect()
    reader = server.connection.reader
    reader.feed_data(GET.replace(b"GET", b"POST"))
    reader.feed_data(GET)
    await client.settle()
    assert client.received.count(b"Hello") == 2
    assert server.taken == 0


async def test_bounds(serve: Serve) -> None:
    """However many blocks are sent, and however long they are, a server keeps few, and the latest."""
    server = await serve(hello)
    client = await server.connect()
    blocks = server.connection.context.header_blocks
    for number in range(http1_heads.MAX_BLOCKS + 10):
        await client.send(GET.replace(b"test", b"test%d" % number))
    await client.send(GET.replace(b"test", b"x" * http1_heads.MAX_BLOCK_LENGTH))
    await client.send(GET.replace(b"\r\n\r\n", b"\r\n" + b"x:\r\n" * http1_heads.MAX_HEADERS + b"\r\n"))
    assert len(blocks) == http1_heads.MAX_BLOCKS
    assert max(map(len, blocks)) < 30
    assert server.taken == 0
    await client.send(GET.replace(b"test", b"test%d" % http1_heads.MAX_BLOCKS))
    assert server.taken == 1


async def test_no_short_cut(serve: Serve) -> None:
    """A server that limits the time of a read takes no short cut."""
    server = await serve(hello, read_timeout=30)
    client = await server.connect()
    assert (await client.send(GET)).endswith(b"Hello")
    assert server.taken == 0


async def test_access_log(serve: Serve) -> None:
    """Each request has its line, which is the line that Hypercorn writes."""
    lines: list[str] = []
    target = logging.getLogger("test_access_log")
    target.propagate = False
    target.handlers = [logging.Handler()]
    target.handlers[0].emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    target.setLevel(logging.INFO)
    form = "%(h)s %(r)s %(R)s %(S)s %(s)s %(st)s %(b)s %(a)s %({content-type}o)s %({host}i)s %(p)s"

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        await answer(send, b"Hello", headers=[(b"content-type", b"text/plain"), (b"content-length", b"5")])

    server = await serve(app, logger_class=Logger, accesslog=target, access_log_format=form)
    client = await server.connect()
    for _ in range(3):
        await client.send(b"GET /a?b=c HTTP/1.1\r\nHost: test\r\nUser-Agent: one\r\n\r\n")
    assert server.taken == 2
    assert len(lines) == 4
    assert lines[1] == lines[2] == lines[3]
    assert " GET /a 1.1 GET /a?b=c 1.1 http 200 OK 5 one text/plain test " in lines[3]


async def test_statsd(serve: Serve) -> None:
    """Each request counts, with its duration and its status."""
    sent: list[bytes] = []

    class Logger(StatsdLogger):
        async def _socket_send(self, message: bytes) -> None:
            sent.append(message)

    server = await serve(hello, logger_class=Logger, statsd_host="localhost:1")
    sent.clear()
    client = await server.connect()
    for _ in range(2):
        await client.send(GET)
    assert server.taken == 2
    assert [message.partition(b":")[0].rpartition(b".")[2] for message in sent] == [
        *(b"duration", b"requests", b"200"),
        *(b"duration", b"requests", b"200"),
    ]


async def test_keep_alive_max_requests(serve: Serve) -> None:
    """The last request that a connection may make is told so, and then the connection closes."""
    server = await serve(hello, keep_alive_max_requests=3)
    client = await server.connect()
    received = [await client.send(GET) for _ in range(3)]
    assert [b"connection: close" in one for one in received] == [False, False, True]
    assert client.end
    assert server.taken == 2


async def test_max_requests(serve: Serve) -> None:
    """The server ends after its last request, whichever way it took."""
    server = await serve(hello, max_requests=3)
    client = await server.connect()
    for number in range(3):
        assert not server.task.done(), number
        assert (await client.send(GET)).endswith(b"Hello")
    await asyncio.wait_for(server.task, 30)
    assert server.taken == 3


async def test_idle_time(serve: Serve) -> None:
    """The idle time begins anew with each response and does not run during a request; its end closes."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(server.connection.idle_task.until)
        await hello(scope, receive, send)

    server = await serve(app, keep_alive_timeout=0.2)
    client = await server.connect()
    for _ in range(2):
        await client.send(GET)
        seen.append(server.connection.idle_task.until)
    assert seen[0] == seen[2] == math.inf
    assert seen[1] < seen[3] < math.inf
    assert server.taken == 2
    await asyncio.wait_for(client.ended.wait(), 30)


@pytest.mark.parametrize("size", [2**16, 2**20])
async def test_slow_reader(serve: Serve, size: int) -> None:
    """A client that does not read stops the application, at the mark where it stops under Hypercorn."""
    sent = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % 2**23)]}
        )
        for at in range(0, 2**23, size):
            await send({"type": "http.response.body", "body": bytes(size), "more_body": at + size < 2**23})
            sent.append(server.connection.writer.transport.get_write_buffer_size())

    server = await serve(app)
    client = await server.connect()
    client.transport.pause_reading()
    await client.send(GET)
    assert sum(sent) < 2 * 2**16
    assert server.connection.writer.transport.get_write_buffer_size() <= 2**16 + size
    assert len(sent) < 2**22 // size
    client.transport.resume_reading()
    await client.settle()
    assert client.received.count(b"\0") == 2**23
    assert server.taken == 1


async def test_fairness(serve: Serve) -> None:
    """A client that sends hundreds of requests at once is not answered all of them before another one."""
    server = await serve(hello)
    greedy, modest = await server.connect(), await server.connect()
    greedy.transport.write(GET * 300)
    modest.transport.write(GET)
    while not modest.received:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert greedy.received.count(b"Hello") < 10
    await greedy.settle()
    assert greedy.received.count(b"Hello") == 300


PROTOCOLS = pytest.mark.parametrize("protocol", [Counting, HTTP1Protocol], ids=["short cut", "Hypercorn"])


@PROTOCOLS
async def test_stop(serve: Serve, protocol: type[HTTP1Protocol]) -> None:
    """A stop lets a request end, then closes its connection, and closes idle ones."""
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await hello(scope, receive, send)

    server = await serve(app, protocol=protocol, graceful_timeout=30)
    busy, idle = await server.connect(), await server.connect()
    await busy.send(GET)
    server.stop.set()
    await asyncio.wait_for(idle.ended.wait(), 30)
    assert busy.end == ""
    gate.set()
    await busy.settle()
    assert b"\r\nconnection: close\r\n" in busy.received
    assert busy.received.endswith(b"\r\n\r\nHello")
    assert busy.end == "end"
    await asyncio.wait_for(server.task, 30)


@PROTOCOLS
async def test_stop_in_time(serve: Serve, protocol: type[HTTP1Protocol]) -> None:
    """An application that outlasts the graceful timeout is cancelled; its client gets a 500 or an end."""
    seen = []

    async def app(*_: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    server = await serve(app, protocol=protocol, graceful_timeout=0.01)
    client = await server.connect()
    await client.send(GET)
    server.stop.set()
    await asyncio.wait_for(server.task, 30)
    await client.settle()
    assert seen == ["cancelled"]
    if sys.version_info < (3, 12):  # later Pythons wait for the connection before, until it is aborted
        assert client.received.startswith(b"HTTP/1.1 500 ")
        assert client.end == "end"


@PROTOCOLS
async def test_client_leaves(serve: Serve, protocol: type[HTTP1Protocol]) -> None:
    """An application that waits hears that its client has left, and the log says so."""
    gate = asyncio.Event()
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append([await receive(), await receive()])
        await gate.wait()
        await hello(scope, receive, send)

    server = await serve(app, protocol=protocol)
    client = await server.connect()
    await client.send(GET)
    server.events.clear()
    client.transport.abort()
    await turn()
    request = {"type": "http.request", "body": b"", "more_body": False}
    assert seen == [[request, {"type": "http.disconnect"}]]
    assert server.events == [("/", None)]
    gate.set()
    await turn()
    assert server.events == [("/", None)]
    assert server.taken == (protocol is Counting)


@PROTOCOLS
async def test_application_fails(serve: Serve, protocol: type[HTTP1Protocol]) -> None:
    """A failure before the response is a 500, one within it ends the connection; both are logged."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        if scope["query_string"]:
            await answer(send, b"Hello", headers=[(b"content-length", b"10")])
        raise RuntimeError

    server = await serve(app, protocol=protocol)
    server.events.clear()
    clients = [await server.connect() for _ in range(2)]
    first = await clients[0].send(GET)
    assert first.startswith(
        b"HTTP/1.1 500 INTERNAL SERVER ERROR\r\ncontent-length: 0\r\nconnection: close\r\n"
    )
    second = await clients[1].send(GET.replace(b"/", b"/?x", 1))
    assert second.endswith(b"\r\n\r\nHello")
    assert [client.end for client in clients] == ["end", "end"]
    error = "Error in ASGI Framework"
    assert server.events == [error, ("/", (500, [])), error]
    assert server.taken == 2 * (protocol is Counting)


@PROTOCOLS
async def test_log_fails(serve: Serve, protocol: type[HTTP1Protocol]) -> None:
    """A logger that fails while the server itself answers ends the connection, and nothing else."""

    class Failing(Recorder):
        async def access(self, request: Any, response: Any, request_time: float) -> None:  # noqa: ARG002
            if request["path"] != "/learn":
                raise RuntimeError

    async def app(*_: Any) -> None:
        pass

    server = await serve(app, protocol=protocol, logger_class=Failing)
    client = await server.connect()
    assert (await client.send(GET)).startswith(b"HTTP/1.1 500 ")
    assert client.end == "end"
    assert await (await server.connect()).send(GET)


@PROTOCOLS
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("more", [GET, b""], ids=["more", "end"])
async def test_in_the_middle(serve: Serve, protocol: type[HTTP1Protocol], pieces: int, more: bytes) -> None:
    """A client that sends more, or ends its side, amid a body gets the rest, and all it asked for."""
    size = 2**22
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        await answer(send, *([bytes(size // pieces)] * pieces))
        sent.append(len(sent))

    server = await serve(app, protocol=protocol)
    client = await server.connect()
    client.transport.pause_reading()
    await client.send(GET)
    if more:
        await client.send(more)
    else:
        client.transport.write_eof()
        await turn()
    assert sent == []
    client.transport.resume_reading()
    await client.settle()
    requests = 2 if more else 1
    assert sent == list(range(requests))
    assert client.received.count(b"HTTP/1.1 200 ") == requests
    assert client.received.count(b"\0") == requests * size
    assert client.end == ("" if more else "end")
    assert server.taken == (protocol is Counting)


@PROTOCOLS
async def test_stop_in_the_middle(serve: Serve, protocol: type[HTTP1Protocol]) -> None:
    """A stop lets a response end that has begun, then closes its connection."""
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await gate.wait()
        await send({"type": "http.response.body", "body": b"b"})

    server = await serve(app, protocol=protocol, graceful_timeout=30)
    client = await server.connect()
    assert (await client.send(GET)).endswith(b"\r\n\r\na")
    server.stop.set()
    [context] = server.link.contexts
    await context.terminated.wait()
    gate.set()
    await asyncio.wait_for(client.ended.wait(), 30)
    assert client.received.endswith(b"\r\n\r\nab")
    await asyncio.wait_for(server.task, 30)


@PROTOCOLS
async def test_listening_application(serve: Serve, protocol: type[HTTP1Protocol]) -> None:
    """An application that listens while it answers hears the end once its response is complete."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        listening = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await hello(scope, receive, send)
        seen.append(await listening)

    server = await serve(app, protocol=protocol)
    client = await server.connect()
    await client.send(GET)
    assert seen == [{"type": "http.disconnect"}]
    assert client.end == ""


async def test_own_task(serve: Serve) -> None:
    """Each request runs in a task of its own: what it sets in its context, no other request sees."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((asyncio.current_task(), VARIABLE.get(None)))
        VARIABLE.set(1)
        await hello(scope, receive, send)

    server = await serve(app)
    client = await server.connect()
    for _ in range(2):
        await client.send(GET)
    assert server.taken == 2
    assert seen[0][0] is not seen[1][0]
    assert [value for _, value in seen] == [None, None]


async def test_background(serve: Serve) -> None:
    """What an application does after its response delays no other request, and the stop waits for it."""
    gate = asyncio.Event()
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await gate.wait()
        seen.append("done")

    server = await serve(app, graceful_timeout=30)
    client = await server.connect()
    for _ in range(2):
        assert (await client.send(GET)).endswith(b"Hello")
    assert server.taken == 2
    client.transport.abort()
    server.stop.set()
    await turn()
    assert not server.task.done()
    gate.set()
    await asyncio.wait_for(server.task, 30)
    assert seen == ["done", "done"]


async def test_no_body(serve: Serve) -> None:
    """HEAD and 304 are answered without a body, on the short cut, with the head that a body would have."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        status = 304 if scope["query_string"] else 200
        await answer(send, b"Hello", status=status, headers=[(b"etag", b'"a"'), (b"content-length", b"5")])

    server = await serve(app)
    client = await server.connect()
    head = await client.send(GET.replace(b"GET", b"HEAD"))
    unchanged = await client.send(GET.replace(b"/", b"/?x", 1))
    whole = await client.send(GET)
    assert head + b"Hello" == whole
    assert unchanged == head.replace(b" 200 OK", b" 304 NOT MODIFIED")
    assert server.taken == 3
    assert not has_used_h11(server)


async def test_chunked(serve: Serve) -> None:
    """A response that does not say its length is written by h11, in chunks."""

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        await answer(send, b"Hel", b"lo", headers=[])

    server = await serve(app)
    client = await server.connect()
    for _ in range(2):
        received = await client.send(GET)
        assert b"\r\nTransfer-Encoding: chunked\r\n" in received
        assert received.endswith(b"\r\n\r\n3\r\nHel\r\n2\r\nlo\r\n0\r\n\r\n")
    assert server.taken == 2
