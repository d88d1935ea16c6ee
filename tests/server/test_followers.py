"""What followers cost a server, and that it notices when they leave."""

import asyncio
import re
import signal
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest
from quart import Response

from support.events import parse_events
from support.http2_frames import PREFACE, SETTINGS, frame
from support.servers import Server, serve_here
from support.sockets import connect, receive_all, receive_until, reset_on_close
from support.stores import append_names, make_store
from wizards import create_app
from wizards.core.feed import Feed

HEADERS = "Host: test\r\nAccept: text/event-stream\r\n\r\n"
FOLLOW = f"GET /wizards HTTP/1.1\r\n{HEADERS}".encode()
END_OF_FIRST = b'"Hermione"}\n\n'

# An HPACK block: :method GET, :scheme http, :path /wizards, :authority t, accept: text/event-stream.
FOLLOW_BLOCK = b"\x82\x86\x44\x08/wizards\x41\x01t\x53\x11text/event-stream"
RESET, WINDOW_UPDATE = 3, 8
CANCEL = struct.pack(">L", 8)


def open_http2(port: int, streams: int) -> socket.socket:
    """Return an HTTP/2 connection whose streams all follow the list."""
    client = connect(port)
    headers = [frame(1, 5, number, FOLLOW_BLOCK) for number in range(1, 2 * streams, 2)]
    client.sendall(
        b"".join([PREFACE, SETTINGS, frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", 2**30)), *headers])
    )
    return client


async def wait_until_gone(feed: Feed) -> None:
    """Wait until the last follower has left, which ends the watcher."""
    assert feed._watcher is not None
    async with asyncio.timeout(30):
        await feed._watcher
    assert feed.followers == 0


@pytest.mark.parametrize("leave", ["close", "reset", "half-close"])
async def test_disconnect(leave: str) -> None:
    """A follower over HTTP/1.1 is gone as soon as its client leaves, also on a used connection."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    async with serve_here(app) as port:
        for opening in (b"", f"HEAD /wizards HTTP/1.1\r\n{HEADERS}".encode()):
            client = await asyncio.to_thread(connect, port)
            if opening:  # the same headers, so that the server knows them
                client.sendall(opening)
                await asyncio.to_thread(receive_until, b"\r\n\r\n", client)
            client.sendall(FOLLOW)
            await asyncio.to_thread(receive_until, END_OF_FIRST, client)
            feed: Feed = app.extensions["wizards"].feed
            assert feed.followers == 1
            if leave == "reset":
                reset_on_close(client)
            if leave == "half-close":
                client.shutdown(socket.SHUT_WR)
            else:
                client.close()
            await wait_until_gone(feed)
            client.close()


@pytest.mark.parametrize("leave", ["reset the streams", "close the connection"])
async def test_http2_disconnect(leave: str) -> None:
    """Followers over HTTP/2 are gone as soon as their streams are reset, or their connection is closed."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    async with serve_here(app) as port:
        client = await asyncio.to_thread(open_http2, port, 20)
        received = b""
        while received.count(END_OF_FIRST) < 20:
            received += await asyncio.to_thread(client.recv, 2**16)
        feed: Feed = app.extensions["wizards"].feed
        assert feed.followers == 20
        if leave == "reset the streams":
            client.sendall(b"".join(frame(RESET, 0, number, CANCEL) for number in range(1, 40, 2)))
        else:
            client.close()
        await wait_until_gone(feed)
        client.close()


async def test_hooks_of_users() -> None:
    """What is hung on the app counts for a stream, and the client's leaving still ends it."""
    app = create_app({"DATABASE_URL": "sqlite://"})

    @app.after_request
    async def mark(response: Response) -> Response:
        response.headers["X-Marked"] = "yes"
        return response

    async with serve_here(app) as port:
        client = await asyncio.to_thread(connect, port)
        client.sendall(FOLLOW)
        head = await asyncio.to_thread(receive_until, END_OF_FIRST, client)
        assert b"x-marked: yes\r\n" in head.lower()
        client.close()
        await wait_until_gone(app.extensions["wizards"].feed)


async def test_body_is_drained() -> None:
    """The body of a follower is read to its end; a request in it is not carried out."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    async with serve_here(app) as port:
        client = await asyncio.to_thread(connect, port)
        body = b"GET /wizards?name=Smuggled HTTP/1.1\r\nHost: test\r\n\r\n" * 2000
        client.sendall(FOLLOW.replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(body)) + body)
        assert b" 200 " in await asyncio.to_thread(receive_until, END_OF_FIRST, client)
        assert (await app.extensions["wizards"].roster.read()).length == 3
        client.close()
        await wait_until_gone(app.extensions["wizards"].feed)


def test_stop_under_followers(tmp_path: Path) -> None:
    """A stop ends hundreds of streams with the end of a response and exits with 0, whoever reads or not."""
    with Server(tmp_path) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server.port)) for _ in range(200)]
        for client in clients:
            client.sendall(FOLLOW)
        for client in clients:
            receive_until(END_OF_FIRST, client)
        http2 = stack.enter_context(open_http2(server.port, 100))
        received = b""
        while received.count(END_OF_FIRST) < 100:
            received += http2.recv(2**16)
        server.send_signal(signal.SIGTERM)
        assert all(receive_all(client).endswith(b"0\r\n\r\n") for client in clients)
        received = receive_all(http2)
        ends = {number for number in range(1, 200, 2) if frame(0, 1, number, b"") in received}
        assert len(ends) == 100
        http2.close()
        assert server.wait() == 0


def test_stop_with_a_pipelined_request(tmp_path: Path) -> None:
    """A stop does not wait for a client whose next request waits behind a stream."""
    with Server(tmp_path, options=("--graceful-timeout", "60")) as server, connect(server.port) as client:
        client.sendall(FOLLOW + b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        receive_until(END_OF_FIRST, client)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0


async def fill(url: str) -> None:
    store = make_store(url)
    await store.open()
    await append_names(store, *["\u00fc" * 100 + str(number) for number in range(15_000)])
    await store.close()


def test_stalled_followers(tmp_path: Path) -> None:
    """A follower that reads nothing of a long list costs less than half a block, however long the list is."""
    url = f"sqlite:///{tmp_path}/w.db"
    asyncio.run(fill(url))
    with Server(tmp_path, url) as server, ExitStack() as stack:
        with connect(server.port) as client:  # makes the events, which all share
            client.sendall(FOLLOW)
            assert len(receive_until(b"id: 15003\n", client)) > 9_000_000
        before = server.memory()
        clients = []
        for _ in range(100):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.sendall(FOLLOW)
            clients.append(client)
        for client in clients:
            client.recv(1)
        with connect(server.port) as client:  # answered after all of them
            client.sendall(FOLLOW)
            receive_until(b"id: 15003\n", client)
        assert (server.memory() - before) / 100 < 256 * 1024


def test_slow_follower_loses_nothing(tmp_path: Path) -> None:
    """A follower that reads a long list late gets all of it, and what has come meanwhile."""
    url = f"sqlite:///{tmp_path}/w.db"
    asyncio.run(fill(url))
    with Server(tmp_path, url) as server, connect(server.port) as client, connect(server.port) as other:
        client.sendall(FOLLOW)
        client.recv(1)
        for number in range(20):
            other.sendall(f"HEAD /wizards?name=late.{number} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
            receive_until(b"\r\n\r\n", other)
        received = receive_until(b'"late.19"}\n\n', client)
    chunks = re.split(rb"\r\n[0-9a-f]+\r\n", received.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2])
    events = parse_events(b"".join(chunks).removesuffix(b"\r\n"))
    assert [position for position, _ in events] == [*range(1, 15_024)]
    assert [name for _, name in events[-20:]] == [f"late.{number}" for number in range(20)]
