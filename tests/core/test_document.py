"""Append-only documents, and the rendered list that consists of them."""

import gzip
import json
import sys
from hashlib import blake2b
from html.parser import HTMLParser
from itertools import accumulate
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from wizards.core import document
from wizards.core.document import ByteSnapshot, Document, GrowingDocument
from wizards.core.rendering import RenderedList

SMALL_BLOCK = 16
pieces = st.lists(st.binary(max_size=50), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def read_whole(text: ByteSnapshot) -> bytes:
    return b"".join(text.slices(0, text.size))


@given(pieces, st.binary(max_size=40))
def test_cut_holds_what_was_added_before(parts: list[bytes], ending: bytes) -> None:
    """A cut is everything added before it plus the ending, plain and gzipped, and never changes."""
    with patch.object(document, "BLOCK_SIZE", SMALL_BLOCK):
        growing = GrowingDocument(ending)
        cuts = [growing.snapshot()]
        for part in parts:
            growing.extend(part)
            cuts.append(growing.snapshot())
        for cut, content in zip(cuts, accumulate(parts, initial=b""), strict=True):
            assert read_whole(cut.plain) == content + ending
            assert cut.plain.size == len(content + ending)
            assert gzip.decompress(read_whole(cut.gzip)) == content + ending
            assert cut.gzip.size == len(read_whole(cut.gzip))
            assert cut.etag == blake2b(content, digest_size=16).hexdigest()


@given(pieces, st.integers(0, 1100), st.integers(0, 1100))
def test_slices_hold_the_requested_bytes(parts: list[bytes], begin: int, end: int) -> None:
    """Slices join to exactly the requested bytes, each about a block long."""
    with patch.object(document, "BLOCK_SIZE", SMALL_BLOCK):
        growing = GrowingDocument(b"ending")
        for part in parts:
            growing.extend(part)
        text = growing.snapshot().plain
        slices = list(text.slices(begin, min(end, text.size)))
        assert b"".join(slices) == read_whole(text)[begin:end]
        assert all(len(piece) <= SMALL_BLOCK + len(b"ending") for piece in slices)


def test_cuts_share_their_bytes() -> None:
    """A hundred cuts of a long document take little more memory than one."""
    growing = GrowingDocument()
    growing.extend(b"x" * 40 * document.BLOCK_SIZE)
    cuts: list[Document] = []
    for _ in range(100):
        growing.extend(b"y")
        cuts.append(growing.snapshot())
    held = {
        id(block): sys.getsizeof(block) for cut in cuts for block in [*cut.plain.blocks, cut.plain.open_block]
    }
    assert sum(held.values()) < 42 * document.BLOCK_SIZE


@given(st.lists(st.lists(names, max_size=5), max_size=8))
def test_text_does_not_depend_on_batches(batches: list[list[str]]) -> None:
    """The same names give the same text and the same ETags in any division into batches."""
    here, there = RenderedList(), RenderedList()
    for batch in batches:
        here.extend(batch)
    there.extend([name for batch in batches for name in batch])
    assert here.snapshot.length == there.snapshot.length
    for one, other in (
        (here.snapshot.html, there.snapshot.html),
        (here.snapshot.json, there.snapshot.json),
    ):
        assert read_whole(one.plain) == read_whole(other.plain)
        assert one.etag == other.etag


class Paragraphs(HTMLParser):
    """Collects the text of a page's paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert (tag, attrs) == ("p", [])
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data


@given(st.lists(names, max_size=10))
def test_page_shows_names_as_text(all_names: list[str]) -> None:
    """The page shows any name as text, and the JSON returns it unchanged."""
    page = RenderedList()
    page.extend(all_names)
    parser = Paragraphs()
    parser.feed(read_whole(page.snapshot.html.plain).decode())
    parser.close()
    assert parser.texts == [f"Hello {name} is a wizard of system design with Flask!" for name in all_names]
    assert json.loads(read_whole(page.snapshot.json.plain)) == [{"name": name} for name in all_names]
