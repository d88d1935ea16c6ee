"""TCP connections: idle timeout, closing, and exceptions that Hypercorn does not handle."""

import asyncio
import logging
import math
from contextlib import suppress
from typing import Any

from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import AsyncioSingleTask
from hypercorn.events import Closed, RawData

from wizards.server import http1_short_cut
from wizards.server.context import ServerContext

logger = logging.getLogger(__name__)

# How long a client of HTTP/2 may take to read what it was sent last, and to close. A connection that is
# closed on a client that still sends, as HTTP/2 clients do to open their windows, is reset, and answers are
# lost that have not been read yet (RFC 9112, section 9.6).
GOAWAY_LINGER_SECONDS = 5


class IdleTimer(AsyncioSingleTask):
    """Closes a connection that has been idle for `keep_alive_timeout`; in place of Hypercorn's task for it.

    Hypercorn starts a task whenever a connection becomes idle. That task can close the connection just
    after a request was read: the append is committed, and its response is lost. Here one timer is armed for a
    connection, and looks at `until` when it fires: to be busy or idle again costs an assignment.
    """

    def __init__(self, connection: "Connection") -> None:
        self.until = math.inf  # busy; otherwise when it will have been idle for too long, by the loop's clock
        self._connection = connection
        self._handle: asyncio.Handle | None = None  # type: ignore[assignment]
        self._has_ended = False

    def mark_busy(self) -> None:
        """Keep the connection open until `mark_idle` is called."""
        self.until = math.inf

    def mark_idle(self) -> None:
        """Restart the idle timer; close at once if the server is terminated."""
        connection = self._connection
        self.until = connection.loop.time() + connection.config.keep_alive_timeout
        if connection.context.terminated.is_set():
            self.expire()
        elif self._handle is None:
            self._arm()

    def expire(self) -> None:
        """Close the connection now if it is idle."""
        if self.until < math.inf:
            self.until = -math.inf
            self._disarm()
            self._arm()

    def end(self) -> None:
        """Leave the connection alone from now on: it ends by itself."""
        self._has_ended = True
        self._disarm()

    async def restart(self, task_group: Any, action: Any) -> None:  # noqa: ARG002  # Hypercorn's interface
        """Mark the connection idle."""
        self.mark_idle()

    async def stop(self) -> None:
        """Mark the connection busy."""
        self.mark_busy()

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def is_over(self) -> bool:
        """Whether the connection has been idle for too long."""
        return self.until <= self._connection.loop.time()

    def _arm(self) -> None:
        if self._has_ended:
            return
        if self.is_over():
            self._connection.close_if_idle()
        else:
            self._handle = self._connection.loop.call_at(self.until, self._fire)

    def _fire(self) -> None:
        self._handle = None
        if self.until < math.inf:
            self._arm()


class Connection(TCPServer):
    """A connection that ends when its client has closed it, or has sent what Hypercorn fails at."""

    context: ServerContext

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.idle_task: IdleTimer = IdleTimer(self)

    async def run(self) -> None:
        """Serve the connection to its end. A cancellation ends it at once."""
        self.context.add(self)
        try:
            await super().run()
        except Exception as error:  # noqa: BLE001  # any failure ends only this connection
            logger.debug("A connection failed: %r", error)
        finally:
            self.context.connections.discard(self)
            self.idle_task.end()

    def expire(self) -> None:
        """Close the connection if it is idle, and otherwise when it is."""
        self.idle_task.expire()

    def abort(self) -> None:
        """Abort the connection: its requests find their client gone."""
        self.writer.transport.abort()

    def close_if_idle(self) -> None:
        """Close the connection unless a request has been received by then."""
        self._task_group.spawn(self._initiate_server_close)

    async def _read_data(self) -> None:
        async with http1_short_cut.short_cut(self):
            try:
                while not self.reader.at_eof() and (data := await self._read()) is not None:
                    await self.protocol.handle(RawData(data))
            except Exception:
                await self.protocol.handle(Closed())  # wake the tasks that wait for this client
                raise
            await self.protocol.handle(Closed())
        self.idle_task.end()

    async def _read(self) -> bytes | None:
        # Bytes that are read after the connection has begun to close could not be answered.
        try:
            if self.config.read_timeout is None:
                data = await self.reader.read(MAX_RECV)
            else:
                async with asyncio.timeout(self.config.read_timeout):
                    data = await self.reader.read(MAX_RECV)
        except OSError:  # a timeout and an error of TLS, too
            return None
        return None if self.writer.is_closing() else data

    async def _close(self) -> None:
        with suppress(OSError):  # over TLS: the client has sent more after it was told that this is the end
            await super()._close()

    async def _initiate_server_close(self) -> None:
        # As a task begins one step after it was made, what had been received then has been read by now.
        if not self.idle_task.is_over():
            return
        send_goaway = getattr(self.protocol.protocol, "send_goaway", None)
        if send_goaway is None:  # HTTP/1.1
            await super()._initiate_server_close()
            return
        # Set the deadline before sending GOAWAY: the send blocks if the client reads nothing.
        self.loop.call_later(GOAWAY_LINGER_SECONDS, self.writer.close)
        await send_goaway()
        await self.protocol.handle(Closed())
        if self.writer.can_write_eof():  # TLS cannot
            with suppress(OSError):  # the client has reset it
                self.writer.write_eof()
