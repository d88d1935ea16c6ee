"""Streams: one request and its response, on any version of HTTP.

- A response by the server itself (a handshake of WebSocket that is refused, a host that is not served) left
  its stream open: in HTTP/1.1 the connection, too, and in HTTP/2 one more stream with each such request.
- A request whose client left before its response was complete had two lines in the access log, and counted
  twice in statsd.
"""

from time import time
from typing import Any

from hypercorn.protocol import http_stream, ws_stream
from hypercorn.protocol.events import EndBody, StreamClosed


class HTTPStream(http_stream.HTTPStream):
    """A request that ends once, and is logged once."""

    app_put: Any = None  # until the application is called

    async def _send_error_response(self, status_code: int) -> None:
        await super()._send_error_response(status_code)
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_closed(self) -> None:
        is_logged = self.closed  # its client has left before
        self.state = http_stream.ASGIHTTPState.CLOSED
        await self.send(EndBody(stream_id=self.stream_id))
        if not is_logged:
            await self.config.log.access(self.scope, self.response, time() - self.start_time)
        await self.send(StreamClosed(stream_id=self.stream_id))


class WSStream(ws_stream.WSStream):
    """A WebSocket whose refused handshake ends its stream."""

    async def _send_error_response(self, status_code: int) -> None:
        await super()._send_error_response(status_code)
        await self.send(StreamClosed(stream_id=self.stream_id))
