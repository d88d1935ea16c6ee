"""The state of one Hypercorn server of ours."""

import asyncio
from typing import Any

from hypercorn.asyncio.worker_context import EventWrapper, WorkerContext
from hypercorn.config import Config
from hypercorn.typing import Event

# Less than the graceful_timeout of hypercorn.toml, and more than an append may wait for its storage.
ABORT_TIMEOUT = 5.5


class ServerEvent(EventWrapper):
    """Hypercorn's event; by this class the parts of a server of ours are known."""


class ServerContext(WorkerContext):
    """One server: Hypercorn's two events and its connections, with what a stop does to them."""

    event_class: type[Event] = ServerEvent

    def __init__(self, max_requests: int | None, config: Config) -> None:
        super().__init__(max_requests)
        self.config = config
        self.connections: set[Any] = set()  # of TCP, and sockets of QUIC
        self.header_blocks: dict[bytes, Any] = {}  # of HTTP/1.1 requests, each with its headers, parsed
        self.arrivals = 0  # connections and requests, whose lack ends a drain
        self.is_draining = False
        self.is_aborted = False
        self.owns_process = False
        self.tasks: set[asyncio.Task[None]] = set()  # the event loop itself keeps none alive

    def add(self, connection: Any) -> None:
        """Keep a new connection, whose first request the drain awaits."""
        self.connections.add(connection)
        self.arrivals += 1

    async def mark_request(self) -> None:
        """Count a request, for the drain and for Hypercorn's `max_requests`."""
        self.arrivals += 1
        await super().mark_request()

    async def end_connections(self) -> None:
        """Let no append begin from now on; close idle connections now, all others in ABORT_TIMEOUT."""
        await self.terminated.set()
        for connection in tuple(self.connections):
            connection.expire()
        asyncio.get_running_loop().call_later(ABORT_TIMEOUT, self._abort_connections)

    def _abort_connections(self) -> None:
        self.is_aborted = True
        for connection in tuple(self.connections):
            connection.abort()
