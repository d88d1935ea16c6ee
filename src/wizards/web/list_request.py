"""What a request asks of the list: the type and encoding, conditions, a range, and whether it may append."""

from dataclasses import dataclass
from typing import Self

from quart import Request
from werkzeug.datastructures import ETags, Range

HTML_UTF8, JSON, EVENTS = "text/html; charset=utf-8", "application/json", "text/event-stream"


@dataclass(frozen=True, eq=False, slots=True)
class ListRequest:
    """A request for the list without its query, parsed."""

    json: bool
    gzip: bool
    if_match: ETags
    if_none_match: ETags
    range: Range | None  # a single range of bytes whose If-Range, if any, is still to be compared
    if_range: str
    append_refusal: str  # why it may not append, or ""

    @classmethod
    def parse(cls, request: Request) -> Self:
        """Return what `request` asks of the list. Only its headers and its method are read."""
        wanted = request.range if request.method == "GET" else None
        # Other units must be ignored, several ranges may be (RFC 9110, 14.2).
        is_single = wanted is not None and wanted.units == "bytes" and len(wanted.ranges) == 1
        return cls(
            json=preferred_type(request) == JSON,
            gzip=request.accept_encodings.best_match(("gzip", "identity")) == "gzip",
            if_match=request.if_match,
            if_none_match=request.if_none_match,
            range=wanted if is_single else None,
            if_range=request.headers.get("If-Range", ""),
            append_refusal=_append_refusal(request),
        )


def preferred_type(request: Request) -> str | None:
    """Return the preferred type of the list: "text/html", JSON or EVENTS.

    The default is HTML, as the Flask app sends it.
    """
    return request.accept_mimetypes.best_match(("text/html", JSON, EVENTS))


def _append_refusal(request: Request) -> str:
    # Browsers set these headers (Fetch Metadata, W3C) on what they send without their user asking for it, and
    # no script can forge them. Other clients do not send them.
    header = request.headers.get
    is_navigation = header("Sec-Fetch-Mode") == "navigate" and header("Sec-Fetch-Dest") == "document"
    if header("Sec-Fetch-Site") == "cross-site" and not is_navigation:
        return "A page of another site may link to this address, but not append on its own."
    if "prefetch" in header("Sec-Purpose", ""):
        return "Fetching ahead of need does not append. Open the address itself."
    return ""
