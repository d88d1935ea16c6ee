"""Documents that only grow, and the unchanging cuts that are served from them.

A byte once written never changes. A document keeps its bytes in sealed blocks and one open block that still
grows; all cuts share them, and know how much of the open one is theirs. So a cut costs next to nothing,
however long the document is, and a hundred answers in flight cost one document.

Beside its text a document keeps the same text gzipped, as one deflate stream that is flushed to a byte
boundary after every addition (zlib's Z_SYNC_FLUSH), and a running hash of the text. So a gzipped answer
and an ETag cost nothing at request time. Text and hash are equal wherever the content is equal; the
gzipped bytes are not, as they depend on where the additions ended.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from struct import pack

# One block is handed to the server at a time and copied into a slow reader's buffer, so it bounds what such
# a reader costs. Larger ones are faster: each piece of an answer costs Hypercorn about 15 µs.
BLOCK = 512 * 1024

# RFC 1952, section 2.3: magic, deflate, no flags, no time, no extra flags, unknown system.
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True)
class Text:
    """An unchanging run of `size` bytes: sealed blocks, the begin of an open one, and an `suffix`."""

    blocks: Sequence[bytes]  # these two are shared, and may have grown since
    open_block: bytearray
    suffix: bytes
    size: int

    @cached_property
    def tail(self) -> bytes:
        """What comes behind the sealed blocks: a copy, made for the first who wants it."""
        ours = (self.size - len(self.suffix)) % BLOCK
        return b"".join((memoryview(self.open_block)[:ours], self.suffix))

    def slices(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `begin` up to `end`, about a block at a time."""
        sealed = (self.size - len(self.suffix)) // BLOCK
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
        self._open_block = bytearray(data)

    def extend(self, data: bytes) -> None:
        """Add `data` at the end; no text cut before changes."""
        self._open_block += data
        if len(self._open_block) >= BLOCK:
            full = bytes(self._open_block)
            whole = len(full) - len(full) % BLOCK
            self._blocks += [full[start : start + BLOCK] for start in range(0, whole, BLOCK)]
            self._open_block = bytearray(full[whole:])  # cuts keep the old one

    def snapshot(self, suffix: bytes) -> Text:
        """Return the text so far, closed with `suffix`."""
        size = len(self._blocks) * BLOCK + len(self._open_block) + len(suffix)
        return Text(self._blocks, self._open_block, suffix, size)


@dataclass(frozen=True, slots=True)
class Document:
    """An unchanging text, the same text gzipped, and a hash of it in hexadecimal."""

    plain: Text
    gzip: Text
    etag: str


class GrowingDocument:
    """A text that grows, its gzip stream and its hash. `suffix` (64 KiB at most) closes every cut."""

    def __init__(self, suffix: bytes = b"") -> None:
        self._suffix = suffix
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

    def snapshot(self) -> Document:
        """Return the document as it stands."""
        plain = self._plain.snapshot(self._suffix)
        # RFC 1951, 3.2.4: one last, stored block, its length and that length's complement.
        last_block = pack("<BHH", 1, len(self._suffix), len(self._suffix) ^ 0xFFFF) + self._suffix
        # RFC 1952, 2.3.1: the checksum and the size of the whole text, modulo 2**32.
        trailer = pack("<LL", zlib.crc32(self._suffix, self._crc), plain.size % 2**32)
        return Document(plain, self._gzip.snapshot(last_block + trailer), self._hash.hexdigest())
