"""Faults of Hypercorn 0.18, mended from inside the application. There is no setting for any.

- Its HTTP/2 send buffer lets the application go on after every piece that is smaller than the low water
  mark, an empty one too: once a client's window is full, the rest of an answer goes into the buffer, however
  long it is. A stalled reader of a 7 MiB page costs 8 MiB; with this, two blocks.
- When an HTTP/2 client leaves, a `send` that waits for its flow control window waits for ever, and the
  connection with it.
- A `:path` or `:method` that is not ASCII, which HTTP/2 lets through, ends the connection by an exception
  that nobody handles. That is as it should be, but whoever likes could fill the log with its tracebacks. The
  same way, in Python 3.11, ends a connection that outlasts a stop.
- Its access log shows paths decoded: `/%0A` begins a new line, in which a client may write what it likes.
"""

import asyncio
import logging
from typing import Any

from hypercorn.protocol import h2
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

logger = logging.getLogger(__name__)


# In seconds, how long an answer may take to end by itself after its client has gone. One that is complete is
# told so before its last `send` returns.
PARTING = 1.0


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
        answering = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.wait({leaving, answering}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({answering}, timeout=PARTING)
            if answering.done():
                answering.result()  # raises what the application raised
        finally:
            leaving.cancel()
            answering.cancel()


def escape_controls(record: logging.LogRecord) -> bool:
    """Let a record pass, with escapes for all characters in it that do not print."""
    text = record.getMessage()
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    record.msg, record.args = text, ()
    return True


def install() -> None:
    """Mend the server whose event loop is running, before it listens."""
    h2.StreamBuffer = BoundedBuffer  # type: ignore[misc]
    logging.getLogger("hypercorn.access").addFilter(escape_controls)
    loop = asyncio.get_running_loop()
    previous = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if "client_connected_cb" in context["message"] or isinstance(error, asyncio.CancelledError):
            logger.debug("A connection failed: %r", error)
        elif previous is not None:
            previous(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
