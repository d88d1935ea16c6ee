"""HTTP/1.1: reason phrases, complete upgrades, the last response of a connection, and its end."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import h11
from hypercorn.events import Closed
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import H11SendableEvent

from wizards.server.context import ServerContext, ServerEvent
from wizards.server.http1_heads import REASONS


class ReadGate(ServerEvent):
    """Hypercorn's event for which a pipelined request waits, until the response before is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    async def wait(self) -> None:
        """Wait for the event. Raises ConnectionAbortedError if no further request will be read."""
        await super().wait()
        if self.is_closed:
            raise ConnectionAbortedError


class HTTP1Protocol(H11Protocol):
    """HTTP/1.1 that gives reasons, ignores incomplete upgrades to HTTP/2, drains, and ends."""

    context: ServerContext

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.can_read: ReadGate = ReadGate()

    async def handle(self, event: ConnectionEvent) -> None:
        """Take what the client sends; at the end wake the reader, which Hypercorn leaves waiting."""
        await super().handle(event)
        if isinstance(event, Closed):
            await self._close_gate()

    async def _handle_events(self) -> None:
        with suppress(ConnectionAbortedError):  # an exception would cancel the request that is ending
            await super()._handle_events()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream has to say; during a drain tell the client to close."""
        if self.context.is_draining and isinstance(event, Response) and event.status_code >= 200:
            headers = [header for header in event.headers if header[0].lower() != b"connection"]
            event = replace(event, headers=[*headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        if isinstance(event, h11.Response | h11.InformationalResponse):
            event = replace(event, reason=REASONS.get(event.status_code, b""))
        await super()._send_h11_event(event)

    async def _maybe_recycle(self) -> None:
        await super()._maybe_recycle()
        if self.connection.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # that was the last response
            await self._close_gate()

    async def _close_gate(self) -> None:
        self.can_read.is_closed = True
        await self.can_read.set()

    async def _check_protocol(self, event: h11.Request) -> None:
        # RFC 9110, section 7.8: Upgrade is ignored in HTTP/1.0, and where Connection does not list it.
        # RFC 7540, section 3.2.1: so is h2c without exactly one HTTP2-Settings, which is listed, too.
        names = [name for name, _ in event.headers]
        if b"upgrade" not in names:
            await super()._check_protocol(event)
            return
        lists = [value for name, value in event.headers if name == b"connection"]
        options = {option.strip().lower() for value in lists for option in value.split(b",")}
        is_complete = {b"upgrade", b"http2-settings"} <= options and names.count(b"http2-settings") == 1
        if is_complete and event.http_version == b"1.1":
            await super()._check_protocol(event)
