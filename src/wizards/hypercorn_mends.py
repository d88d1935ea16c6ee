"""Faults of Hypercorn 0.18, mended from inside the application. There is no setting for any.

- Its HTTP/2 send buffer lets the application go on after every piece that is smaller than the low water
  mark, an empty one too: once a client's window is full, the rest of an answer goes into the buffer, however
  long it is. And it takes a piece of any size, for each of the hundred requests of a client that reads
  nothing. A stalled reader of a 7 MiB page costs 8 MiB; with this, 64 KiB.
- When an HTTP/2 client leaves, a `send` that waits for its flow control window waits for ever, and the
  connection with it.
- A `:path` or `:method` that is not ASCII, which HTTP/2 lets through, ends the connection by an exception
  that nobody handles. That is as it should be, but whoever likes could fill the log with its tracebacks. The
  same way, in Python 3.11, ends a connection that outlasts a stop.
- Its access log shows paths decoded: `/%0A` begins a new line, in which a client may write what it likes.
- When no file is free for one more connection, asyncio logs each of `backlog` attempts a second; and it logs
  every answer that is written to a connection which its client has reset.
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

from hypercorn.protocol import h2
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)

logger = logging.getLogger(__name__)


# In seconds, how long an answer may take to end by itself after its client has gone. One that is complete is
# told so before its last `send` returns.
PARTING = 1.0

# In bytes, what an answer hands to HTTP/2 at a time: as much as its buffer takes before it waits.
PIECE = h2.BUFFER_HIGH_WATER


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


class EndWithClient:
    """An ASGI application that ends an answer of `app` when its client has left an HTTP/2 connection.

    It is for requests whose body has been read: the next message says that the client has left.
    """

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation is passed on."""
        if scope["type"] != "http" or scope["http_version"] in ("1.0", "1.1"):
            await self._app(scope, receive, send)
            return
        leaving = asyncio.ensure_future(receive())

        async def leave() -> ASGIReceiveEvent:
            return await asyncio.shield(leaving)

        async def send_pieces(message: ASGISendEvent) -> None:
            for piece in _in_pieces(message):
                await send(piece)

        answering = asyncio.ensure_future(self._app(scope, leave, send_pieces))
        try:
            await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({answering}, timeout=PARTING)
            if answering.done():
                answering.result()  # raises what the application raised
        finally:
            leaving.cancel()
            answering.cancel()


def _in_pieces(message: Any) -> Iterator[Any]:
    body = message.get("body", b"")
    for end in range(PIECE, len(body), PIECE):
        yield {**message, "body": body[end - PIECE : end], "more_body": True}
    yield {**message, "body": body[(len(body) - 1) // PIECE * PIECE :]} if len(body) > PIECE else message


def escape_controls(record: logging.LogRecord) -> bool:
    """Let a record pass, with escapes for all characters in it that do not print."""
    text = record.getMessage()
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    record.msg, record.args = text, ()
    return True


def is_news(record: logging.LogRecord) -> bool:
    """Let a record pass unless it says that a client has reset its connection."""
    return "socket.send() raised exception" not in str(record.msg)


def install() -> None:
    """Mend the server whose event loop is running, before it listens."""
    h2.StreamBuffer = BoundedBuffer  # type: ignore[misc]
    logging.getLogger("hypercorn.access").addFilter(escape_controls)
    logging.getLogger("asyncio").addFilter(is_news)
    loop = asyncio.get_running_loop()
    previous = loop.get_exception_handler()
    has_warned = False

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal has_warned
        error = context.get("exception")
        if "out of system resource" in context["message"]:
            if not has_warned:
                logger.warning("No more connections: %s. Newcomers wait; see LimitNOFILE.", error)
            has_warned = True
        elif "client_connected_cb" in context["message"] or isinstance(error, asyncio.CancelledError):
            logger.debug("A connection failed: %r", error)
        elif previous is not None:
            previous(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
