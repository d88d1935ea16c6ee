"""The fast path: ASGI middleware that answers what Quart would route to the list or to a fixed document.

- Quart's own router decides, once for each distinct request without its query; the decision is
  kept. Quart handles requests for anything but the list and the fixed documents.
- As long as anything that is not ours is registered on the app (see `extensions`), Quart handles every
  request. The answers are the same.
- Each `send` gets messages of its own, because middlewares append to them.
- Quart handles errors, so handlers that are registered on the app apply.
- No route of ours reads a body, so bodies are drained (see `request_bodies`), also if Quart handles the
  request, unless the request is for a view that is not ours.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from quart import Quart
from werkzeug.exceptions import BadRequest, HTTPException

from wizards.core.errors import RosterError
from wizards.web import request_bodies
from wizards.web.extensions import Extensions
from wizards.web.list_request import EVENTS, ListRequest, preferred_type
from wizards.web.list_resource import ListResource, name_in
from wizards.web.quart_workarounds import TolerantHTTPConnection
from wizards.web.representation import Answer
from wizards.web.routes import FIXED, LIST

# The headers that decide an answer beside method, target and name. A request is parsed with these alone, so
# that a decision which is kept cannot depend on a header which is missing here.
LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
DECIDING_HEADERS = LENGTH_HEADERS.union(
    b"host accept accept-encoding if-match if-none-match if-range range".split(),
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site sec-purpose".split(),
)
TARGET = ("method", "path", "root_path", "scheme", "http_version")  # what else decides, as the scope has it
MAX_DECISIONS = 256


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Quart's decision on a request, what it means for the body, and what is answered without Quart."""

    is_foreign: bool  # for a view that is not ours
    drains_body: bool
    has_conflicting_length: bool  # so that no request behind it is trusted (RFC 9112, section 6.1)
    is_followed: bool  # as server-sent events
    direct: Answer | ListRequest | None


class FastPathMiddleware:
    """An ASGI application around `app.asgi_app`; register routes and views of ours before making one."""

    def __init__(self, app: Quart, resource: ListResource) -> None:
        self._app = app
        self._quart = app.asgi_app
        self._list = resource
        self._extensions = Extensions(app)
        self._decision = lru_cache(MAX_DECISIONS)(self._decide)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation does not take a name back."""
        if scope["type"] != "http":
            await self._quart(scope, receive, send)
            return
        if not isinstance(scope["headers"], list):  # any iterable will do, so it may be one that ends
            scope = {**scope, "headers": list(scope["headers"])}
        # Names and values in turn. A value that reads as a name only adds to the key.
        headers = [part for header in scope["headers"] if header[0] in DECIDING_HEADERS for part in header]
        is_extended = self._extensions.exist()
        decide = self._decide if is_extended else self._decision
        target = (
            scope["method"],
            scope["path"],
            scope.get("root_path", ""),
            scope.get("scheme", "http"),
            scope["http_version"],
        )
        decision = decide(target, tuple(headers))
        if decision.has_conflicting_length:
            send = request_bodies.close_after_response(send)
        if decision.drains_body and not await request_bodies.drain_body(receive):
            await self._refuse(
                BadRequest("The request's body ended too early, or is malformed."), scope, send
            )
        elif decision.direct is not None and not is_extended:
            await self._answer(decision.direct, scope, send)
        elif decision.is_foreign:  # it may read the body
            await self._quart(scope, receive, send)
        elif decision.is_followed:  # until Quart hears that the client has left
            await self._quart(scope, request_bodies.without_body(receive), send)
        else:
            await self._quart(scope, request_bodies.never_receive, send)

    async def _answer(self, direct: Answer | ListRequest, scope: HTTPScope, send: ASGISendCallable) -> None:
        try:
            if isinstance(direct, Answer):
                answer = direct
            else:
                name = name_in(scope.get("query_string", b""))
                answer = self._list.known_answer(direct, name) or await self._list.answer(direct, name)
        except (RosterError, HTTPException) as error:
            await self._refuse(error, scope, send)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers]})
        for block in answer.chunks[:-1]:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        last = answer.chunks[-1] if answer.chunks else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _refuse(self, error: Exception, scope: HTTPScope, send: ASGISendCallable) -> None:
        with suppress(OSError):  # the client has left
            await TolerantHTTPConnection(self._app, scope).handle_error(error, send)

    def _decide(self, target: tuple[str, ...], headers: tuple[bytes, ...]) -> RoutingDecision:
        scope: Any = dict(zip(TARGET, target, strict=True))
        scope |= {"type": "http", "headers": list(zip(headers[::2], headers[1::2], strict=True))}
        request = TolerantHTTPConnection(self._app, scope).request
        try:
            endpoint: str = self._app.create_url_adapter(request).match()[0]  # type: ignore[union-attr]
        except HTTPException:  # RequestRedirect is one, too
            endpoint = ""
        shown = endpoint if request.method in ("GET", "HEAD") else ""  # Quart answers OPTIONS itself
        is_followed = shown == LIST and preferred_type(request) == EVENTS
        direct: Answer | ListRequest | None = None
        if shown == LIST and not is_followed:
            direct = ListRequest.parse(request)
        elif shown in FIXED:
            direct = FIXED[shown].answer(request)
        is_foreign = bool(endpoint) and endpoint not in self._extensions.views
        # HTTP/1 announces each body (RFC 9112, section 6.3), later versions announce none.
        may_have_body = scope["http_version"] not in ("1.1", "1.0") or not LENGTH_HEADERS.isdisjoint(headers)
        return RoutingDecision(
            is_foreign=is_foreign,
            drains_body=not is_foreign and (is_followed or may_have_body),
            has_conflicting_length=LENGTH_HEADERS.issubset(headers[::2]),
            is_followed=is_followed,
            direct=direct,
        )
