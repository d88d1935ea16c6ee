"""Documents that only grow, and immutable snapshots of them.

A written byte never changes. A document keeps its bytes in sealed blocks and in one open block that still
grows. All snapshots share these blocks, and each knows how much of the open block belongs to it. So the cost
of a snapshot does not depend on the document's length, and a hundred responses in flight cost one document.

A document also keeps its text gzipped, as one deflate stream that is flushed to a byte boundary after each
addition (zlib's Z_SYNC_FLUSH), and a running hash of the text. So a gzipped response and an ETag cost nothing
at request time. Equal content gives equal text and an equal hash; the gzipped bytes differ, because they
depend on the boundaries of the additions.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from struct import pack

# The server gets one block at a time and copies it into a slow reader's buffer, so the size of a block bounds
# the memory of such a reader. Larger blocks are faster: each message costs Hypercorn about 15 µs.
BLOCK_SIZE = 512 * 1024

# RFC 1952, section 2.3: magic, deflate, no flags, no time, no extra flags, unknown system.
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"


@dataclass(frozen=True)
class ByteSnapshot:
    """An immutable run of `size` bytes: sealed blocks, the start of an open block, and a `suffix`."""

    blocks: Sequence[bytes]  # shared with the document, as is the open block: both may have grown since
    open_block: bytearray
    suffix: bytes
    size: int

    @cached_property
    def tail(self) -> bytes:
        """The bytes after the sealed blocks, copied on first use."""
        ours = (self.size - len(self.suffix)) % BLOCK_SIZE
        return b"".join((memoryview(self.open_block)[:ours], self.suffix))

    def slices(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `begin` up to `end`, about a block at a time."""
        sealed = (self.size - len(self.suffix)) // BLOCK_SIZE
        for index in range(min(begin // BLOCK_SIZE, sealed), sealed + 1):
            start = index * BLOCK_SIZE
            if start >= end:
                return
            piece = self.blocks[index] if index < sealed else self.tail
            yield piece[max(0, begin - start) : end - start]


class GrowingBytes:
    """Bytes that only grow."""

    def __init__(self, data: bytes = b"") -> None:
        self._blocks: list[bytes] = []
        self._open_block = bytearray(data)

    def extend(self, data: bytes) -> None:
        """Append `data`; earlier snapshots stay as they are."""
        self._open_block += data
        if len(self._open_block) >= BLOCK_SIZE:
            full = bytes(self._open_block)
            whole = len(full) - len(full) % BLOCK_SIZE
            self._blocks += [full[start : start + BLOCK_SIZE] for start in range(0, whole, BLOCK_SIZE)]
            self._open_block = bytearray(full[whole:])  # snapshots keep the old one

    def snapshot(self, suffix: bytes) -> ByteSnapshot:
        """Return the text so far, followed by `suffix`."""
        size = len(self._blocks) * BLOCK_SIZE + len(self._open_block) + len(suffix)
        return ByteSnapshot(self._blocks, self._open_block, suffix, size)


@dataclass(frozen=True, slots=True)
class Document:
    """An immutable text, the same text gzipped, and its hash in hexadecimal digits."""

    plain: ByteSnapshot
    gzip: ByteSnapshot
    etag: str


class GrowingDocument:
    """A growing text, its gzip stream and its hash; a `suffix` of at most 64 KiB ends each snapshot."""

    def __init__(self, suffix: bytes = b"") -> None:
        self._suffix = suffix
        self._plain = GrowingBytes()
        self._gzip = GrowingBytes(GZIP_HEADER)
        self._deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        self._crc = 0
        self._hash = blake2b(digest_size=16)

    def extend(self, data: bytes) -> None:
        """Append `data` to the text."""
        self._plain.extend(data)
        self._gzip.extend(self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH))
        self._crc = zlib.crc32(data, self._crc)
        self._hash.update(data)

    def snapshot(self) -> Document:
        """Return the document as it is now."""
        plain = self._plain.snapshot(self._suffix)
        # RFC 1951, 3.2.4: a last, stored block, its length and the complement of its length.
        last_block = pack("<BHH", 1, len(self._suffix), len(self._suffix) ^ 0xFFFF) + self._suffix
        # RFC 1952, 2.3.1: the checksum and the size of the whole text, modulo 2**32.
        trailer = pack("<LL", zlib.crc32(self._suffix, self._crc), plain.size % 2**32)
        return Document(plain, self._gzip.snapshot(last_block + trailer), self._hash.hexdigest())
