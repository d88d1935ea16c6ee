"""HTTP/2 as bytes, for clients that break its rules (RFC 9113, sections 3.4 and 4.1)."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes, wrong: int = 0) -> bytes:
    """Return a frame, whose length may be `wrong` by some bytes."""
    return struct.pack(">L", len(payload) + wrong)[1:] + struct.pack(">BBL", kind, flags, stream) + payload


SETTINGS = frame(4, 0, 0, b"")

# :method GET, :scheme http, :path /, :authority t, as HPACK has them in its tables.
GET = b"\x82\x86\x84\x41\x01t"

# The same, but its :path is not ASCII.
BAD_GET = b"\x82\x86\x44\x02/\xff\x41\x01t"
