"""Hypercorn's parts around one connection, without a server: bytes go in and come out in memory."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ConnectionState, Scope

from wizards.server.context import ServerContext


class Application:
    """An ASGI application that keeps its requests, and counts those that it has answered, with `body`.

    It can wait for the end of a request's own body first.
    """

    def __init__(self, body: bytes = b"ok", *, waits: bool = False) -> None:
        self.requests: list[Any] = []
        self.answered = 0
        self._body = body
        self._waits = waits

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.requests.append(scope)
        while self._waits and cast(Any, await receive()).get("more_body"):
            pass
        headers = [(b"content-length", b"%d" % len(self._body))]
        await send(cast(Any, {"type": "http.response.start", "status": 200, "headers": headers}))
        await send(cast(Any, {"type": "http.response.body", "body": self._body, "more_body": False}))
        self.answered += 1


class Writer:
    """What a connection needs of an asyncio.StreamWriter; `sent` is what a client would get."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.sent = bytearray()
        self.transport = self
        self._reader = reader
        self._is_closing = False

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    family = socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 50000

    getsockname = getpeername

    def write(self, data: bytes) -> None:
        if not self._is_closing:
            self.sent += data

    async def drain(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True
        self._reader.feed_eof()

    async def wait_closed(self) -> None:
        pass


def make(
    kind: type[TCPServer], app: Application, *, context: WorkerContext | None = None, **settings: Any
) -> Any:
    """Make a connection of that class, with settings of Hypercorn's; its reader and writer are in memory."""
    reader = asyncio.StreamReader()
    writer = Writer(reader)
    config = Config.from_mapping(settings)
    loop = asyncio.get_running_loop()
    context = context or ServerContext(None, config)
    return kind(ASGIWrapper(cast(Any, app)), loop, config, context, cast(Any, {}), reader, cast(Any, writer))


class Wire:
    """What a protocol sends: the bytes, whether it has closed, and whether it is idle."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.is_closed = False
        self.is_idle = True

    async def send(self, event: Event) -> None:
        if isinstance(event, RawData):
            self.sent += event.data
        elif isinstance(event, Updated):
            self.is_idle = event.idle
        else:
            self.is_closed = True


@asynccontextmanager
async def running(
    kind: type[H2Protocol] | type[H11Protocol], app: Application, **settings: Any
) -> AsyncIterator[tuple[Any, Wire]]:
    """Run a protocol of that class with settings of Hypercorn's, and close it at the end of the block."""
    config, wire, loop = Config.from_mapping(settings), Wire(), asyncio.get_running_loop()
    wrapped, context = ASGIWrapper(cast(Any, app)), ServerContext(None, config)
    async with asyncio.timeout(10), TaskGroup(loop) as group:
        address = ("127.0.0.1", 50000)
        state = ConnectionState(cast(Any, {}))
        protocol = kind(wrapped, config, context, group, state, False, address, address, wire.send)  # noqa: FBT003
        await protocol.initiate()
        yield protocol, wire
        await protocol.handle(Closed())


async def settle() -> None:
    """Let all tasks run that have something to do."""
    for _ in range(50):
        await asyncio.sleep(0)
