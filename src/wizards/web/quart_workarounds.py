"""Quart's connections, for requests at which Quart fails, answered as Flask answers them.

Quart fails at an empty path, at some absolute targets (RFC 9112, section 3.2), at a query that is not UTF-8
(HTTP/2 allows one), at an invalid host, and at a prefix that ends with a slash.
"""

import re
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, WebsocketScope
from quart import Quart, Request, Websocket
from quart.asgi import ASGIHTTPConnection, ASGIWebsocketConnection
from werkzeug.exceptions import BadHost

from wizards.web.errors import error_response
from wizards.web.headers import add_response_headers
from wizards.web.request_bodies import never_receive

MAX_ACCEPT_LENGTH = 1024  # a longer Accept or Accept-Encoding is ignored
SCOPE_DEFAULTS = {"scheme": "http"}  # a key that the ASGI specification lets a server leave out


# Quart 0.23 passes its context to the method that handles errors.
PASSES_CONTEXT = "ctx" in signature(Quart.handle_user_exception).parameters


class TolerantHTTPConnection(ASGIHTTPConnection):
    """A request whose target, query, host and prefix may be anything."""

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, _normalized_scope(scope))
        self.request = self._create_request_from_scope(_send_nothing)

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Respond through `send`. A request whose body has been drained has `never_receive`."""
        if receive is not never_receive:
            await super().__call__(receive, send)
            return
        self.request.body.set_complete()
        await self.handle_request(self.request, send)

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        """Respond to `request`; pass a cancellation on."""
        try:
            await super().handle_request(request, send)
        except BadHost as error:  # Quart 0.22 looks at the host before it handles errors
            await self._send_response(send, error_response(error, request))

    async def handle_error(self, error: Exception, send: ASGISendCallable) -> None:
        """Respond to `error` as if the view of the request had raised it; pass a cancellation on."""
        handle: Any = self.app.handle_user_exception
        async with self.app.request_context(self.request) as context:
            arguments = (context, error) if PASSES_CONTEXT else (error,)
            response = await self.app.make_response(await handle(*arguments))
        await self._send_response(send, response)

    async def _send_response(self, send: ASGISendCallable, response: Any) -> None:
        add_response_headers(response, self.request)
        await super()._send_response(send, response)


class TolerantWebsocketConnection(ASGIWebsocketConnection):
    """A WebSocket handshake whose target, host and prefix may be anything."""

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        super().__init__(app, _normalized_scope(scope))

    async def handle_websocket(self, websocket: Websocket, send: ASGISendCallable) -> None:
        """Respond to a handshake, or run its route; pass a cancellation on."""
        try:
            await super().handle_websocket(websocket, send)
        except BadHost:  # respond as to a handshake without a host
            self.scope = {**self.scope, "headers": []}
            await super().handle_websocket(self._create_websocket_from_scope(send), send)


def _normalized_scope(scope: Any) -> Any:
    # The prefix is ASGI's root_path. Quart strips it from the path, but not one that ends with a slash.
    root_path = scope.get("root_path", "").rstrip("/")
    return {
        **SCOPE_DEFAULTS,
        **scope,
        "headers": [header for header in scope["headers"] if not _is_costly(*header)],
        "path": _path_below(root_path, _path(scope["path"])),
        "query_string": _utf8(scope.get("query_string", b"")),
        "root_path": root_path,
    }


def _is_costly(name: bytes, value: bytes) -> bool:
    # Werkzeug parses these in quadratic time: 60 KB of spaces took 4 s. A browser sends 200 bytes.
    return name in (b"accept", b"accept-encoding") and len(value) > MAX_ACCEPT_LENGTH


async def _send_nothing(message: object) -> None:
    """Stand in for a `send` where Quart wants one for server pushes, which no route makes."""


def _path(target: str) -> str:
    if target.startswith("/"):
        return target
    try:
        return urlsplit(target).path or "/"
    except ValueError:  # it looks like a URL and is none
        return f"/{target}"


def _path_below(root_path: str, path: str) -> str:
    if path == root_path:  # the prefix itself, without its slash
        return f"{path}/"
    return path if path.startswith(f"{root_path}/") else " "  # Quart answers 404 to a space


def _utf8(query: bytes) -> bytes:
    printable = re.sub(rb"[\x00-\x20\x7f]", lambda found: b"%%%02X" % found[0][0], query)
    return printable.decode(errors="werkzeug.url_quote").encode()
