"""A TCP proxy in front of PostgreSQL that counts round trips, drops packets, and moves to another server."""

import asyncio
from types import TracebackType
from typing import Self

from support.postgresql import PostgreSQL

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Forwards TCP connections on a free port to `server`; runs in the test's event loop.

    While `is_dropping`, all data vanishes and no connection is closed, as in a network that drops packets;
    while `drops_responses`, only what the server sends.
    """

    def __init__(self, server: PostgreSQL) -> None:
        self.is_dropping = False
        self.drops_responses = False
        self.round_trips = 0
        self._requested = asyncio.Event()
        self._aborts_next = False
        self._server = server
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._abort()

    def url(self, url: str) -> str:
        """Return the URL of the same database behind this proxy."""
        return f"postgresql://wizards@127.0.0.1:{self.port}/{self._server.database_of(url)}"

    def move(self, server: PostgreSQL) -> None:
        """Abort all connections and lead new ones to another server."""
        self._server = server
        self._abort()

    async def wait_for_request(self) -> None:
        """Wait until one more request has come."""
        self._requested.clear()
        await self._requested.wait()

    def abort_next_request(self) -> None:
        """Abort the connection that sends the next request, without forwarding it."""
        self._aborts_next = True

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, *client: *Stream) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(client[1])
        try:
            server = await asyncio.open_unix_connection(self._server.folder / ".s.PGSQL.5432")
            self._writers.add(server[1])
            is_request = [False]
            up = self._forward(client[0], server[1], is_request, to_server=True)
            down = self._forward(server[0], client[1], is_request, to_server=False)
            await asyncio.gather(up, down)
        except OSError:
            pass
        finally:
            client[1].transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        is_request: list[bool],
        *,
        to_server: bool,
    ) -> None:
        while data := await reader.read(2**16):
            if to_server and not is_request[0]:
                self.round_trips += 1
                self._requested.set()
            is_request[0] = to_server
            if to_server and self._aborts_next:
                self._aborts_next = False
                break
            if not self.is_dropping and (to_server or not self.drops_responses):
                writer.write(data)
        if not self.is_dropping:
            writer.transport.abort()
