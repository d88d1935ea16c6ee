"""The rendered list: each name is rendered once, as HTML and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape

from wizards.core.document import Document, GrowingDocument


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

    def extend(self, names: Sequence[str]) -> None:
        """Append `names` and replace `snapshot`; earlier snapshots stay as they are."""
        if not names:
            return
        self._html.extend("".join(map(_paragraph, names)).encode())
        # As Flask's jsonify writes it outside debug mode: ASCII only, no spaces.
        array = json.dumps([{"name": name} for name in names], separators=(",", ":"))
        separator = "," if self.snapshot.length else ""
        self._json.extend((separator + array[1:-1]).encode())
        self.snapshot = Snapshot(
            self.snapshot.length + len(names), self._html.snapshot(), self._json.snapshot()
        )


def _paragraph(name: str) -> str:
    return f"<p>Hello {escape(name)} is a wizard of system design with Flask!</p>"
