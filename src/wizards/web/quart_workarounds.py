"""Quart's connections, for requests at which Quart fails: any target and any host, as Flask answers them."""

import re
from typing import Any
from urllib.parse import urlsplit

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, WebsocketScope
from quart import Quart, Request
from quart.asgi import ASGIHTTPConnection, ASGIWebsocketConnection
from werkzeug.exceptions import BadHost

from wizards.messages import never_receive
from wizards.web.errors import error_response
from wizards.web.headers import add_response_headers

# What the ASGI specification lets a server leave out of a scope, and what it means then.
SCOPE_DEFAULTS: dict[str, Any] = {"scheme": "http", "root_path": "", "query_string": b""}


class TolerantHTTPConnection(ASGIHTTPConnection):
    """A request whose target, query, host and prefix may be anything.

    Quart fails at an empty path, at some absolute targets (RFC 9112, section 3.2), at a query that is not
    UTF-8 (HTTP/2 allows one), at a missing host, and at a prefix that ends with a slash.
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        complete: Any = SCOPE_DEFAULTS | scope
        root_path = complete["root_path"].rstrip("/")
        complete |= {
            "headers": list(complete["headers"]),
            "path": _path_below(root_path, _path(complete["path"])),
            "query_string": _utf8(complete["query_string"]),
            "root_path": root_path,
        }
        super().__init__(app, complete)
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
        """Respond to `error` as if the router had raised it; pass a cancellation on."""
        self.request.routing_exception = error  # type: ignore[assignment]  # Quart raises whatever it is
        await self.handle_request(self.request, send)

    async def _send_response(self, send: ASGISendCallable, response: Any) -> None:
        add_response_headers(response, self.request)
        await super()._send_response(send, response)


class TolerantWebsocketConnection(ASGIWebsocketConnection):
    """A WebSocket handshake whose host may be anything: no route accepts one."""

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        super().__init__(app, {**scope, "headers": []})


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
