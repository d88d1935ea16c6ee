"""The fast path: ASGI middleware that answers what Quart would route to the list or to a fixed document.

- Quart's own router decides, once for each distinct request without its query; the verdict is kept. Requests
  for anything but the list and the fixed documents are Quart's.
- As long as anything that is not ours is hung on the app (a hook, a receiver of a request signal, a view, a
  session interface, another connection class), every request is Quart's, and the answers are the same.
- Each `send` gets messages of its own, because middlewares append to them.
- An error is handled by Quart, so handlers that are registered on the app apply.
- No route of ours reads a body, so bodies are drained (see `wizards.messages`).
"""

from typing import Any, NamedTuple

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from quart import Quart, Request, signals
from werkzeug.exceptions import HTTPException

from wizards import messages
from wizards.core.roster import RosterError
from wizards.web.quart_workarounds import TolerantHTTPConnection
from wizards.web.representation import EVENTS, Answer, preferred_type
from wizards.web.routes import FIXED, LIST
from wizards.web.shared_list import ListRequest, SharedList, name_in

# The headers that decide an answer beside method, target and name. A request is parsed with these alone, so
# that a header which is missing here cannot be forgotten in a verdict that is kept.
ROUTE_HEADERS = messages.LENGTH_HEADERS.union(
    b"host accept accept-encoding if-match if-none-match if-range range".split(),
    b"sec-fetch-dest sec-fetch-mode sec-fetch-site sec-purpose".split(),
)
MAX_ROUTES = 256

SIGNALS = [signal for name, signal in vars(signals).items() if name.startswith(("request_", "appcontext_"))]
SIGNALS.append(signals.got_request_exception)
RECEIVERS = [signal.receivers for signal in SIGNALS]


class Route(NamedTuple):
    """Quart's verdict on a request, and what is answered or asked without Quart.

    The endpoint is empty if Quart redirects or refuses the request, or answers it itself (OPTIONS).
    """

    endpoint: str
    may_have_body: bool
    has_conflicting_length: bool
    fast: Answer | ListRequest | None
    is_followed: bool  # as server-sent events


class FastPathMiddleware:
    """An ASGI application around `app.asgi_app`; register routes and views of ours before making one."""

    def __init__(self, app: Quart, shared_list: SharedList) -> None:
        self._app = app
        self._quart = app.asgi_app
        self._list = shared_list
        self._views = dict(app.view_functions)
        self._sessions = app.session_interface
        # Views of the app's own dictionaries: hooks that are hung on it later are seen.
        self._hooks = (
            app.before_request_funcs.values(),
            app.after_request_funcs.values(),
            app.teardown_request_funcs.values(),
            app.url_value_preprocessors.values(),
        )
        self._routes: dict[tuple[object, ...], Route] = {}

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation does not take a name back."""
        if scope["type"] != "http":
            await self._quart(scope, receive, send)
            return
        if not isinstance(scope["headers"], list):  # any iterable will do, so it may be one that ends
            scope = {**scope, "headers": list(scope["headers"])}
        # Names and values in turn. A value that reads as a name only adds to the key.
        headers = [part for header in scope["headers"] if header[0] in ROUTE_HEADERS for part in header]
        is_extended = self._is_extended()
        route = self._parsed(scope, headers) if is_extended else self._route(scope, headers)
        if is_extended and route.endpoint not in self._views:
            await self._quart(scope, receive, send)
            return
        if route.may_have_body:
            if not await messages.drain_body(receive):
                return
            send = messages.close_after_response(send) if route.has_conflicting_length else send
        if is_extended or route.fast is None:
            # A follower's request lasts until Quart hears that the client has left.
            rest = messages.without_body(receive) if route.is_followed else messages.never_receive
            await self._quart(scope, rest, send)
        else:
            await self._answer(route.fast, scope, send)

    async def _answer(self, fast: Answer | ListRequest, scope: HTTPScope, send: ASGISendCallable) -> None:
        try:
            if isinstance(fast, Answer):
                answer = fast
            else:
                name = name_in(scope.get("query_string", b""))
                answer = self._list.known_answer(fast, name) or await self._list.answer(fast, name)
        except (RosterError, HTTPException) as error:
            await TolerantHTTPConnection(self._app, scope).handle_error(error, send)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers]})
        for block in answer.chunks[:-1]:
            await send({"type": "http.response.body", "body": block, "more_body": True})
        last = answer.chunks[-1] if answer.chunks else b""
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _route(self, scope: HTTPScope, headers: list[bytes]) -> Route:
        key = (
            scope["method"],
            scope["path"],
            scope.get("root_path"),
            scope.get("scheme"),
            scope["http_version"],
            *headers,
        )
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= MAX_ROUTES:
                del self._routes[next(iter(self._routes))]
            route = self._routes[key] = self._parsed(scope, headers)
        return route

    def _parsed(self, scope: HTTPScope, headers: list[bytes]) -> Route:
        pairs = list(zip(headers[::2], headers[1::2], strict=True))
        reduced: Any = {**scope, "headers": pairs, "query_string": b""}
        request = TolerantHTTPConnection(self._app, reduced).request
        endpoint = self._endpoint(request)
        fast: Answer | ListRequest | None = None
        is_followed = endpoint == LIST and preferred_type(request) == EVENTS
        if endpoint == LIST and not is_followed:
            fast = ListRequest.parse(request)
        elif endpoint in FIXED:
            fast = FIXED[endpoint].answer(request)
        may_have_body = messages.may_have_body(scope["http_version"], headers)
        has_conflict = messages.has_conflicting_length(headers)
        return Route(endpoint, may_have_body, has_conflict, fast, is_followed)

    def _endpoint(self, request: Request) -> str:
        if request.method not in ("GET", "HEAD"):
            return ""
        try:
            endpoint: str = self._app.create_url_adapter(request).match()[0]  # type: ignore[union-attr]
        except HTTPException:  # RequestRedirect is one, too
            return ""
        return endpoint

    def _is_extended(self) -> bool:
        # Without loops in Python, as each request pays for it (0.6 µs).
        app = self._app
        return (
            any(map(any, self._hooks))
            or bool(app.teardown_appcontext_funcs)
            or app.view_functions != self._views
            or app.session_interface is not self._sessions
            or app.asgi_http_class is not TolerantHTTPConnection
            or (any(RECEIVERS) and any(signal.has_receivers_for(app) for signal in SIGNALS))
        )
