"""Faults of Hypercorn 0.18, mended from inside the application. There is no setting for any.

- Its HTTP/2 send buffer lets the application go on after every piece that is smaller than the low water
  mark, an empty one too: once a client's window is full, the rest of an answer goes into the buffer, however
  long it is. And it takes a piece of any size, for each of the hundred requests of a client that reads
  nothing. A stalled reader of a 7 MiB page costs 8 MiB; with this, 64 KiB.
- When an HTTP/2 client leaves, or wants an answer no more, a `send` that waits for its flow control window
  waits for ever, and the connection with it.
- A connection that its client has closed is kept until it has been idle for `keep_alive_timeout`. At the
  usual limit of 1,024 open files, 50 clients that open and close connections got 220 answers a second, some
  of them after 5 s; with this they get 3,300.
- What it fails at in a connection (a `:path` that is not ASCII, which HTTP/2 lets through; data of a stream
  that it refused during a stop) is an exception that nobody handles: answers under way on the connection
  wait for ever, and a stop with them, or it ends the whole server. With this, it ends the connection.
- A connection that outlasts a stop leaves a traceback in Python 3.11.
- Its access log shows paths decoded: `/%0A` begins a new line, in which a client may write what it likes.
- When no file is free for one more connection, asyncio logs each of `backlog` attempts a second; and it logs
  every answer that is written to a connection which its client has reset.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from h2.events import DataReceived
from h2.events import Event as H2Event
from hypercorn import protocol
from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed
from hypercorn.protocol import h2
from hypercorn.protocol.events import Body
from hypercorn.protocol.events import Event as StreamEvent

logger = logging.getLogger(__name__)

# In bytes, what an answer hands to HTTP/2 at a time: as much as its buffer takes before it waits.
PIECE = h2.BUFFER_HIGH_WATER

# What asyncio logs of a connection whose client has reset it, and of one that ended by an exception.
NO_NEWS = ("socket.send() raised exception", "client_connected_cb")


class BoundedBuffer(h2.StreamBuffer):
    """A send buffer that takes more only when it is nearly empty: what counts is how much is left."""

    async def pop(self, max_length: int) -> bytes:
        """Return at most `max_length` of the bytes to be sent. A cancellation loses none."""
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < h2.BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


class Protocol(h2.H2Protocol):
    """HTTP/2 that takes an answer in pieces, and ends it when its client has left."""

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream has to say, while there is a connection. A cancellation leaves it incomplete."""
        for piece in _pieces(event):
            if not self.closed:
                await super().stream_send(piece)

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            # A stream that is refused during a stop may have data with it.
            if not isinstance(event, DataReceived) or event.stream_id in self.streams:
                await super()._handle_events([event])

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        if stream_id in self.stream_buffers:
            await self.stream_buffers[stream_id].close()  # whoever waits for room in it goes on, and is done


class TCPConnection(TCPServer):
    """A connection that is over when its client has closed it, or has sent what Hypercorn fails at."""

    async def _read_data(self) -> None:
        try:
            await super()._read_data()
        except Exception as error:  # noqa: BLE001  # whatever it fails at is this connection's end alone
            logger.debug("A connection failed: %r", error)
            await self.protocol.handle(Closed())
        await self.idle_task.stop()


def _pieces(event: StreamEvent) -> Iterator[StreamEvent]:
    if isinstance(event, Body):
        for start in range(0, len(event.data), PIECE):
            yield replace(event, data=event.data[start : start + PIECE])
    else:
        yield event


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
    h2.StreamBuffer = BoundedBuffer  # type: ignore[misc]
    protocol.H2Protocol = Protocol  # type: ignore[attr-defined]
    run.TCPServer = TCPConnection  # type: ignore[attr-defined]
    logging.getLogger("hypercorn.access").addFilter(escape_controls)
    logging.getLogger("asyncio").addFilter(is_news)
