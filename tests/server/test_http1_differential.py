"""The short cut for HTTP/1.1 changes nothing: random bytes have the same effects with it and without it."""

import asyncio
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from support.short_cut import Counting, Served, patch_short_cut, start, turn
from wizards.server.http1 import HTTP1Protocol

logger = logging.getLogger(__name__)

DATE = re.compile(rb"(?i)date: [^\r]*\r\n")
EXAMPLES = int(os.environ.get("EXAMPLES", "200"))
RELEASE, END = None, b""

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "limits": {"keep_alive_max_requests": 3, "h11_max_incomplete_size": 200, "server_names": ["a", "b"]},
    "spelling": {
        "include_date_header": False,
        "alt_svc_headers": ['h3=":1"'],
        "h11_pass_raw_headers": True,
        "root_path": "/root",
    },
}


HEADS: dict[str, list[Any]] = {
    "close": [(b"connection", b"close")],
    "keep": [(b"connection", b"keep-alive")],
    "chunked": [(b"transfer-encoding", b"chunked")],
    "twice": [(b"content-length", b"30")],
    "spaces": [(b" x ", b" y "), (b"content-length ", b"30")],
    "host": [(b"x", b"y"), (b"host", b"z")],
    "invalid": [(b"x", b"y\r\nz")],
    "text": [("x", "y")],
    "pseudo": [(b":x", b"y")],
    "lists": [[b"x", bytearray(b"y")]],
    "lengthy": [(b"x", b"y" * 600)],
}
BEFORE = ["wait", "receive", "listen", "fail", "cancel"]
STATUSES = ["304", "204", "404", "99", "1000", "200"]
BODIES = ["big", "long", "short", "parts", "empty", "omit", "upper", "start", "pause", "restart", "text-body"]
AFTER = ["again", "background", "late", "trailers", "iterator"]


