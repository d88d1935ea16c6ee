"""Representations of the shared list and of fixed documents: type, encoding, preconditions and ranges.

RFC 9110 gives the order: negotiation (section 12), then If-Match and If-None-Match, then Range (13.2.2).
The gzipped bytes differ between processes, so their ETag is weak (8.8.1), and a Range selects plain bytes.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import NamedTuple, Self

from quart import Request, Response
from werkzeug.datastructures import ETags, Headers, Range
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import parse_etags, quote_etag

from wizards.core.document import Document
from wizards.core.rendering import Snapshot
from wizards.web.headers import FIXED_HEADERS, LIST_HEADERS

HTML_UTF8, JSON, EVENTS = "text/html; charset=utf-8", "application/json", "text/event-stream"
GZIPPED = b"content-encoding", b"gzip"

Field = tuple[bytes, bytes]


class Preferences(NamedTuple):
    """The part of a request that decides how the list is represented."""

    json: bool
    gzip: bool
    if_match: str
    if_none_match: str
    range: Range | None  # a single range of bytes whose If-Range, if any, is still to be compared
    if_range: str

    @classmethod
    def parse(cls, request: Request) -> Self:
        """Return the preferences in the headers of `request`."""
        header = request.headers.get
        wanted = request.range if request.method == "GET" else None
        # Other units must be ignored, several ranges may be (RFC 9110, 14.2).
        is_single = wanted is not None and wanted.units == "bytes" and len(wanted.ranges) == 1
        return cls(
            json=preferred_type(request) == JSON,
            gzip=request.accept_encodings.best_match(("gzip", "identity")) == "gzip",
            if_match=header("If-Match", ""),
            if_none_match=header("If-None-Match", ""),
            range=wanted if is_single else None,
            if_range=header("If-Range", ""),
        )


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


def preferred_type(request: Request) -> str | None:
    """Return the preferred type of the list: "text/html", JSON or EVENTS.

    The default is HTML, as the Flask app sends it.
    """
    return request.accept_mimetypes.best_match(("text/html", JSON, EVENTS))


def render(snapshot: Snapshot, preferences: Preferences, *, is_append: bool) -> Answer:
    """Return the list (200), the requested part (206), or only that it is unchanged (304) or another (412).

    An append has been carried out, so preconditions do not apply to its answer.
    Raises RequestedRangeNotSatisfiable if a read asks for a part behind the end.
    """
    document = snapshot.json if preferences.json else snapshot.html
    if not is_append:
        conditions = parse_etags(preferences.if_match), parse_etags(preferences.if_none_match)
        status = _evaluate_preconditions(document.etag, *conditions)
        if status == 412:
            return _whole(document, preferences, status)
        if status == 304:
            # A cache would take metadata of the body for those of its copy (RFC 9110, 15.4.5).
            return Answer(304, (_etag(document, weak=preferences.gzip), *LIST_HEADERS), ())
    part = _requested_range(document, preferences)
    if part:
        where = f"bytes {part.start}-{part.stop - 1}/{document.plain.size}".encode()
        headers = (
            _length(len(part)),
            _etag(document),
            (b"accept-ranges", b"bytes"),
            (b"content-range", where),
        )
        return _answer(206, preferences, headers, document.plain.slices(part.start, part.stop))
    if part is not None and not is_append:
        raise RequestedRangeNotSatisfiable(document.plain.size)
    return _whole(document, preferences, 200)


def _evaluate_preconditions(etag: str, if_match: ETags, if_none_match: ETags) -> int:
    """Return the status of a read with these preconditions (RFC 9110, 13.2.2): 200, 304 or 412."""
    if if_match and etag not in if_match:
        return 412
    return 304 if if_none_match.contains_weak(etag) else 200


def _requested_range(document: Document, preferences: Preferences) -> range | None:
    # If-Range wants a strong ETag (RFC 9110, 13.1.5): a weak one may belong to gzipped bytes.
    etag = quote_etag(document.etag)
    if preferences.range is None or (preferences.if_range or etag) != etag:
        return None
    begin, end = preferences.range.ranges[0]
    return range(document.plain.size)[begin:end]


def _whole(document: Document, preferences: Preferences, status: int) -> Answer:
    text, encoding = (document.gzip, [GZIPPED]) if preferences.gzip else (document.plain, [])
    headers = (_length(text.size), _etag(document, weak=preferences.gzip), *encoding)
    return _answer(status, preferences, headers, text.slices(0, text.size))


def _answer(
    status: int, preferences: Preferences, headers: Iterable[Field], chunks: Iterable[bytes]
) -> Answer:
    content_type = JSON if preferences.json else HTML_UTF8
    fields = ((b"content-type", content_type.encode()), *headers, *LIST_HEADERS)
    return Answer(status, fields, tuple(chunks))


def _length(size: int) -> Field:
    return b"content-length", b"%d" % size


def _etag(document: Document, *, weak: bool = False) -> Field:
    return b"etag", quote_etag(document.etag, weak).encode()


async def _iterate(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
