"""Representations of the shared list and of fixed documents: type, encoding, preconditions and ranges.

RFC 9110 gives the order: negotiation (section 12), then If-Match and If-None-Match, then Range (13.2.2).
The gzipped bytes differ between processes, so their ETag is weak (8.8.1), and a Range selects plain bytes.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b

from quart import Request, Response
from werkzeug.datastructures import ETags, Headers
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import quote_etag

from wizards.core.document import Document
from wizards.core.rendering import Snapshot
from wizards.web.headers import FIXED_HEADERS, LIST_HEADERS
from wizards.web.list_request import HTML_UTF8, JSON, ListRequest

GZIPPED = b"content-encoding", b"gzip"

Field = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status, lower-case header fields, and the body as blocks of the list itself."""

    status: int
    headers: tuple[Field, ...]
    chunks: tuple[bytes, ...]

    def to_response(self) -> Response:
        """Return the answer as a Quart response."""
        headers = Headers([(name.decode(), value.decode()) for name, value in self.headers])
        response = Response(_iterate(self.chunks), self.status)
        response.headers = headers  # without Quart's default for the type
        return response


class FixedDocument:
    """A document that never changes, and its answers to reads."""

    def __init__(self, text: str, content_type: str) -> None:
        body = text.encode()
        self._etag = blake2b(body, digest_size=16).hexdigest()
        validator = b"etag", quote_etag(self._etag).encode()
        kind = b"content-type", content_type.encode()
        self._whole = Answer(200, (kind, _length(len(body)), validator, *FIXED_HEADERS), (body,))
        self._not_modified = Answer(304, (validator, *FIXED_HEADERS), ())

    def answer(self, request: Request) -> Answer:
        """Return the document (200), or only that it is unchanged (304) or another (412)."""
        status = _evaluate_preconditions(self._etag, request.if_match, request.if_none_match)
        return self._not_modified if status == 304 else replace(self._whole, status=status)


def render(snapshot: Snapshot, asked: ListRequest, *, is_append: bool) -> Answer:
    """Return the list (200), the requested part (206), or only that it is unchanged (304) or another (412).

    An append has been carried out, so preconditions do not apply to its answer.
    Raises RequestedRangeNotSatisfiable if a read asks for a part behind the end.
    """
    document = snapshot.json if asked.json else snapshot.html
    if not is_append:
        status = _evaluate_preconditions(document.etag, asked.if_match, asked.if_none_match)
        if status == 412:
            return _whole(document, asked, status)
        if status == 304:
            # A cache would take metadata of the body for those of its copy (RFC 9110, 15.4.5).
            return Answer(304, (_etag(document, weak=asked.gzip), *LIST_HEADERS), ())
    part = _requested_range(document, asked)
    if part:
        where = f"bytes {part.start}-{part.stop - 1}/{document.plain.size}".encode()
        headers = (
            _length(len(part)),
            _etag(document),
            (b"accept-ranges", b"bytes"),
            (b"content-range", where),
        )
        return _answer(206, asked, headers, document.plain.slices(part.start, part.stop))
    if part is not None and not is_append:
        raise RequestedRangeNotSatisfiable(document.plain.size)
    return _whole(document, asked, 200)


def _evaluate_preconditions(etag: str, if_match: ETags, if_none_match: ETags) -> int:
    """Return the status of a read with these preconditions (RFC 9110, 13.2.2): 200, 304 or 412."""
    if if_match and etag not in if_match:
        return 412
    return 304 if if_none_match.contains_weak(etag) else 200


def _requested_range(document: Document, asked: ListRequest) -> range | None:
    # If-Range wants a strong ETag (RFC 9110, 13.1.5): a weak one may belong to gzipped bytes.
    etag = quote_etag(document.etag)
    if asked.range is None or (asked.if_range or etag) != etag:
        return None
    begin, end = asked.range.ranges[0]
    return range(document.plain.size)[begin:end]


def _whole(document: Document, asked: ListRequest, status: int) -> Answer:
    text, encoding = (document.gzip, [GZIPPED]) if asked.gzip else (document.plain, [])
    headers = (_length(text.size), _etag(document, weak=asked.gzip), *encoding)
    return _answer(status, asked, headers, text.slices(0, text.size))


def _answer(status: int, asked: ListRequest, headers: Iterable[Field], chunks: Iterable[bytes]) -> Answer:
    content_type = JSON if asked.json else HTML_UTF8
    fields = ((b"content-type", content_type.encode()), *headers, *LIST_HEADERS)
    return Answer(status, fields, tuple(chunks))


def _length(size: int) -> Field:
    return b"content-length", b"%d" % size


def _etag(document: Document, *, weak: bool = False) -> Field:
    return b"etag", quote_etag(document.etag, weak).encode()


async def _iterate(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
