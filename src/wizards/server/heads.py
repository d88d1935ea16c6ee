"""Heads of HTTP/1.1 messages that h11 need not parse or write again.

Clients repeat their header blocks (all bytes after the request line), applications the lines of their heads.
Both are kept in bounded numbers, and only after h11 itself has found them valid.
"""

import re
from functools import lru_cache
from time import time
from typing import Any

import h11
from hypercorn.config import Config

Headers = list[tuple[bytes, bytes]]

# As h11 has it (RFC 9112, section 3), for the two methods whose requests have no body.
REQUEST_LINE = re.compile(rb"(GET|HEAD) ([!->@-~]+)(?:\?([!-~]*))? HTTP/1\.1\r\n")

# Headers of a request that concern more than this request, or announce a body.
UNLEARNED = frozenset({b"content-length", b"transfer-encoding", b"upgrade", b"expect"})

# What clients can make each server keep: at the worst 4 MiB.
MAX_BLOCKS, MAX_BLOCK_LENGTH, MAX_HEADERS = 256, 4096, 64

# Headers of a response that h11 has to see: they say where it ends, or whether the connection does.
FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"host"})
NO_BODY = frozenset({204, 304})

# What applications can make a process keep: at the most 1 MiB.
MAX_LINES, MAX_LINE_LENGTH = 1024, 512


def learn(blocks: dict[bytes, Headers], block: bytes, request: h11.Request, *, as_sent: bool) -> None:
    """Keep the headers that h11 found in a block, unless they are long or concern more than the request."""
    headers = request.headers
    is_simple = all(
        value.lower() == b"keep-alive" if name == b"connection" else name not in UNLEARNED
        for name, value in headers
    )
    if is_simple and len(block) <= MAX_BLOCK_LENGTH and len(headers) <= MAX_HEADERS:
        if len(blocks) == MAX_BLOCKS:
            del blocks[next(iter(blocks))]  # the oldest
        blocks[block] = headers.raw_items() if as_sent else list(headers)


def write_head(response: Any, config: Config) -> tuple[bytes, int]:
    """Return the head of a response as h11 writes it, and the length of its body.

    Raises what h11 raises if it is invalid, and ValueError if h11 has to write it.
    """
    status, length, lines = response["status"], None, []
    for name, value in response["headers"]:
        lines.append(_line(name, value))
        if name == b"content-length":
            if length is not None:
                raise ValueError(length)
            length = int(value)
    if status in NO_BODY:
        length = 0
    if length is None or not 200 <= status < 1000 or response.get("trailers", False):
        raise ValueError(status)
    return b"".join((b"HTTP/1.1 %d \r\n" % status, *lines, _end(config, int(time())))), length


@lru_cache(MAX_LINES)
def _line(name: bytes, value: bytes) -> bytes:
    is_length = name == b"content-length"
    name, value = bytes(name).strip(), bytes(value).strip()
    if (name.lower() in FRAMING and not is_length) or len(name) + len(value) > MAX_LINE_LENGTH:
        raise ValueError(name)  # which keeps it out of the cache
    h11.Response(status_code=200, headers=[(name, value)])  # raises if they are invalid
    return b"%b: %b\r\n" % (name, value)


@lru_cache(16)
def _end(config: Config, second: int) -> bytes:  # noqa: ARG001  # for how long a date is right
    return b"".join(_line(name, value) for name, value in config.response_headers("h11")) + b"\r\n"
