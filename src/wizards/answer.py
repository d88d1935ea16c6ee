"""The shared list as an HTTP answer: which representation, and how much of it.

RFC 9110 sets the order: negotiation (section 12), then If-None-Match, then Range (section 13.2.2). The
gzipped bytes differ between processes, so their ETag is weak (8.8.1) and a Range is one of the plain bytes.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Self

from hypercorn.typing import HTTPScope
from quart import Response, request
from quart.wrappers.response import ResponseBody
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from .document import Text
from .page import Snapshot
from .roster import RosterError

PATH = "/wizards"
EXTENSION = "wizards.outcome"
MEDIA_TYPES = ("text/html", "application/json")  # the first one is for those who do not mind

Outcome = Snapshot | RosterError | None


def with_outcome(scope: HTTPScope, outcome: Outcome) -> HTTPScope:
    """Return `scope` with what the roster has said to this very request, so that nobody asks it again."""
    extensions: Any = {**(scope.get("extensions") or {}), EXTENSION: outcome}
    return {**scope, "extensions": extensions}


def known_snapshot() -> Snapshot | None:
    """Return the list with which the roster has answered this request, if it was asked before Quart was.

    Raises the RosterError with which it has refused.
    """
    extensions: dict[str, Any] = request.scope.get("extensions") or {}
    outcome: Outcome = extensions.get(EXTENSION)
    if isinstance(outcome, RosterError):
        raise outcome
    return outcome


def prefers_json() -> bool:
    """Whether the request asks for the shared list and would rather have it as JSON."""
    return request.path == PATH and request.accept_mimetypes.best_match(MEDIA_TYPES) == MEDIA_TYPES[1]


async def to_read(snapshot: Snapshot) -> Response:
    """Answer a read: the list, the part of it that was asked for (206), or that it is unchanged (304).

    Raises RequestedRangeNotSatisfiable where the part begins behind the end.
    """
    response = _whole(snapshot)
    await response.make_conditional(request)
    if response.status_code == 304:
        # A cache would take it for the encoding of what it holds, and that may be the plain bytes.
        response.headers.pop("Content-Encoding", None)
    if response.status_code == 200 and _asks_for_part():
        await _shorten(response)
    return response


async def to_append(snapshot: Snapshot) -> Response:
    """Answer an append: the list or the part that was asked for. It was carried out, so never with less."""
    response = _whole(snapshot)
    if _asks_for_part() and "If-Range" not in request.headers:  # what is new has no ETag one could know
        with suppress(RequestedRangeNotSatisfiable):
            await _shorten(response)
    return response


def _whole(snapshot: Snapshot) -> Response:
    document = snapshot.json if prefers_json() else snapshot.html
    zipped = not _asks_for_part() and request.accept_encodings.best_match(("gzip", "identity")) == "gzip"
    text = document.gzip if zipped else document.plain
    response = Response(TextBody(text), mimetype=MEDIA_TYPES[document is snapshot.json])
    response.content_length = text.size
    response.set_etag(document.etag, weak=zipped)
    if zipped:
        response.content_encoding = "gzip"
    return response


def _asks_for_part() -> bool:
    # Other units must, many ranges at once may be ignored: RFC 9110, 14.2.
    wanted = request.range if request.method == "GET" else None
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) > 1:
        return False
    # Only a strong ETag will do (13.1.5): a weak one may be of gzipped bytes, and nothing here has a date.
    return request.headers.get("If-Range", '"').startswith('"')


async def _shorten(response: Response) -> None:
    await response.make_conditional(request, accept_ranges=True, complete_length=response.content_length)


class TextBody(ResponseBody):
    """The bytes of a text from `begin` up to `end`, sent a block at a time."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self.begin = 0
        self.end = text.size

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._text.slices(self.begin, self.end):
            yield piece

    async def make_conditional(self, begin: int, end: int | None) -> int:
        """Keep the bytes from `begin` (negative: that many last ones) up to `end`; return the full size."""
        size = self._text.size
        if begin >= size:
            raise RequestedRangeNotSatisfiable(size)
        self.begin = begin if begin >= 0 else max(0, size + begin)
        self.end = size if end is None else min(end, size)
        return size
