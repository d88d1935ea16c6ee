"""Server-sent events as bytes (WHATWG HTML, 9.2.5)."""

import json
from collections.abc import AsyncGenerator


def parse_events(stream: bytes) -> list[tuple[int, str]]:
    """Return the position and the name of each complete event; fail at anything but events and comments."""
    events = []
    for block in stream.split(b"\n\n")[:-1]:
        if block != b":":
            event_id, data = block.split(b"\n")
            assert event_id.startswith(b"id: ")
            assert data.startswith(b"data: ")
            events.append((int(event_id[4:]), json.loads(data[6:])["name"]))
    return events


async def take_events(stream: AsyncGenerator[bytes], count: int) -> list[tuple[int, str]]:
    """Return the events of a stream until there are `count`."""
    received = b""
    while len(events := parse_events(received)) < count:
        received += await anext(stream)
    assert received.endswith(b"\n\n")
    return events
