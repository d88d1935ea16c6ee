"""Heads of HTTP/1.1 messages that h11 need not parse or check again.

Clients repeat the header blocks of their requests (all bytes after the request line), and applications the
heads of their responses. Some of them are kept, after h11 has found them valid.
"""

import re
from functools import lru_cache
from http import HTTPStatus
from time import time
from typing import Any

import h11
from hypercorn.config import Config
from hypercorn.utils import build_and_validate_headers

Headers = list[tuple[bytes, bytes]]

# As h11 has it (RFC 9112, section 3), for the two methods whose requests have no body.
REQUEST_LINE = re.compile(rb"(GET|HEAD) ([!->@-~]+)(?:\?([!-~]*))? HTTP/1\.1\r\n")

# Headers of a request that concern more than this request, or announce a body.
UNLEARNED = frozenset({b"content-length", b"transfer-encoding", b"upgrade", b"expect"})

# What clients can make each server keep: at the worst 4 MiB.
MAX_BLOCKS, MAX_BLOCK_LENGTH, MAX_HEADERS = 256, 4096, 64

# In upper case, as Flask's servers send them. Hypercorn sends none, and some clients (h2load) then take every
# response for a failure.
REASONS = {status.value: status.phrase.upper().encode() for status in HTTPStatus}

# Headers of a response that h11 has to see: they say how it ends, or that the connection does.
FRAMING = frozenset({b"transfer-encoding", b"connection", b"host"})
NO_BODY = frozenset({204, 304})

# What an application can make a process keep: at the worst 4 MiB.
MAX_HEADS, MAX_HEAD_LENGTH = 256, 4096


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

    Raises what h11 raises if it is invalid, and another exception if h11 has to write it.
    """
    headers = response["headers"]
    if not isinstance(headers, list) or response.get("trailers", False):  # an iterator would be used up
        raise ValueError(headers)
    return _write(response["status"], tuple(headers), config, int(time()))


@lru_cache(MAX_HEADS)
def _write(status: int, headers: Any, config: Config, second: int) -> tuple[bytes, int]:  # noqa: ARG001
    # Within one second the date is the same.
    added = config.response_headers("h11")
    response = h11.Response(status_code=status, headers=[*build_and_validate_headers(headers), *added])
    lengths = [int(value) for name, value in response.headers if name == b"content-length"]
    lines = b"".join(b"%b: %b\r\n" % header for header in response.headers.raw_items())
    is_framed = not FRAMING.isdisjoint(name for name, _ in response.headers)
    if is_framed or len(lines) > MAX_HEAD_LENGTH:
        raise ValueError(lines)
    head = b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, REASONS.get(status, b""), lines)
    return head, 0 if status in NO_BODY else lengths[0]
