"""The fast path answers like Quart and leaves every request to Quart if the app has extensions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient
from hypothesis import given, settings
from hypothesis import strategies as st
from quart import (
    Blueprint,
    Quart,
    Response,
    abort,
    jsonify,
    request,
    request_finished,
    request_started,
    websocket,
)
from quart.sessions import SecureCookieSessionInterface
from werkzeug.datastructures import Headers
from werkzeug.sansio.request import Request as WerkzeugRequest

from support.clients import fresh_client, open_client
from support.pages import GREETING, parse_page
from support.stores import append_names, make_store
from wizards import create_app
from wizards.core.errors import RosterBusyError, RosterUnavailableError
from wizards.web import middleware
from wizards.web.list_request import ListRequest
from wizards.web.list_resource import MAX_ANSWERS, name_in
from wizards.web.middleware import FastPathMiddleware


class QuartRequests:
    """Counts the requests that reach Quart, without a hook on the app."""

    def __init__(self, app: Quart) -> None:
        self.count = 0
        fast_path: FastPathMiddleware = app.asgi_app  # type: ignore[assignment]
        self._quart = fast_path._quart
        fast_path._quart = self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.count += 1
        await self._quart(scope, receive, send)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Quart]:
    app = create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/wizards.db"})
    async with app.test_app():
        yield app


@pytest.fixture
async def client(app: Quart) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


@pytest.mark.parametrize(
    "target",
    ["/", "/api/wizards?x=1", "/wizards", "/wizards?x=1", "/wizards?name=Luna", "/wizards?n%61me=L&x"],
)
@pytest.mark.parametrize(
    "headers", [{}, {"Range": "bytes=0-4"}, {"If-None-Match": "*"}, {"Accept": "application/json"}]
)
async def test_list_bypasses_quart(
    app: Quart, client: AsyncClient, headers: dict[str, str], target: str
) -> None:
    """Each read and append of the list is answered without Quart's dispatch."""
    quart_requests = QuartRequests(app)
    for method in ("GET", "HEAD"):
        assert (await client.request(method, target, headers=headers)).status_code in (200, 206, 304)
    assert quart_requests.count == 0


@pytest.mark.parametrize("append", ["name=Luna", "n%61me=Luna", "x=1&name=Luna", "name=Luna&name="])
async def test_each_append_appends(client: AsyncClient, append: str) -> None:
    """Each append appends, however its key is written."""
    for times in (1, 2):
        page = (await client.get(f"/wizards?{append}")).text
        assert page.count("Luna") == times


async def test_sees_appends_of_other_processes(tmp_path: Path, client: AsyncClient) -> None:
    """A name that another process has committed is in the next answer."""
    await client.get("/wizards")
    other = make_store(f"sqlite:///{tmp_path}/wizards.db")
    await other.open()
    for name in ("Luna", "Ginny"):
        await append_names(other, name)
        assert name in (await client.get("/wizards")).text
    await other.close()


async def _do_nothing() -> None:
    """Serve as a hook that makes Quart handle every request."""


ACCEPTS = st.sampled_from(["*/*", "application/json", "text/html", "application/json;q=0.1, */*"])
DATES = [f"Mon, 01 Jan {year} 00:00:00 GMT" for year in (2001, 9**20)] + [
    "Mon, 01 Jan 2001 00:00:00 +" + "9" * 20
]
HEADERS = st.fixed_dictionaries(
    {"Accept-Encoding": st.sampled_from(["", "gzip", "gzip;q=0", "identity, gzip;q=0.5"])},
    optional={
        "Accept": ACCEPTS,
        "Range": st.sampled_from(["bytes=0-5", "bytes=3-", "bytes=-4", "x"]),
        "If-None-Match": st.sampled_from(["*", '"x"', "ETAG"]),
        "If-Range": st.sampled_from(['"x"', "ETAG", 'W/"x"', *DATES]),
        "If-Modified-Since": st.sampled_from(DATES),
        "If-Match": st.sampled_from(["*", '"x"']),
        "X-Other": st.sampled_from(["1", "2"]),
    },
)
TARGETS = st.sampled_from(["/", "/wizards", "/wizards?x=1", "/wizards?name=", "/wizards?name=Luna"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["GET", "HEAD"]), TARGETS, HEADERS), max_size=25))
async def test_answers_as_without_fast_path(requests: list[tuple[str, str, dict[str, str]]]) -> None:
    """In any sequence of requests every answer equals that of Quart without the fast path."""
    fast, plain = (create_app({"DATABASE_URL": "sqlite://"}) for _ in range(2))
    plain.before_request(_do_nothing)
    async with fast.test_app(), plain.test_app(), open_client(fast) as one, open_client(plain) as other:
        etag = '"none"'
        for method, target, drawn in requests:
            headers = {key: value.replace("ETAG", etag) for key, value in drawn.items()}
            first, second = [await client.request(method, target, headers=headers) for client in (one, other)]
            assert (first.status_code, first.content) == (second.status_code, second.content)
            assert first.headers == second.headers
            assert first.status_code < 500
            etag = first.headers.get("ETag", etag)


