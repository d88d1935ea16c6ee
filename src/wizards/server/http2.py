"""Faults of HTTP/2 in Hypercorn 0.18, mended (see `hypercorn_mends`). There is no setting for any.

- Its send buffer lets the application go on after every piece that is smaller than the low water mark, an
  empty one too: once a client's window is full, the rest of an answer goes into the buffer, however long it
  is. And it takes a piece of any size, for each of the hundred requests of a client that reads nothing. A
  stalled reader of a 7 MiB page costs 8 MiB; with this, 64 KiB.
- When a client leaves, or wants an answer no more, a `send` that waits for its flow control window waits for
  ever, and the connection with it.
- An answer counts as sent when its last bytes are taken from the buffer, before its stream is ended. A stop
  in between closes the connection, and the client takes a whole answer for half of one.
- A connection fails, and takes others' answers with it, when a stop refuses a stream that has data.
"""

from collections.abc import Iterator
from dataclasses import replace

from h2.connection import ConnectionState
from h2.events import DataReceived
from h2.events import Event as H2Event
from hypercorn.events import Closed, Event
from hypercorn.protocol import h2
from hypercorn.protocol.events import Body
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.typing import Event as Signal

# In bytes, what an answer hands over at a time: less than what Hypercorn's buffer itself waits at.
PIECE = h2.BUFFER_HIGH_WATER - 1


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
        """Let go of whoever waits: nothing more will be sent."""
        await super().close()
        await self._has_ended.set()


class Protocol(h2.H2Protocol):
    """HTTP/2 that takes an answer in pieces, and ends it when its client has left."""

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
        for piece in _pieces(event):
            if not self.closed:
                await super().stream_send(piece)

    async def _handle_events(self, events: list[H2Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                # Of a stream that was refused during a stop. It counts against the connection's window.
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                await self._flush()
            else:
                await super()._handle_events([event])

    async def _send_data(self, stream_id: int) -> None:
        buffer = self.stream_buffers[stream_id]
        await super()._send_data(stream_id)
        if stream_id not in self.stream_buffers:  # its stream has ended
            await buffer.close()

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        if stream_id in self.stream_buffers:
            await self.stream_buffers[stream_id].close()  # whoever waits for room in it goes on, and is done


def _pieces(event: StreamEvent) -> Iterator[StreamEvent]:
    if isinstance(event, Body):
        for start in range(0, len(event.data), PIECE):
            yield replace(event, data=event.data[start : start + PIECE])
    else:
        yield event
