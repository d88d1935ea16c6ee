"""Header fields that responses carry beside those of their route."""

from quart import Request
from werkzeug.sansio.response import Response
from werkzeug.urls import iri_to_uri

LIST_PATH = "/wizards"

SECURITY_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
VARY = ("Accept", "Accept-Encoding")

# The same fields as ASGI messages have them: for the documents that never change, and for the list.
FIXED_HEADERS = tuple((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
LIST_HEADERS = ((b"vary", ", ".join(VARY).encode()), *FIXED_HEADERS)

# No cache keeps the stream of a follower, and nginx passes each event on at once.
EVENT_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def add_response_headers(response: Response, request: Request) -> None:
    """Add to `response` what each response to `request` carries; escape redirects as Flask does.

    A field that the response has already, from a hook or an extension, stays.
    """
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if request.path == LIST_PATH:
        response.vary.update(VARY)
    if response.location:
        response.location = iri_to_uri(response.location)