@given(
    st.binary(max_size=40)
    | st.text("name=&%61+;\0\udc80é").map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_name_is_what_werkzeug_finds(query: bytes) -> None:
    """The name in a query equals that in Werkzeug's `request.args`."""
    werkzeug = WerkzeugRequest("GET", "http", None, "", "/", query, Headers(), None)
    try:
        expected = werkzeug.args.get("name")
    except UnicodeDecodeError:  # Werkzeug fails on bytes that our parser escapes
        return
    assert name_in(query) == expected


class RecordingHeaders(Headers):
    """Headers that record the names of those that are read."""

    read: set[str] = set()  # noqa: RUF012

    def _get_key(self, key: str) -> str:
        self.read.add(key.lower())
        return super()._get_key(key)


async def test_cache_key_has_every_relevant_header() -> None:
    """Every header that `ListRequest.parse` reads is part of the route cache's key."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    async with app.test_request_context("/wizards", headers={"Sec-Fetch-Mode": "navigate"}):
        request.headers.__class__ = RecordingHeaders
        ListRequest.parse(request)
    assert {b"accept", b"sec-purpose", b"range"} <= {key.encode() for key in RecordingHeaders.read}
    assert {key.encode() for key in RecordingHeaders.read} <= middleware.DECIDING_HEADERS


# --- Hooks, receivers and handlers on the app apply to every request. ---


def _guard(app: Quart) -> None:
    @app.before_request
    async def check_token() -> None:
        if "Token" not in request.headers:
            abort(401)


def _blueprint_guard(app: Quart) -> None:
    guard = Blueprint("guard", __name__)

    @guard.before_app_request
    async def check_token() -> None:
        if "Token" not in request.headers:
            abort(401)

    app.register_blueprint(guard)


def _signal_guard(app: Quart) -> None:
    async def check_token(_: Quart) -> None:
        if "Token" not in request.headers:
            abort(401)

    request_started.connect(check_token, app, weak=False)


def _view_guard(app: Quart) -> None:
    def guarded(view: Callable[..., Any]) -> Callable[..., Any]:
        async def check_token(**arguments: Any) -> Any:
            if "Token" not in request.headers:
                abort(401)
            return await view(**arguments)

        return check_token

    app.view_functions |= {endpoint: guarded(view) for endpoint, view in app.view_functions.items()}


@pytest.mark.parametrize("add_guard", [_guard, _blueprint_guard, _signal_guard, _view_guard])
async def test_guard_on_the_app_applies(
    app: Quart, client: AsyncClient, add_guard: Callable[[Quart], None]
) -> None:
    """Without a token each route answers 401 and appends nothing, even after cached answers."""
    for target in ("/", "/wizards", "/api/wizards"):
        assert (await client.get(target)).status_code == 200
    add_guard(app)
    for target in ("/", "/wizards", "/api/wizards", "/wizards?name=Eve"):
        assert (await client.get(target, headers={"Token": "x"})).status_code == 200
        assert (await client.get(target)).status_code == 401
    page = await client.get("/wizards", headers={"Token": "x"})
    assert parse_page(page.text)[3:] == ["Eve"]


async def test_rate_limiter_prevents_appends(app: Quart, client: AsyncClient) -> None:
    """An append that a rate limiter answers 429 is not stored."""
    remaining = [1]

    @app.before_request
    async def limit() -> tuple[str, int] | None:
        remaining[0] -= 1
        return ("slow down", 429) if remaining[0] < 0 else None

    assert [(await client.get(f"/wizards?name={name}")).status_code for name in "ABC"] == [200, 429, 429]
    remaining[0] = 1
    assert parse_page((await client.get("/wizards")).text)[3:] == ["A"]


async def test_after_request_hook_sees_each_request(app: Quart, client: AsyncClient) -> None:
    """An extension sets its header on each response, and our headers do not overwrite the extension's."""
    numbers = iter(range(100))

    @app.after_request
    async def number(response: Response) -> Response:
        response.headers["X-Request"] = str(next(numbers))
        response.headers["Cache-Control"] = "no-store"
        return response

    targets = ("/", "/wizards", "/api/wizards", "/nowhere") * 2
    answers = [await client.get(target) for target in targets]
    assert [answer.headers["X-Request"] for answer in answers] == [str(number) for number in range(8)]
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}


