"""Two faults of Hypercorn 0.18, mended from inside the application. There is no setting for either.

- Its HTTP/2 send buffer lets the application go on after every piece that is smaller than the low water
  mark, an empty one too: once a client's window is full, the rest of an answer goes into the buffer, however
  long it is. A stalled reader of a 7 MiB page costs 8 MiB; with this, two blocks.
- A `:path` or `:method` that is not ASCII, which HTTP/2 lets through, ends the connection by an exception
  that nobody handles. That is as it should be, but whoever likes could fill the log with its tracebacks. The
  same way, in Python 3.11, ends a connection that outlasts a stop.
"""

import asyncio
import logging
from typing import Any

from hypercorn.protocol import h2

logger = logging.getLogger(__name__)


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


def install() -> None:
    """Apply both to the server whose event loop is running, before it listens."""
    h2.StreamBuffer = BoundedBuffer  # type: ignore[misc]
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
