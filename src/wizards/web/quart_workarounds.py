"""What holds for every request and every answer, whatever the route."""

import re
from urllib.parse import urlsplit

from hypercorn.typing import ASGISendCallable, ASGISendEvent, HTTPScope, WebsocketScope
from quart import Quart, Request, Response, request
from quart.asgi import ASGIHTTPConnection, ASGIWebsocketConnection
from werkzeug.exceptions import BadHost
from werkzeug.urls import iri_to_uri

from wizards.web import representation as answer

SAFETY_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Connection(ASGIHTTPConnection):
    """A request whose target and host may be anything, answered as Flask answers it.

    Quart by itself fails at an empty path, at some absolute targets (RFC 9112, section 3.2), at a query
    that is not UTF-8 (HTTP/2 lets one through) and at a host that is none.
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        path, query = _path(scope["path"]), _utf8(scope["query_string"])
        super().__init__(app, {**scope, "path": path, "query_string": query})

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        """Answer the request through `send`; pass a cancellation on."""
        try:
            await super().handle_request(request, send)
        except BadHost as error:
            response = error.get_response()
            response.headers.update(SAFETY_HEADERS)
            await self._send_response(send, response)


class Handshake(ASGIWebsocketConnection):
    """A WebSocket's beginning. No route takes one, so it does not matter what its headers say."""

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        super().__init__(app, {**scope, "headers": []})  # Quart fails at a host that is none


async def complete_headers(response: Response) -> Response:
    """Add what every answer carries, and escape a redirect's address as Flask does."""
    response.headers.update(SAFETY_HEADERS)
    if request.path == answer.PATH:
        response.vary.update(["Accept", "Accept-Encoding"])
    if response.location:
        response.location = iri_to_uri(response.location)
    return response


def closing(send: ASGISendCallable) -> ASGISendCallable:
    """Return a `send` whose answer is the last one on its HTTP/1.1 connection (RFC 9112, section 9.6)."""

    async def send_last(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            # A copy: the read cache sends the same message to others.
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_last


def _path(target: str) -> str:
    if target.startswith("/"):
        return target
    try:
        return urlsplit(target).path or "/"
    except ValueError:  # it looks like a URL and is none
        return f"/{target}"


def _utf8(query: bytes) -> bytes:
    printable = re.sub(rb"[\x00-\x20\x7f]", lambda found: b"%%%02X" % found[0][0], query)
    return printable.decode(errors="werkzeug.url_quote").encode()