class Application:
    """An ASGI application whose paths are words for what an application may do, and may not."""

    events: list[Any]  # with those of its server

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.append(scope | {name: [*scope[name]] for name in ("state", "headers")})
        scope["state"]["mine"] = scope["headers"].append((b"mine", b"alone"))
        if scope["type"] == "http":
            await self.answer({*scope["path"].strip("/").split("-")}, receive, send)

    async def answer(self, words: set[str], receive: Any, send: Any) -> None:
        await self.prepare(words, receive)
        size = 150_000 if "big" in words else 30
        name = b"Content-Length" if "upper" in words else b"content-length"
        headers: list[Any] = [] if "omit" in words else [(name, b"%d" % size)]
        for word in sorted(HEADS.keys() & words):
            headers += HEADS[word]
        statuses = [int(word) for word in STATUSES if word in words] or [200]
        start = {"type": "http.response.start", "status": statuses[0], "headers": headers}
        if "iterator" in words:
            start["headers"] = iter(headers)
        await send(start | ({"trailers": True} if "trailers" in words else {}))
        if "start" in words:
            raise RuntimeError
        if "restart" in words:
            await send(start)
        await self.send_body(words, size + ("long" in words) - ("short" in words), send)
        if "late" in words:
            self.events.append([await receive() for _ in range(2)])
        if "background" in words:
            await self.gate.wait()
            self.events.append("background")
        if "again" in words:
            await send({"type": "http.response.body"})

    async def prepare(self, words: set[str], receive: Any) -> None:
        if "wait" in words:
            await self.gate.wait()
        for word in {"receive", "listen"} & words:
            self.events.append([await receive() for _ in range(1 + (word == "listen"))])
        if "fail" in words:
            raise RuntimeError
        if "cancel" in words:
            raise asyncio.CancelledError

    async def send_body(self, words: set[str], size: int, send: Any) -> None:
        sizes = [size // 3, 0, size - size // 3] if "parts" in words else [size]
        for number, part in enumerate(sizes):
            body: Any = "text" if "text-body" in words else b"x" * part
            last = number == len(sizes) - 1
            message = {"type": "http.response.body"} | ({"body": body} if body else {})
            await send(message | ({} if last else {"more_body": True}))
            if "pause" in words:
                await self.gate.wait()


async def exchange(server: Served, app: Application, steps: list[bytes | None]) -> list[Any]:
    """Return what a client receives that takes these steps and then ends its side, and what is recorded."""
    client = await server.connect()
    for step in [*steps, END]:
        if step is RELEASE:
            app.gate.set()
        elif step is END and not client.transport.is_closing():
            client.transport.write_eof()
        elif step:
            client.transport.write(step)
        await client.settle()
        app.gate.clear()
    client.transport.abort()
    app.gate.set()
    await turn()
    app.gate.clear()
    events = server.events.copy()
    server.events.clear()
    return [DATE.sub(b"", client.received), client.end, events]


@pytest.fixture(scope="module", params=SETTINGS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serve the application with and without the short cut; yield what takes the same steps with both."""
    folder = tmp_path_factory.mktemp("sockets")
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch_short_cut(patch)
        pairs = []
        for protocol in (HTTP1Protocol, Counting):
            app = Application()
            path = folder / protocol.__name__
            server = runner.run(start(app, path, protocol, **SETTINGS[request.param]))
            app.events = server.events
            pairs.append((server, app))
        yield lambda steps: [runner.run(exchange(*pair, steps)) for pair in pairs]
        logger.warning("%d requests took the short cut", server.taken)
        assert server.taken > EXAMPLES / 10
        for served, _ in pairs:
            runner.run(served.end())


BLOCKS = [
    b"Host: c\r\n",
    b"Host: a\r\n",
    b"host:  b  \r\nAccept: */*\r\nX-Odd:\r\n",
    b"Host: a\r\nAccept: text/html, application/json;q=0.9\r\nAccept-Encoding: gzip\r\n",
    b"Host: b\r\nConnection: keep-alive\r\nUser-Agent: a\r\n b\r\n",
    b"Host: a\nAccept: */*\n",
]
UPGRADE = b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket"
ODD_BLOCKS = [
    b"Host: c\r\n",
    b"",
    b"Host: a\r\nHost: a\r\n",
    b"Host: a\r\nConnection: close\r\n",
    b"Host: a\r\nConnection: keep-alive, close\r\n",
    b"Host: a\r\nContent-Length: 0\r\n",
    b"Host: a\r\nContent-Length: 5\r\n",
    b"Host: a\r\nTransfer-Encoding: chunked\r\n",
    b"Host: a\r\nExpect: 100-continue\r\n",
    b"Host: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    UPGRADE + b"\r\n",
    UPGRADE + b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a\r\n",
    b"Host: a\r\nX: " + b"x" * 5000 + b"\r\n",
    b"Host: a\r\n" + b"x:\r\n" * 70,
    b"Host: a\r\n : x\r\n",
]
WORDS = st.lists(st.sampled_from([*BEFORE, *STATUSES, *BODIES, *AFTER, *HEADS]), max_size=3, unique=True).map(
    "-".join
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draw a request, mostly one of those that are learned."""
    usual = draw(st.integers(0, 9)) > 1
    method = draw(st.sampled_from(["GET", "GET", "HEAD"] if usual else ["POST", "OPTIONS", "get", "CONNECT"]))
    path = draw(st.sampled_from(["/"] * 4 + ["/wait-", "/%41-", "/é-", "//", "http://x/"])) + draw(WORDS)
    query = draw(st.sampled_from(["", "", "?", "?name=a", "?name=%20?&x=/", "#x"]))
    version = "1.1" if usual else draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    block = draw(st.sampled_from(BLOCKS if usual else BLOCKS + ODD_BLOCKS))
    end = b"\n" if block.endswith(b"*\n") else b"\r\n"
    body = b"" if usual else draw(st.sampled_from([b"", b"12345", b"5\r\n12345\r\n0\r\n\r\n", b"\r\n"]))
    return f"{method} {path}{query} HTTP/{version}\r\n".encode() + block + end + body


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes | None]:
    """Draw what a client does: mostly a request at a time, or else any part of what it sends."""
    chunks = draw(st.lists(requests(), min_size=1, max_size=5))
    if draw(st.integers(0, 2)) == 0:
        data = b"".join(chunks)
        if draw(st.booleans()):
            at = draw(st.integers(0, len(data)))
            data = data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
        chunks = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    steps: list[bytes | None] = []
    for chunk in filter(None, chunks):
        steps += [chunk] + [RELEASE] * draw(st.booleans())
    return steps


@given(steps=conversations())
@settings(deadline=None, max_examples=EXAMPLES)
def test_nothing_is_changed(both: Any, steps: list[bytes | None]) -> None:
    """The bytes that come back but for the date, both logs and all that the application sees are the same."""
    note(repr(steps))
    without, with_short_cut = both(steps)
    assert with_short_cut == without
