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
from dataclasses import dataclass, replace
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from quart import Quart, Request
from werkzeug.exceptions import BadRequest, HTTPException

from wizards.core.errors import RosterError
from wizards.web import request_bodies
from wizards.web.extensions import Extensions
from wizards.web.list_resource import ListRequest, ListResource, name_in
from wizards.web.quart_workarounds import TolerantHTTPConnection
from wizards.web.representation import EVENTS, Answer, preferred_type
from wizards.web.routes import FIXED, LIST

# The headers that decide an answer beside method, target and name. A request is parsed with these alone, so
# that a decision which is kept cannot depend on a header which is missing here.
DECIDING_HEADERS = request_bodies.LENGTH_HEADERS.union(
    b"host accept accept-encoding if-match if-none-match if-range range".split(),
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site sec-purpose".split(),
)
MAX_DECISIONS = 256


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Quart's decision on a request, what it means for the body, and what is answered without Quart."""

    is_foreign: bool  # for a view that is not ours
    drains_body: bool
    has_conflicting_length: bool
    is_followed: bool  # as server-sent events
    direct: Answer | ListRequest | None


class FastPathMiddleware:
    """An ASGI application around `app.asgi_app`; register routes and views of ours before making one."""

    def __init__(self, app: Quart, resource: ListResource) -> None:
        self._app = app
        self._quart = app.asgi_app
        self._list = resource
        self._extensions = Extensions(app)
        self._decisions: dict[tuple[object, ...], RoutingDecision] = {}

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation does not take a name back."""
        if scope["type"] != "http":
            await self._quart(scope, receive, send)
            return
        if not isinstance(scope["headers"], list):  # any iterable will do, so it may be one that ends
            scope = {**scope, "headers": list(scope["headers"])}
        # Names and values in turn. A value that reads as a name only adds to the key.
        headers = [part for header in scope["headers"] if header[0] in DECIDING_HEADERS for part in header]
        if self._extensions.exist():
            decision = replace(self._decide(scope, headers), direct=None)
        else:
            decision = self._decision(scope, headers)
        if decision.has_conflicting_length:
            send = request_bodies.close_after_response(send)
        if decision.drains_body and not await request_bodies.drain_body(receive):
            await self._refuse(
                BadRequest("The request's body ended too early, or is malformed."), scope, send
            )
        elif decision.direct is not None:
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

    def _decision(self, scope: HTTPScope, headers: list[bytes]) -> RoutingDecision:
        key = (
            scope["method"],
            scope["path"],
            scope.get("root_path"),
            scope.get("scheme"),
            scope["http_version"],
            *headers,
        )
        decision = self._decisions.get(key)
        if decision is None:
            if len(self._decisions) >= MAX_DECISIONS:
                del self._decisions[next(iter(self._decisions))]
            decision = self._decisions[key] = self._decide(scope, headers)
        return decision

    def _decide(self, scope: HTTPScope, headers: list[bytes]) -> RoutingDecision:
        pairs = list(zip(headers[::2], headers[1::2], strict=True))
        reduced: Any = {**scope, "headers": pairs, "query_string": b""}
        request = TolerantHTTPConnection(self._app, reduced).request
        endpoint = self._endpoint(request)
        shown = endpoint if request.method in ("GET", "HEAD") else ""  # Quart answers OPTIONS itself
        is_followed = shown == LIST and preferred_type(request) == EVENTS
        direct: Answer | ListRequest | None = None
        if shown == LIST and not is_followed:
            direct = ListRequest.parse(request)
        elif shown in FIXED:
            direct = FIXED[shown].answer(request)
        is_foreign = bool(endpoint) and endpoint not in self._extensions.views
        may_have_body = request_bodies.may_have_body(scope["http_version"], headers)
        return RoutingDecision(
            is_foreign=is_foreign,
            drains_body=not is_foreign and (is_followed or may_have_body),
            has_conflicting_length=request_bodies.has_conflicting_length(headers),
            is_followed=is_followed,
            direct=direct,
        )

    def _endpoint(self, request: Request) -> str:
        try:
            endpoint: str = self._app.create_url_adapter(request).match()[0]  # type: ignore[union-attr]
        except HTTPException:  # RequestRedirect is one, too
            return ""
        return endpoint
