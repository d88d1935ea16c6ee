"""The rendered list: each name is rendered once, as HTML, as JSON and, once it is followed, as an event."""

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape

from wizards.core.document import ByteSnapshot, Document, GrowingBytes, GrowingDocument

# Begins each name in the list as JSON, and nothing else: a quote inside a name has a backslash before it.
NAME_KEY = b'{"name":'

# Bytes of JSON that become events in one step (3 ms): more than the longest name has, 120 kB.
RENDER_CHUNK_SIZE = 256 * 1024

# Bytes that a follower is sent at a time, and so about a third of what one that does not read costs.
FOLLOWER_CHUNK_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The list of the first `length` names."""

    length: int
    html: Document
    json: Document


class RenderedList:
    """The rendered list, which starts empty and only grows."""

    def __init__(self) -> None:
        self._html = GrowingDocument()
        self._json = GrowingDocument(suffix=b"]\n")
        self._json.extend(b"[")
        self.snapshot = Snapshot(0, self._html.snapshot(), self._json.snapshot())
        self.events = RenderedEvents()

    def extend(self, names: Sequence[str]) -> None:
        """Append `names` and replace `snapshot`; earlier snapshots stay as they are."""
        if not names:
            return
        self._html.extend("".join(map(_paragraph, names)).encode())
        # As Flask's jsonify writes it outside debug mode: ASCII only, no spaces.
        items = json.dumps([{"name": name} for name in names], separators=(",", ":"))
        separator = "," if self.snapshot.length else ""
        self._json.extend((separator + items[1:-1]).encode())
        self.snapshot = Snapshot(
            self.snapshot.length + len(names), self._html.snapshot(), self._json.snapshot()
        )


class RenderedEvents:
    """The list as server-sent events (WHATWG HTML, 9.2): each name is one, its position is the event's id.

    They are made from the list as JSON, and take no memory as long as the list has never been followed.
    """

    def __init__(self) -> None:
        self._events = GrowingBytes()
        self._text: ByteSnapshot = self._events.snapshot(b"")
        self._ends = array("Q", [0])  # where the event of each position ends
        self._taken = 1  # bytes of the JSON; the first is "["

    def extend(self, names: ByteSnapshot) -> bool:
        """Render the next of `names`, the list as JSON; return False if there were none."""
        end = names.size - len(names.suffix)
        chunk = b"".join(names.slices(self._taken, min(end, self._taken + RENDER_CHUNK_SIZE)))
        if self._taken + len(chunk) < end:
            chunk = chunk[: chunk.rindex(NAME_KEY)]
        events = []
        for item in chunk.split(NAME_KEY)[1:]:
            events.append(b"id: %d\ndata: %b%b\n\n" % (len(self._ends), NAME_KEY, item.rstrip(b",")))
            self._ends.append(self._ends[-1] + len(events[-1]))
        if events:
            self._taken += len(chunk)
            self._events.extend(b"".join(events))
            self._text = self._events.snapshot(b"")
        return bool(events)

    def end(self, position: int) -> int:
        """Return the number of bytes up to the event of `position` and with it."""
        return self._ends[position]

    def piece(self, begin: int) -> bytes:
        """Return bytes from `begin` on, at most FOLLOWER_CHUNK_SIZE; none if there are no more."""
        return next(self._text.slices(begin, min(begin + FOLLOWER_CHUNK_SIZE, self._text.size)), b"")


def _paragraph(name: str) -> str:
    return f"<p>Hello {escape(name)} is a wizard of system design with Flask!</p>"
