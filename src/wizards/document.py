"""Documents that only grow, and the unchanging cuts that are served from them.

A byte once written never changes. A document keeps its bytes in sealed blocks that all cuts share, and
one short open tail that each cut has to itself: a cut costs its tail, however long the document is, and
a hundred answers in flight cost one document.

Beside its text a document keeps the same text gzipped, as one deflate stream that is flushed to a byte
boundary after every addition (zlib's Z_SYNC_FLUSH), and a running hash of the text. So a gzipped answer
and an ETag cost nothing at request time. Text and hash are equal wherever the content is equal; the
gzipped bytes are not, as they depend on where the additions ended.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack

# One block is handed to the server at a time and copied into a slow reader's buffer, so it bounds
# what such a reader costs; fewer, larger blocks are faster.
BLOCK = 256 * 1024

# RFC 1952, section 2.3: magic, deflate, no flags, no time, no extra flags, unknown system.
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True, slots=True)
class Text:
    """An unchanging run of `size` bytes: whole shared blocks, then a tail."""

    blocks: Sequence[bytes]  # may have grown since; the first (size - len(tail)) / BLOCK are ours
    tail: bytes
    size: int

    def slices(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `begin` up to `end`, about a block at a time."""
        sealed = (self.size - len(self.tail)) // BLOCK
        for index in range(min(begin // BLOCK, sealed), sealed + 1):
            start = index * BLOCK
            if start >= end:
                return
            piece = self.blocks[index] if index < sealed else self.tail
            yield piece[max(0, begin - start) : end - start]


class GrowingText:
    """Bytes that are only ever added to."""

    def __init__(self, data: bytes = b"") -> None:
        self._blocks: list[bytes] = []
        self._tail = data

    def extend(self, data: bytes) -> None:
        """Add `data` at the end; no text cut before changes."""
        tail = self._tail + data
        whole = len(tail) - len(tail) % BLOCK
        self._blocks += [tail[start : start + BLOCK] for start in range(0, whole, BLOCK)]
        self._tail = tail[whole:]

    def cut(self, ending: bytes) -> Text:
        """Return the text so far, closed with `ending`."""
        tail = self._tail + ending
        return Text(self._blocks, tail, len(self._blocks) * BLOCK + len(tail))


@dataclass(frozen=True, slots=True)
class Document:
    """An unchanging text, the same text gzipped, and a hash of it in hexadecimal."""

    plain: Text
    gzip: Text
    etag: str


class GrowingDocument:
    """A text that grows, its gzip stream and its hash. `ending` (64 KiB at most) closes every cut."""

    def __init__(self, ending: bytes = b"") -> None:
        self._ending = ending
        self._plain = GrowingText()
        self._gzip = GrowingText(GZIP_HEADER)
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._crc = 0
        self._hash = blake2b(digest_size=16)

    def extend(self, data: bytes) -> None:
        """Add `data` at the end of the text."""
        self._plain.extend(data)
        self._gzip.extend(self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH))
        self._crc = zlib.crc32(data, self._crc)
        self._hash.update(data)

    def cut(self) -> Document:
        """Return the document as it stands."""
        plain = self._plain.cut(self._ending)
        # RFC 1951, 3.2.4: one last, stored block, its length and that length's complement.
        last_block = pack("<BHH", 1, len(self._ending), len(self._ending) ^ 0xFFFF) + self._ending
        # RFC 1952, 2.3.1: the checksum and the size of the whole text, modulo 2**32.
        trailer = pack("<LL", zlib.crc32(self._ending, self._crc), plain.size % 2**32)
        return Document(plain, self._gzip.cut(last_block + trailer), self._hash.hexdigest())
