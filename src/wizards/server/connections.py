"""Faults of Hypercorn 0.18, mended from inside the application. There is no setting for any.

- A request that arrives as its connection's idle time ends is carried out, and the connection closed without
  an answer: 8 to 37 of 1,200 appends that came 5 s after the answer before. Clients that repeat a GET, as
  Go's and nginx do, append twice.
- A connection that its client has closed is kept until it has been idle for `keep_alive_timeout`. At the
  usual limit of 1,024 open files, 50 clients that open and close connections got 220 answers a second, some
  of them after 5 s; with this they get 3,300.
- What it fails at in a connection (a `:path` that is not ASCII, which HTTP/2 lets through) is an exception
  that nobody handles: answers under way on the connection wait for ever, and a stop with them, or it ends
  the whole server. With this, it ends the connection.
- When it closes a connection whose client still sends, the connection is reset, and answers are lost that
  have not been read yet (RFC 9112, section 9.6). A client of HTTP/2 sends while it reads, to open its window.
  With this, it is told, and has some seconds to read and to close.
- A connection that outlasts a stop leaves a traceback in Python 3.11.
- Its access log shows paths decoded: `/%0A` begins a new line, in which a client may write what it likes.
- When no file is free for one more connection, asyncio logs each of `backlog` attempts a second, and once
  more if the server stops meanwhile; and it logs every answer to a client that has reset its connection.

Those of HTTP/2 alone are in `http2`.
"""

import asyncio
import logging
import math
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakSet

from hypercorn import protocol
from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import AsyncioSingleTask, WorkerContext
from hypercorn.events import Closed, RawData
from hypercorn.protocol import h2

from wizards.server import http2

logger = logging.getLogger(__name__)

# How long a client of HTTP/2 may take to read what it was sent last, and to close.
GOAWAY_LINGER_SECONDS = 5

# What asyncio logs, and anybody could cause.
NO_NEWS = (
    "socket.send() raised exception",  # an answer to a client that has reset its connection
    "SSL connection is closed",  # the same over TLS
    "client_connected_cb",  # a connection that ended by an exception
    "_start_serving",  # a listening socket that was closed before the next attempt to accept
)


class IdleTimer(AsyncioSingleTask):
    """Closes a connection that has been idle for `keep_alive_timeout`; in place of Hypercorn's task for it.

    Hypercorn starts a task whenever a connection becomes idle. It closes the connection one step after a
    request was read, so that an append is carried out and never answered. Here one timer is armed for a
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
        """Begin the idle time anew; close at once when the server has ceased to listen."""
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
    """A connection that is over when its client has closed it, or has sent what Hypercorn fails at."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.idle_task: IdleTimer = IdleTimer(self)
        _connections.add(self)

    async def run(self) -> None:
        """Serve the connection to its end. A cancellation ends it at once."""
        try:
            await super().run()
        except Exception as error:  # noqa: BLE001  # whatever it fails at is this connection's end alone
            logger.debug("A connection failed: %r", error)
        finally:
            self.idle_task.end()

    def close_if_idle(self) -> None:
        """Close the connection unless a request has been received by then."""
        self._task_group.spawn(self._initiate_server_close)

    async def _read_data(self) -> None:
        try:
            while not self.reader.at_eof() and (data := await self._read()) is not None:
                await self.protocol.handle(RawData(data))
        except Exception:
            await self.protocol.handle(Closed())  # wake the tasks that wait for this client, so that they end
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
        protocol = self.protocol.protocol
        if not isinstance(protocol, http2.Protocol):
            await super()._initiate_server_close()
            return
        # Unless the client closes first. To tell the client may take as long, if it reads nothing.
        self.loop.call_later(GOAWAY_LINGER_SECONDS, self.writer.close)
        await protocol.send_goaway()
        await protocol.handle(Closed())
        if self.writer.can_write_eof():  # TLS cannot
            with suppress(OSError):  # the client has reset it
                self.writer.write_eof()


_connections: WeakSet[Connection] = WeakSet()


def close_idle_connections(context: WorkerContext) -> None:
    """Close every connection of one server that has no request under way."""
    for connection in _connections:
        if connection.context is context:
            connection.idle_task.expire()


def abort_connections(context: WorkerContext) -> None:
    """Abort every connection of one server; its requests find their client gone."""
    for connection in _connections:
        if connection.context is context:
            connection.writer.transport.abort()


def escape_controls(record: logging.LogRecord) -> bool:
    """Let a record pass, with escapes for all characters in it that do not print."""
    text = record.getMessage()
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    record.msg, record.args = text, ()
    return True


def is_news(record: logging.LogRecord) -> bool:
    """Let a record of asyncio's pass unless anybody could cause it; say once that no file is free."""
    text = str(record.msg)
    error = record.exc_info[1] if record.exc_info else None
    if "out of system resource" in text:
        _warn_of(str(error))
        return False
    return not isinstance(error, asyncio.CancelledError) and not any(words in text for words in NO_NEWS)


@cache
def _warn_of(shortage: str) -> None:
    logger.warning("No more connections: %s. Newcomers wait; see LimitNOFILE.", shortage)


def install() -> None:
    """Mend the server of this process, before it listens."""
    h2.StreamBuffer = http2.StreamBuffer  # type: ignore[misc]
    protocol.H2Protocol = http2.Protocol  # type: ignore[attr-defined]
    run.TCPServer = Connection  # type: ignore[assignment,attr-defined]
    logging.getLogger("hypercorn.access").addFilter(escape_controls)
    logging.getLogger("asyncio").addFilter(is_news)
