"""A short cut for HTTP/1.1: a header block that h11 has parsed once is not parsed again.

h11, events, streams and timers are nine tenths of what Hypercorn spends on a small request.

What is learned: the header block of a GET or HEAD without a body, if the request arrived in one read and h11
parsed it with nothing left over (`heads`). All connections of a server share what it has learned.

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
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import h11
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import STREAM_ID
from hypercorn.protocol.http_stream import ASGIHTTPState
from hypercorn.utils import suppress_body, valid_server_name

from wizards.server.context import ServerContext
from wizards.server.http1 import HTTP1Protocol
from wizards.server.http1_heads import REQUEST_LINE, Headers, learn, write_head
from wizards.server.streams import HTTPStream

if TYPE_CHECKING:
    from wizards.server.connections import Connection

_blocks: WeakKeyDictionary[ServerContext, dict[bytes, Headers]] = WeakKeyDictionary()


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

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tcp: Connection
        self._feed: Callable[[bytes], None]
        self.known: KnownStream | None = None  # under way, and h11 has not heard of it
        self.tasks: dict[KnownStream, asyncio.Task[None]] = {}
        self._blocks = _blocks.setdefault(self.context, {})
        self._block = b""  # of the request that h11 is about to parse, if it may be learned
        self._is_reading = False  # bytes are on their way to h11
        self._is_clean = False  # h11 waits for a request, and has read nothing since that was seen

    def attach(self, connection: "Connection") -> dict["KnownStream", asyncio.Task[None]]:
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
            learn(self._blocks, block, request, as_sent=self.config.h11_pass_raw_headers)

    def _waits(self) -> bool:
        states = self.connection.our_state, self.connection.their_state
        return states == (h11.IDLE, h11.IDLE) and self.connection.trailing_data == (b"", False)

    def _receive(self, data: bytes) -> None:
        if self._is_reading or self.known is not None or self.stream is not None or not self._take(data):
            self._is_reading = True
            self._feed(data)

    def _take(self, data: bytes) -> bool:
        line = REQUEST_LINE.match(data)
        headers = self._blocks.get(data[line.end() :]) if line else None
        is_last = self.keep_alive_requests + 1 >= self.config.keep_alive_max_requests
        if line is None or headers is None or is_last:
            return False
        self._is_clean = self._is_clean or self._waits()
        if self._is_clean:
            self.tcp.idle_task.mark_busy()
            self.keep_alive_requests += 1
            self.known = KnownStream(self, data, line, headers)
            self.tasks[self.known] = self.tcp.loop.create_task(self.known.run())
        return self._is_clean


class KnownStream(HTTPStream):
    """A request with a learned header block, and its response."""

    def __init__(
        self, protocol: "ShortCutProtocol", data: bytes, line: re.Match[bytes], headers: Headers
    ) -> None:
        p = self._protocol = protocol
        about: tuple[Any, ...] = p.app, p.config, p.context, p.task_group, p.ssl, p.client, p.server
        about += p.stream_send, STREAM_ID
        super().__init__(*about)
        method, path, query = line.groups()
        self.start_time = time()
        self.scope = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": method.decode(),
            "scheme": self.scheme,
            "path": unquote(path.decode()),
            "raw_path": path,
            "query_string": query or b"",
            "root_path": self.config.root_path,
            "headers": headers.copy(),
            "client": self.client,
            "server": self.server,
            "state": p.connection_state.copy(),  # type: ignore[typeddict-item]
            "extensions": {},
        }
        self._data = data
        self._head = b""  # held until the body begins
        self._length = self._sent = 0  # of the body
        self._messages: asyncio.Queue[Any] | None = None  # for the application, once it asks

    async def run(self) -> None:
        """Run the application; log its failure and end the connection as Hypercorn does."""
        app = self.app.app  # type: ignore[attr-defined]  # an ASGIWrapper's
        try:
            await self.context.mark_request()
            try:
                await app(self.scope, self.receive, self.app_send)
            except Exception:  # noqa: BLE001
                await self.config.log.exception("Error in ASGI Framework")
            finally:
                await self.app_send(None)
        except Exception:  # noqa: BLE001  # h11 sends no more on this connection
            self._protocol.tcp.writer.close()
        finally:
            del self._protocol.tasks[self]

    async def receive(self) -> Any:
        """Return the empty body; then, once the request is over, that the client has left."""
        if self._messages is None:
            self._messages = asyncio.Queue()
            self._messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
            if self.closed:
                self._messages.put_nowait({"type": "http.disconnect"})
        return await self._messages.get()

    async def app_send(self, message: Any) -> None:
        """Send a message of the response, or note with None that the application has ended."""
        if self._protocol.known is not self:  # complete, or handed over
            await super().app_send(message)
        elif message is None or not (self._starts(message) or await self._continues(message)):
            self.hand_over()
            await super().app_send(message)

    def hand_over(self) -> None:
        """Let Hypercorn go on from here."""
        protocol, connection = self._protocol, cast(h11.Connection, self._protocol.connection)
        protocol.known, protocol.stream = None, self
        connection.receive_data(self._data)
        connection.next_event()  # Request
        connection.next_event()  # EndOfMessage
        if self.state is ASGIHTTPState.RESPONSE:
            length = [("content-length", str(self._length))]
            connection.send(h11.Response(status_code=int(self.response["status"]), headers=length))
            sent = cast(bytes, range(self._sent))  # h11 asks nothing but its length
            connection.send_with_data_passthrough(h11.Data(data=sent))
            protocol.tcp.writer.write(self._head)

    def _starts(self, message: Any) -> bool:
        is_expected = message["type"] == "http.response.start" and self.state is ASGIHTTPState.REQUEST
        if not is_expected or self._protocol.context.is_draining:
            return False
        try:
            self._head, self._length = write_head(message, self.config)
        except Exception:  # noqa: BLE001  # Hypercorn raises it, too
            return False
        self.state, self.response = ASGIHTTPState.RESPONSE, message
        self._is_bodyless = suppress_body(self.scope["method"], message["status"])
        if self._is_bodyless:
            self._length = 0
        return True

    async def _continues(self, message: Any) -> bool:
        if message["type"] != "http.response.body" or self.state is not ASGIHTTPState.RESPONSE:
            return False
        body = b"" if self._is_bodyless else bytes(message.get("body", b""))
        is_last = not message.get("more_body", False)
        end = self._sent + len(body)
        fits = end == self._length if is_last else end <= self._length
        if not fits:
            return False
        data, self._head, self._sent = self._head + body, b"", end
        transport = self._protocol.tcp.writer.transport
        transport.write(data)
        if transport.get_write_buffer_size() or transport.is_closing():
            await self._drain()
        if is_last and self._protocol.known is self:
            await self._complete()
        elif is_last:  # handed over while it was written
            await super().app_send({"type": "http.response.body", "body": b"", "more_body": False})
        return True

    async def _drain(self) -> None:
        try:
            await self._protocol.tcp.writer.drain()
        except (ConnectionError, RuntimeError):  # as Hypercorn has it
            await self._protocol.handle(Closed())

    async def _complete(self) -> None:
        self.state, self.closed = ASGIHTTPState.CLOSED, True
        self._protocol.known = None
        self._protocol.tcp.idle_task.mark_idle()
        await self.config.log.access(self.scope, self.response, time() - self.start_time)
        await self.app_put({"type": "http.disconnect"})

    async def app_put(self, message: Any) -> None:
        """Let the application receive a message, if it has asked for one."""
        if self._messages is not None:
            self._messages.put_nowait(message)