async def test_signal_and_session_receivers_see_each_request(app: Quart, client: AsyncClient) -> None:
    """Receivers of signals, teardown functions and session interfaces see each request."""
    seen: list[str] = []

    class Sessions(SecureCookieSessionInterface):
        async def open_session(self, *_: Any) -> None:
            seen.append("session")

    async def finished(_: Quart, response: Response) -> None:
        seen.append(f"finished {response.status_code}")

    await client.get("/wizards")
    request_finished.connect(finished, app)
    await client.get("/wizards")
    request_finished.disconnect(finished, app)
    app.session_interface = Sessions()
    await client.get("/wizards?name=Luna")
    app.session_interface = SecureCookieSessionInterface()
    app.teardown_request_funcs[None] = [lambda _: seen.append("teardown")]
    await client.get("/")
    assert [word for word in seen if word != "session"] == ["finished 200", "teardown"]
    assert "session" in seen


@pytest.mark.parametrize("name", ["preprocess_request", "dispatch_request", "request_class", "make_response"])
async def test_replaced_attributes_take_effect(app: Quart, client: AsyncClient, name: str) -> None:
    """A method or a class that is replaced on the app turns the fast path off; what Quart caches does not."""
    quart_requests = QuartRequests(app)
    assert app.jinja_env is not None
    await client.get("/wizards")
    assert quart_requests.count == 0
    setattr(app, name, getattr(app, name))
    await client.get("/wizards")
    assert quart_requests.count == 1


async def test_replaced_dictionary_of_hooks_takes_effect(app: Quart, client: AsyncClient) -> None:
    """Hooks in a dictionary that replaces the app's own one are run."""
    await client.get("/wizards")
    app.before_request_funcs = {None: [lambda: ("refused", 401)]}
    assert (await client.get("/wizards?name=Eve")).status_code == 401


async def test_quarts_own_empty_lists_are_no_hooks(app: Quart, client: AsyncClient) -> None:
    """What Quart registers itself, at requests that it handles, does not turn the fast path off."""
    quart_requests = QuartRequests(app)
    for method, target in (("OPTIONS", "/wizards"), ("GET", "/nowhere"), ("POST", "/wizards")):
        await client.request(method, target)
    handled = quart_requests.count
    assert handled == 3
    await client.get("/wizards")
    assert quart_requests.count == handled


async def test_receivers_of_another_app_have_no_effect(app: Quart, client: AsyncClient) -> None:
    """A signal receiver of another app does not turn the fast path off."""
    request_started.connect(_do_nothing, create_app({"DATABASE_URL": "sqlite://"}), weak=False)
    quart_requests = QuartRequests(app)
    await client.get("/wizards")
    assert quart_requests.count == 0


