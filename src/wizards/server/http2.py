"""HTTP/2: each response ends, and no client can make one expensive."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import hpack
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import DataReceived, PriorityUpdated, RemoteSettingsChanged, RequestReceived
from h2.events import Event as H2Event
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypercorn.events import Closed, Event, Updated
from hypercorn.protocol import h2
from hypercorn.protocol.events import Body
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.typing import Event as Signal

# In bytes, what an answer hands over at a time: less than what Hypercorn's buffer itself waits at.
CHUNK_SIZE = h2.BUFFER_HIGH_WATER - 1

# In bytes, RFC 9113's default (section 6.5.2). A client may allow more, but the encoder searches all of its
# table for each header: 10 ms a request after 10,000 different ones.
MAX_ENCODER_TABLE = 4096

# Of how many streams that have ended h2 keeps the reason. Its default of 65,536 takes 9 MiB a connection.
MAX_CLOSED_STREAMS = 1024


class Encoder(hpack.Encoder):
    """A header encoder whose table the client can make smaller, but not larger."""

    @property
    def header_table_size(self) -> int:
        """The size of the table in bytes. To set it again before the next headers costs no memory."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        size = min(size, MAX_ENCODER_TABLE)
        self.header_table.maxsize = size
        # The smallest size and the last one have to be signalled (RFC 7541, section 4.2).
        self.table_size_changes = [min([*self.table_size_changes, size]), size]


class StreamBuffer(h2.StreamBuffer):
    """A send buffer that takes more only when it is empty."""

    def __init__(self, event_class: type[Signal]) -> None:
        super().__init__(event_class)
        self._has_ended = event_class()

    async def push(self, data: bytes) -> None:
        """Add `data` and wait until all of it is sent. A cancellation takes nothing back."""
        await super().push(data)
        await self._is_empty.wait()

    async def drain(self) -> None:
        """Wait until all is sent, with the stream's end if it is complete. A cancellation changes nothing."""
        await (self._has_ended if self._complete else self._is_empty).wait()

    async def close(self) -> None:
        """Wake all waiters; no more data will be sent."""
        await super().close()
        await self._has_ended.set()


class HTTP2Protocol(h2.H2Protocol):
    """HTTP/2 that takes an answer in pieces, and ends it when its client has left."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.connection.encoder = Encoder()
        self.connection.decoder.max_header_list_size = self.config.h2_max_header_list_size
        self.connection._closed_streams._size_limit = MAX_CLOSED_STREAMS  # type: ignore[attr-defined]  # noqa: SLF001

    async def initiate(self, headers: Any = None, settings: bytes | None = None) -> None:
        """Begin the connection, after a request for an upgrade with these headers, or idle."""
        await super().initiate(headers, settings)
        if headers is None:  # Hypercorn took the preface for a request that is under way
            await self.send(Updated(idle=True))

    async def send_goaway(self) -> None:
        """Tell the client that no more of its requests will be taken (RFC 9113, section 6.8)."""
        self.connection.close_connection()
        await self._flush()

    async def handle(self, event: Event) -> None:
        """Take what the client sends, until it was told that no more will be taken."""
        if self.connection.state_machine.state is not ConnectionState.CLOSED or isinstance(event, Closed):
            await super().handle(event)

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream has to say, while there is a connection. A cancellation leaves it incomplete."""
        for piece in _chunks(event):
            if not self.closed:
                await super().stream_send(piece)

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            if self.closed:  # meanwhile; nothing could be answered
                return
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                # Of a stream that was refused or answered already. It counts against the connection's window.
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, RequestReceived) and self.context.terminated.is_set():
                # Not begun, so that the client may send it again (RFC 9113, section 8.7).
                with suppress(ProtocolError):  # the client has reset it by now
                    self.connection.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            elif isinstance(event, RemoteSettingsChanged):
                self._forget_unknown(event)
                await super()._handle_events([event])
            elif not isinstance(
                event, PriorityUpdated
            ):  # a client may name any number of streams to depend on
                await super()._handle_events([event])
        await self._flush()  # also what h2 answers by itself, without an event

    def _forget_unknown(self, event: RemoteSettingsChanged) -> None:
        # h2 keeps 65,536 kinds of settings, and goes through all of them for each SETTINGS frame.
        for code in event.changed_settings:
            if not isinstance(code, SettingCodes):
                del self.connection.remote_settings[code]

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers[stream_id]
        await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers:  # its stream has ended
            await buffer.close()

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        if stream_id in self.stream_buffers:
            await self.stream_buffers[stream_id].close()  # wake the tasks that wait for room in it


def _chunks(event: StreamEvent) -> Iterator[StreamEvent]:
    if isinstance(event, Body):
        for start in range(0, len(event.data), CHUNK_SIZE):
            yield replace(event, data=event.data[start : start + CHUNK_SIZE])
    else:
        yield event
