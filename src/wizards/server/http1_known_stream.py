"""A request that takes the short cut, and its response (see `http1_short_cut`)."""

import asyncio
import re
from time import time
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import h11
from hypercorn.events import Closed
from hypercorn.protocol.h11 import STREAM_ID
from hypercorn.protocol.http_stream import ASGIHTTPState
from hypercorn.utils import suppress_body

from wizards.server.http1_heads import Headers, write_head
from wizards.server.streams import HTTPStream

if TYPE_CHECKING:
    from wizards.server.http1_short_cut import ShortCutProtocol


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
            self._protocol.tasks.pop(self, None)  # it is not there yet if it never waited

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