async def test_further_blueprint_reads_bodies(app: Quart, client: AsyncClient) -> None:
    """A route that a user adds gets its request body; our routes answer as before and drain theirs."""
    assert (await client.post("/echo", content=b"x")).status_code == 404
    further = Blueprint("further", __name__)

    @further.post("/echo")
    async def echo() -> Response:
        return jsonify((await request.get_data(as_text=True))[:9])

    app.register_blueprint(further)
    assert (await client.post("/echo", content=b"Expelliarmus")).json() == "Expelliar"
    assert (await client.request("GET", "/wizards?name=Luna", content=b"x" * 99)).text.count("Luna") == 1


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/wizards"), ("GET", "/wizards"), ("GET", "/no"), ("OPTIONS", "/"), ("POST", "/x")],
)
async def test_bodies_end_before_the_response(app: Quart, method: str, path: str, *, extend: bool) -> None:
    """A body ends before the response, and a conflicting length ends the connection, also with hooks."""
    if extend:
        app.before_request(_do_nothing)
    pieces = [{"type": "http.request", "body": b"x", "more_body": True}] * 20
    received = iter([*pieces, {"type": "http.request", "body": b"", "more_body": False}])
    starts: list[Any] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert next(received, None) is None
            starts.append(message["headers"])

    headers = [(b"host", b"t"), (b"content-length", b"3"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "headers": headers}
    await app(scope, partial(_next_message, received), send)  # type: ignore[arg-type]
    assert (b"connection", b"close") in starts[0]


async def _next_message(received: Iterator[Any]) -> Any:
    return next(received)


async def test_overlong_accept_is_ignored(client: AsyncClient) -> None:
    """An Accept that Werkzeug would parse for seconds counts as none; a shorter one counts."""
    for spaces, expected in ((900, "application/json"), (60_000, "text/html; charset=utf-8")):
        accept = f"application/json{' ' * spaces};q=1"
        response = await client.get("/wizards", headers={"Accept": accept})
        assert response.headers["Content-Type"] == expected


async def test_websocket_of_a_user_keeps_its_headers(app: Quart) -> None:
    """A WebSocket route that a user adds sees the headers of its handshake."""

    @app.websocket("/spell")
    async def cast() -> None:
        await websocket.send(websocket.headers["Wand"])

    async with app.test_client().websocket("/spell", headers={"Wand": "holly"}) as connection:
        assert await connection.receive() == "holly"


async def test_error_handlers_of_the_app_apply(app: Quart, client: AsyncClient) -> None:
    """A handler that a user registers for an error answers for that error of the list."""

    @app.errorhandler(403)
    async def forbidden(_: Exception) -> tuple[str, int]:
        return "mine", 403

    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert (await client.get("/wizards?name=Eve", headers=foreign)).text == "mine"


async def test_errors_are_the_same_with_and_without_hooks(app: Quart, client: AsyncClient) -> None:
    """An error of the list has the same status, headers and body on the fast path and from Quart."""
    resource = app.extensions["wizards"]

    async def fail(*_: object) -> None:
        raise RosterBusyError

    resource.roster.append = fail
    requests = [
        ("/wizards?name=%00", {}),
        ("/wizards?name=x", {}),
        ("/wizards?name=x", {"Accept": "application/json"}),
        ("/wizards?name=x", {"Sec-Purpose": "prefetch"}),
        ("/wizards", {"Range": "bytes=9999999-"}),
        ("/wizards", {"Host": ".."}),
        ("/wizards", {"Host": "..", "Accept": "application/json"}),
    ]
    fast = [await client.get(target, headers=headers) for target, headers in requests]
    app.before_request_funcs[None].append(_do_nothing)
    plain = [await client.get(target, headers=headers) for target, headers in requests]
    for one, other in zip(fast, plain, strict=True):
        assert (one.status_code, one.headers, one.content) == (
            other.status_code,
            other.headers,
            other.content,
        )
    assert [answer.status_code for answer in fast] == [400, 503, 503, 403, 416, 400, 400]


# --- Middleware, prefixes and minimal scopes. ---


async def test_failed_append_is_tried_once(app: Quart, client: AsyncClient) -> None:
    """An append that fails on the fast path is not carried out again by Quart's view."""
    attempts: list[str] = []

    async def fail(name: str) -> None:
        attempts.append(name)
        raise RosterUnavailableError

    app.extensions["wizards"].roster.append = fail
    assert (await client.get("/wizards?name=Luna")).status_code == 503
    assert attempts == ["Luna"]


async def test_messages_are_not_shared() -> None:
    """A middleware that appends to a response's headers does not change the next response."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    inner = app.asgi_app
    lengths: list[int] = []

    async def add_request_id(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                lengths.append(len(message["headers"]))
                message["headers"].append((b"x-request-id", b"1"))
                message["seen"] = True
            await send(message)

        await inner(scope, receive, send_with_id)

    app.asgi_app = add_request_id  # type: ignore[method-assign]
    async with app.test_app(), open_client(app) as client:
        for target in ("/", "/wizards", "/api/wizards", "/nowhere"):
            lengths.clear()
            for _ in range(4):
                answer = await client.get(target)
                assert answer.headers.get_list("x-request-id") == ["1"]
            assert len(set(lengths)) == 1


PREFIXES = ["", "/api", "/app", "/wizards", "/api/wizards", "/a/b", "/api/", "/a/b/"]


@pytest.mark.parametrize("root_path", PREFIXES)
async def test_answers_are_the_same_under_a_prefix(root_path: str) -> None:
    """Under any prefix appends are stored and shown, and paths outside the prefix get a 404."""
    prefix = root_path.rstrip("/")
    async with fresh_client(root_path=root_path) as client:
        assert (await client.get(f"{prefix}/")).text == GREETING
        assert len((await client.get(f"{prefix}/api/wizards")).json()) == 3
        queries = ("", "?name=Luna", "?name=Luna", "")
        pages = [(await client.get(f"{prefix}/wizards{query}")).text for query in queries]
        assert [len(parse_page(page)) for page in pages] == [3, 4, 5, 5]
        if prefix:
            assert (await client.get(prefix)).text == GREETING
            assert (await client.get(f"{prefix}x/wizards")).status_code == 404
            assert (await client.get("/elsewhere/wizards?name=Eve")).status_code == 404


@pytest.mark.parametrize(
    "missing",
    ["root_path", "scheme", "client", "server", "state", "extensions", "raw_path", "asgi", "query_string"],
)
@pytest.mark.parametrize("extend", [False, True])
async def test_optional_keys_of_a_scope_may_be_missing(missing: str, *, extend: bool) -> None:
    """A scope without a key that the ASGI specification makes optional gets the same answer."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    if extend:
        app.before_request(_do_nothing)

    async def without(scope: Any, receive: Any, send: Any) -> None:
        reduced: Any = {key: value for key, value in scope.items() if key != missing}
        reduced["headers"] = iter(reduced["headers"])  # any iterable will do
        await app(reduced, receive, send)

    async with app.test_app(), open_client(without) as client:
        expected = 4 if missing != "query_string" else 3
        assert len(parse_page((await client.get("/wizards?name=Luna")).text)) == expected
        for target, status in (("/", 200), ("/api/wizards", 200), ("/api//wizards", 308), ("/no", 404)):
            assert (await client.get(target)).status_code == status


# --- Bounds. ---


async def test_caches_are_bounded(app: Quart, client: AsyncClient) -> None:
    """The caches keep a bounded number of routes and answers."""
    for number in range(middleware.MAX_DECISIONS + 10):
        await client.get("/wizards", headers={"If-None-Match": f'"{number}"'})
        await client.get(f"/{number}")
    fast_path: FastPathMiddleware = app.asgi_app  # type: ignore[assignment]
    assert fast_path._decision.cache_info().currsize == middleware.MAX_DECISIONS
    assert len(fast_path._list._answers) <= MAX_ANSWERS + 1


async def test_more_concurrent_ranges_than_entries(client: AsyncClient) -> None:
    """More different concurrent requests than the route cache has room for are all answered."""
    ranges = [{"Range": f"bytes={start}-"} for start in range(2 * middleware.MAX_DECISIONS)]
    answers = await asyncio.gather(*(client.get("/wizards", headers=header) for header in ranges))
    assert {answer.status_code for answer in answers} == {206, 416}


async def test_fixed_answers_need_no_storage(tmp_path: Path) -> None:
    """During an outage `/` and `/api/wizards` answer as usual, and the list answers 503, not 500."""
    app = create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/missing/wizards.db"})
    async with open_client(app) as client:
        for _ in range(2):
            assert (await client.get("/")).text == GREETING
            assert len((await client.get("/api/wizards")).json()) == 3
            for query in ("", "?name=Luna"):
                response = await client.get(f"/wizards{query}")
                assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    await app.extensions["wizards"].roster.close()
