"""Hypercorn in the test's own event loop, with and without the short cut, and a client of it.

Unix sockets deliver at once. So what happens between two steps of the client does not depend on time.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.protocol.h11 import H11Protocol

from wizards.server import HypercornLink, http1_short_cut, patches
from wizards.server.connections import Connection

TURNS = 60  # of the event loop, more than anything takes that waits neither for the client nor for the test


async def turn() -> None:
    """Let everything happen that waits neither for the client nor for the test."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Recorder(Logger):
    """Keeps what a server logs: paths with responses, and error messages."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.events: list[Any] = []

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        assert 0 <= request_time < 60
        self.events.append((request["path"], response and (response["status"], [*response["headers"]])))

    async def exception(self, message: str, *_: Any, **__: Any) -> None:
        self.events.append(message)


class Counting(http1_short_cut.ShortCutProtocol):
    """Counts in its configuration how many requests took the short cut."""

    def _take(self, data: bytes) -> bool:
        is_taken = super()._take(data)
        self.config.taken += is_taken  # type: ignore[attr-defined]
        return is_taken


class Served:
    """A running server: its configuration, its log, its socket, and what stops it."""

    def __init__(self, path: Path, protocol: type[H11Protocol], settings: dict[str, Any]) -> None:
        config = {
            "bind": [f"unix:{path}"],
            "logger_class": Recorder,
            "errorlog": None,
            "graceful_timeout": 0.05,
            **settings,
        }
        self.config = Config.from_mapping(config, protocol=protocol, taken=0)
        self.path = str(path)
        self.link = HypercornLink()
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None]
        self._clients: list[Client] = []

    @property
    def taken(self) -> int:
        """How many requests took the short cut."""
        return int(self.config.taken)  # type: ignore[attr-defined]

    @property
    def connection(self) -> Connection:
        """The one connection that is open."""
        [context] = self.link.contexts
        found: list[Connection] = [*context.connections]
        return next(one for one in found if not one.writer.is_closing())

    @property
    def events(self) -> list[Any]:
        """What the Recorder has kept."""
        return self.config.log.events  # type: ignore[no-any-return]

    async def end(self) -> None:
        """Abort all clients and stop the server."""
        for client in self._clients:
            client.transport.abort()
        self.stop.set()
        await self.task
        await turn()

    async def connect(self) -> "Client":
        """Connect a client."""
        _, client = await asyncio.get_running_loop().create_unix_connection(Client, self.path)
        self._clients.append(client)
        await turn()
        return client


class Client(asyncio.Protocol):
    """Keeps what it receives, and how its connection has ended."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.received = b""
        self.end = ""
        self.ended = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.end += "end"
        self.ended.set()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.end += f"lost {error}"
        self.ended.set()

    async def send(self, data: bytes) -> bytes:
        """Send, wait until nothing more comes back, and return what came."""
        before = len(self.received)
        self.transport.write(data)
        await self.settle()
        return self.received[before:]

    async def settle(self) -> None:
        """Wait until nothing more comes back."""
        seen = -1
        while seen != len(self.received):
            seen = len(self.received)
            await turn()


def patch_short_cut(patch: pytest.MonkeyPatch) -> None:
    """Let servers that `start` starts have the protocol that it is given."""

    def choose(app: Any, config: Any, *rest: Any) -> H11Protocol:
        protocol: H11Protocol = config.protocol(app, config, *rest)
        return protocol

    chosen = [
        one._replace(ours="http1_short_cut.choose_protocol") if one.name == "H11Protocol" else one
        for one in patches.PATCHES
    ]
    patch.setattr(http1_short_cut, "choose_protocol", lambda _: choose, raising=False)
    patch.setattr(patches, "PATCHES", chosen)


async def start(app: Any, path: Path, protocol: type[H11Protocol] = Counting, **settings: Any) -> Served:
    """Serve an application at a Unix socket."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        with served.link.attached(scope):
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})

    served = Served(path, protocol, settings)
    served.task = asyncio.create_task(serve(application, served.config, shutdown_trigger=served.stop.wait))
    await turn()
    return served
