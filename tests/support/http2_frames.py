"""HTTP/2 frames as bytes, for clients that break the protocol (RFC 9113, sections 3.4 and 4.1)."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes, excess: int = 0) -> bytes:
    """Return a frame whose length field is `excess` bytes more than its payload."""
    return struct.pack(">L", len(payload) + excess)[1:] + struct.pack(">BBL", kind, flags, stream) + payload


SETTINGS = frame(4, 0, 0, b"")

# An HPACK block: :method GET, :scheme http, :path /, :authority t.
GET = b"\x82\x86\x84\x41\x01t"

# The same with a :path that is not ASCII.
BAD_GET = b"\x82\x86\x44\x02/\xff\x41\x01t"
