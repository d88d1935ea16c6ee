"""Faults of Hypercorn 0.18, mended from inside the application. There is no setting for any.

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
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakSet

from hypercorn import protocol
from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.events import Closed
from hypercorn.protocol import h2

from wizards.server import http2

logger = logging.getLogger(__name__)

# In seconds: how long a client of HTTP/2 may take to read what it was sent last, and to close.
LINGER = 5

# What asyncio logs, and anybody could cause.
NO_NEWS = (
    "socket.send() raised exception",  # an answer to a client that has reset its connection
    "SSL connection is closed",  # the same over TLS
    "client_connected_cb",  # a connection that ended by an exception
    "_start_serving",  # a listening socket that was closed before the next attempt to accept
)


class TCPConnection(TCPServer):
    """A connection that is over when its client has closed it, or has sent what Hypercorn fails at."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        _connections.add(self)

    async def run(self) -> None:
        """Serve the connection to its end. A cancellation ends it at once."""
        try:
            await super().run()
        except Exception as error:  # noqa: BLE001  # whatever it fails at is this connection's end alone
            logger.debug("A connection failed: %r", error)

    async def _read_data(self) -> None:
        try:
            await super()._read_data()
        except Exception:
            await self.protocol.handle(Closed())  # whatever waits for the client goes on, and is done
            raise
        await self.idle_task.stop()

    async def _close(self) -> None:
        with suppress(OSError):  # over TLS: the client has sent more after it was told that this is the end
            await super()._close()

    async def _initiate_server_close(self) -> None:
        if isinstance(self.protocol.protocol, http2.Protocol):
            await self.protocol.protocol.say_goodbye()
            await self.protocol.handle(Closed())
            if self.writer.can_write_eof():  # TLS cannot
                with suppress(OSError):  # the client has reset it
                    self.writer.write_eof()
            await asyncio.sleep(LINGER)  # unless the client closes
        await super()._initiate_server_close()


_connections: WeakSet[TCPConnection] = WeakSet()


def cut_off(context: WorkerContext) -> None:
    """End every connection of one server; whoever serves it finds its client gone."""
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
    run.TCPServer = TCPConnection  # type: ignore[assignment,attr-defined]
    logging.getLogger("hypercorn.access").addFilter(escape_controls)
    logging.getLogger("asyncio").addFilter(is_news)
