"""A short cut for HTTP/1.1: a header block that h11 has parsed once is not parsed again.

h11, events, streams and timers are nine tenths of what Hypercorn spends on a small request.

What is learned: the header block of a GET or HEAD without a body, if the request arrived in one read and h11
parsed it with nothing left over (`http1_heads`). All connections of a server share what it has learned.

When it applies: the connection is idle, h11 has an empty buffer, and what arrives is a request line and
a learned block, to the byte. Then the application gets a task and a scope, as from Hypercorn. Neither h11 nor
the connection's reader sees the request. The head of the response is held until its body begins, as the ASGI
specification demands, and both are written at once.

What it may never change: a byte that is sent, what the application is told, what is logged and counted. So it
handles only the usual case. If anything else happens before the response is complete, it hands the request
over to Hypercorn, at any point that it has reached (`KnownStream.hand_over`): h11 parses the request after
all, and is told how much of the response has been sent. Causes: the client leaves or sends more, the server
drains, the application fails, the head of the response concerns the connection or would be refused by h11,
the body has not the length that the head says. If the time of a read is limited, there is no short cut.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import h11
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.events import Event, RawData
from hypercorn.utils import valid_server_name

from wizards.server.context import ServerContext
from wizards.server.http1 import HTTP1Protocol
from wizards.server.http1_heads import REQUEST_LINE, learn
from wizards.server.http1_known_stream import KnownStream

if TYPE_CHECKING:
    from wizards.server.connections import Connection

# From Python 3.12 on a task can begin at once instead of in the loop's next turn: 10 % more reads a second.
EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


@asynccontextmanager
async def short_cut(connection: "Connection") -> AsyncGenerator[None]:
    """Let a connection take the short cut, then wait for its tasks; an exception cancels them."""
    protocol = connection.protocol.protocol
    tasks = protocol.attach(connection) if isinstance(protocol, ShortCutProtocol) else {}
    try:
        yield
    except BaseException:
        for task in tasks.values():
            task.cancel()
        raise
    finally:
        await asyncio.gather(*tasks.values(), return_exceptions=True)


class ShortCutProtocol(HTTP1Protocol):
    """HTTP/1.1 in which h11 parses only what it has not parsed before."""

    context: ServerContext

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tcp: Connection
        self._feed: Callable[[bytes], None]
        self.known: KnownStream | None = None  # under way, and h11 has not heard of it
        self.tasks: dict[KnownStream, asyncio.Task[None]] = {}
        self._block = b""  # of the request that h11 is about to parse, if it may be learned
        self._is_reading = False  # bytes are on their way to h11
        self._is_clean = False  # h11 waits for a request, and has read nothing since that was seen

    def attach(self, connection: "Connection") -> dict[KnownStream, asyncio.Task[None]]:
        """See what arrives before the connection's reader does; return the running requests."""
        self.tcp = connection
        if isinstance(self.app, ASGIWrapper) and self.config.read_timeout is None:
            self._feed = connection.reader.feed_data
            connection.reader.feed_data = self._receive  # type: ignore[method-assign, assignment]
        return self.tasks

    async def handle(self, event: Event) -> None:
        """Let h11 take what the client sends, and before that the request that it has not heard of."""
        if self.known is not None:
            self.known.hand_over()
        self._is_reading = True
        if isinstance(event, RawData):
            line = REQUEST_LINE.match(event.data) if self._waits() else None
            self._block = event.data[line.end() :] if line else b""
            await super().handle(event)
            self._is_reading = self._is_clean = False
        else:  # the connection is closed, so no request is taken any more
            await super().handle(event)

    async def _create_stream(self, request: h11.Request) -> None:
        block, self._block = self._block, b""
        await super()._create_stream(request)
        is_whole = self.connection.trailing_data == (b"", False)
        if block and is_whole and valid_server_name(self.config, request):  # type: ignore[arg-type]
            learn(self.context.header_blocks, block, request, as_sent=self.config.h11_pass_raw_headers)

    def _waits(self) -> bool:
        states = self.connection.our_state, self.connection.their_state
        return states == (h11.IDLE, h11.IDLE) and self.connection.trailing_data == (b"", False)

    def _receive(self, data: bytes) -> None:
        if self._is_reading or self.known is not None or self.stream is not None or not self._take(data):
            self._is_reading = True
            self._feed(data)

    def _take(self, data: bytes) -> bool:
        line = REQUEST_LINE.match(data)
        headers = self.context.header_blocks.get(data[line.end() :]) if line else None
        is_last = self.keep_alive_requests + 1 >= self.config.keep_alive_max_requests
        if line is None or headers is None or is_last:
            return False
        self._is_clean = self._is_clean or self._waits()
        if self._is_clean:
            self.tcp.idle_task.mark_busy()
            self.keep_alive_requests += 1
            self.known = stream = KnownStream(self, data, line, headers)
            task = asyncio.Task(stream.run(), loop=self.tcp.loop, **EAGER)
            if not task.done():
                self.tasks[stream] = task
        return self._is_clean
