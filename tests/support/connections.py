"""Hypercorn's parts around one connection, without a server: bytes go in and come out in memory."""

import asyncio
import socket
from typing import Any, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from wizards.server.shutdown import ServerContext


class Application:
    """An ASGI application that counts its requests and answers each with "ok"."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def __call__(self, scope: Scope, _: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.requests.append(scope)
        headers = [(b"content-length", b"2")]
        await send(cast(Any, {"type": "http.response.start", "status": 200, "headers": headers}))
        await send(cast(Any, {"type": "http.response.body", "body": b"ok", "more_body": False}))


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
