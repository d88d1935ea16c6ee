"""The shared list as an HTTP answer: which representation, and how much of it.

RFC 9110 sets the order: negotiation (section 12), then If-Match and If-None-Match, then Range (13.2.2). The
gzipped bytes differ between processes, so their ETag is weak (8.8.1) and a Range is one of the plain bytes.
"""

from collections.abc import AsyncIterator
from typing import cast

from hypercorn.typing import HTTPScope
from quart import Response, request
from werkzeug.datastructures import ContentRange
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.http import quote_etag

from wizards.core.document import Document, Text
from wizards.core.rendering import Snapshot
from wizards.core.roster import RosterError

PATH = "/wizards"
HTML, JSON = "text/html", "application/json"

# A key of the scope, where the front puts what the roster has said to this very request.
OUTCOME = "wizards.outcome"

Outcome = Snapshot | RosterError | None


def with_outcome(scope: HTTPScope, outcome: Outcome) -> HTTPScope:
    """Return `scope` with what the roster has said to this very request, so that nobody asks it again."""
    return cast(HTTPScope, {**scope, OUTCOME: outcome})


def known_snapshot() -> Snapshot | None:
    """Return the list with which the roster has answered this request, if it was asked before Quart was.

    Raises the RosterError with which it has refused.
    """
    outcome = cast(Outcome, request.scope.get(OUTCOME))
    if isinstance(outcome, RosterError):
        raise outcome
    return outcome


def prefers_json() -> bool:
    """Whether the request asks for the shared list and would rather have it as JSON."""
    return request.path == PATH and request.accept_mimetypes.best_match((HTML, JSON)) == JSON


def to_read(snapshot: Snapshot) -> Response:
    """Answer a read: the list, the part of it that was asked for (206), or that it is unchanged (304).

    Where If-Match names another list, the answer is this one and says so (412). Raises
    RequestedRangeNotSatisfiable where the part begins behind the end.
    """
    document = _negotiated(snapshot)
    if request.if_match and document.etag not in request.if_match:
        return _answer(document, status=412)
    if request.if_none_match.contains_weak(document.etag):
        return _unchanged(document)
    part = _part(document)
    if part is not None and not part:
        raise RequestedRangeNotSatisfiable(document.plain.size)
    return _answer(document, part)


def to_append(snapshot: Snapshot) -> Response:
    """Answer an append: the list or the part that was asked for. It was carried out, so never with less."""
    document = _negotiated(snapshot)
    return _answer(document, _part(document))


def _negotiated(snapshot: Snapshot) -> Document:
    return snapshot.json if prefers_json() else snapshot.html


def _part(document: Document) -> range | None:
    # Other units must, many ranges at once may be ignored: RFC 9110, 14.2.
    wanted = request.range if request.method == "GET" else None
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) > 1:
        return None
    # Only a strong ETag will do (13.1.5): a weak one may be of gzipped bytes, and nothing here has a date.
    etag = quote_etag(document.etag)
    if request.headers.get("If-Range", etag) != etag:
        return None
    begin, end = wanted.ranges[0]
    return range(document.plain.size)[begin:end]


def _answer(document: Document, part: range | None = None, status: int = 200) -> Response:
    zipped = part is None and request.accept_encodings.best_match(("gzip", "identity")) == "gzip"
    text = document.gzip if zipped else document.plain
    sent = part or range(text.size)
    response = Response(_slices(text, sent), status, mimetype=JSON if prefers_json() else HTML)
    response.content_length = len(sent)
    response.set_etag(document.etag, weak=zipped)
    if zipped:
        response.content_encoding = "gzip"
    if part:
        response.status_code = 206
        response.accept_ranges = "bytes"
        response.content_range = ContentRange("bytes", part.start, part.stop, text.size)
    return response


def _unchanged(document: Document) -> Response:
    response = _answer(document, status=304)
    response.set_data(b"")
    # A cache would take these for what it holds, and that may be the plain bytes.
    for name in ("Content-Length", "Content-Encoding"):
        response.headers.pop(name, None)
    return response


async def _slices(text: Text, part: range) -> AsyncIterator[bytes]:
    for piece in text.slices(part.start, part.stop):
        yield piece
