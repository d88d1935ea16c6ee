"""Streams: one request and its response, on any version of HTTP.

- Hypercorn leaves the stream open after a response of its own (a refused WebSocket handshake, a host that is
  not served): HTTP/1.1 keeps the connection open as well, HTTP/2 leaks one stream for each such request.
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
