"""The fast path: it answers as Quart does, and stands aside for what is hung on the app."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient
from hypothesis import given, settings
from hypothesis import strategies as st
from quart import Blueprint, Quart, Response, abort, jsonify, request, request_finished, request_started
from quart.sessions import SecureCookieSessionInterface
from werkzeug.datastructures import Headers
from werkzeug.sansio.request import Request as WerkzeugRequest

from support.clients import fresh_client, open_client
from support.pages import GREETING, parse_page
from support.stores import make_store
from wizards import create_app
from wizards.core.roster import RosterBusyError
from wizards.web import middleware
from wizards.web.middleware import FastPathMiddleware
from wizards.web.shared_list import MAX_ANSWERS, ListRequest, name_in


class Dispatches:
    """Counts the requests that enter Quart, without a trace on the app."""

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


@pytest.mark.parametrize("target", ["/wizards", "/wizards?x=1", "/wizards?name=Luna", "/wizards?n%61me=L&x"])
@pytest.mark.parametrize(
    "headers", [{}, {"Range": "bytes=0-4"}, {"If-None-Match": "*"}, {"Accept": "application/json"}]
)
async def test_list_never_enters_quart(
    app: Quart, client: AsyncClient, headers: dict[str, str], target: str
) -> None:
    """Each read and append of the list is answered without Quart's dispatch."""
    dispatches = Dispatches(app)
    for method in ("GET", "HEAD"):
        assert (await client.request(method, target, headers=headers)).status_code in (200, 206, 304)
    assert dispatches.count == 0


@pytest.mark.parametrize("target", ["/", "/?x=1", "/api/wizards"])
async def test_fixed_answer_enters_quart_once(app: Quart, client: AsyncClient, target: str) -> None:
    """The second answer is the first one, and Quart has dispatched one request."""
    dispatches = Dispatches(app)
    first = await client.get(target)
    again = await client.get(target)
    assert dispatches.count == 1
    assert (again.status_code, again.headers, again.content) == (200, first.headers, first.content)


@pytest.mark.parametrize("append", ["name=Luna", "n%61me=Luna", "x=1&name=Luna", "name=Luna&name="])
async def test_each_append_appends(client: AsyncClient, append: str) -> None:
    """However the key is written, each append appends."""
    for times in (1, 2):
        page = (await client.get(f"/wizards?{append}")).text
        assert page.count("Luna") == times


async def test_shows_what_other_processes_append(tmp_path: Path, client: AsyncClient) -> None:
    """A name that another process has committed is in the very next answer."""
    await client.get("/wizards")
    other = make_store(f"sqlite:///{tmp_path}/wizards.db")
    await other.open()
    for name in ("Luna", "Ginny"):
        await other.exchange([name], 0, 100)
        assert name in (await client.get("/wizards")).text
    await other.close()


async def _do_nothing() -> None:
    """Be hung on an app, so that Quart handles every request."""


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
async def test_answers_as_without_it(requests: list[tuple[str, str, dict[str, str]]]) -> None:
    """In any sequence of requests, each answer is the one that Quart gives without the fast path."""
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
    """The name of a query is the one that Werkzeug's `request.args` has."""
    werkzeug = WerkzeugRequest("GET", "http", None, "", "/", query, Headers(), None)
    try:
        expected = werkzeug.args.get("name")
    except UnicodeDecodeError:  # Werkzeug fails where we escape
        return
    assert name_in(query) == expected


class RecordingHeaders(Headers):
    """Headers that record which of them are asked for."""

    asked: set[str] = set()  # noqa: RUF012

    def _get_key(self, key: str) -> str:
        self.asked.add(key.lower())
        return super()._get_key(key)


async def test_each_header_that_counts_is_in_the_key() -> None:
    """The headers that a request for the list is parsed from are those that tell routes apart."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    async with app.test_request_context("/wizards", headers={"Sec-Fetch-Mode": "navigate"}):
        request.headers.__class__ = RecordingHeaders
        ListRequest.parse(request)
    assert {b"accept", b"sec-purpose", b"range"} <= {key.encode() for key in RecordingHeaders.asked}
    assert {key.encode() for key in RecordingHeaders.asked} <= middleware.ROUTE_HEADERS


# --- What is hung on the app counts for each request. ---


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


@pytest.mark.parametrize("hang", [_guard, _blueprint_guard, _signal_guard, _view_guard])
async def test_guard_that_is_hung_on_the_app_holds(
    app: Quart, client: AsyncClient, hang: Callable[[Quart], None]
) -> None:
    """Without a token each route answers 401 and nothing is appended, whatever was answered before."""
    for target in ("/", "/wizards", "/api/wizards"):
        assert (await client.get(target)).status_code == 200
    hang(app)
    for target in ("/", "/wizards", "/api/wizards", "/wizards?name=Eve"):
        assert (await client.get(target, headers={"Token": "x"})).status_code == 200
        assert (await client.get(target)).status_code == 401
    page = await client.get("/wizards", headers={"Token": "x"})
    assert parse_page(page.text)[3:] == ["Eve"]


async def test_limiter_stores_nothing_that_it_refuses(app: Quart, client: AsyncClient) -> None:
    """An append that a rate limiter answers 429 is not stored."""
    left = [1]

    @app.before_request
    async def limit() -> tuple[str, int] | None:
        left[0] -= 1
        return ("slow down", 429) if left[0] < 0 else None

    assert [(await client.get(f"/wizards?name={name}")).status_code for name in "ABC"] == [200, 429, 429]
    left[0] = 1
    assert parse_page((await client.get("/wizards")).text)[3:] == ["A"]


async def test_after_request_hook_sees_each_request(app: Quart, client: AsyncClient) -> None:
    """A header that an extension sets is made for each response anew; ours do not overwrite it."""
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


async def test_receivers_of_another_app_change_nothing(app: Quart, client: AsyncClient) -> None:
    """A receiver that listens to another app alone leaves this one its fast path."""
    request_started.connect(_do_nothing, create_app({"DATABASE_URL": "sqlite://"}), weak=False)
    dispatches = Dispatches(app)
    await client.get("/wizards")
    assert dispatches.count == 0


async def test_further_blueprint_reads_bodies(app: Quart, client: AsyncClient) -> None:
    """A route that a user adds gets its request body; ours answer as before and drain theirs."""
    assert (await client.post("/echo", content=b"x")).status_code == 404
    further = Blueprint("further", __name__)

    @further.post("/echo")
    async def echo() -> Response:
        return jsonify((await request.get_data(as_text=True))[:9])

    app.register_blueprint(further)
    assert (await client.post("/echo", content=b"Expelliarmus")).json() == "Expelliar"
    assert (await client.request("GET", "/wizards?name=Luna", content=b"x" * 99)).text.count("Luna") == 1


async def test_error_handlers_of_the_app_apply(app: Quart, client: AsyncClient) -> None:
    """A handler that a user registers for an error of the list answers for it."""

    @app.errorhandler(403)
    async def forbidden(_: Exception) -> tuple[str, int]:
        return "mine", 403

    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert (await client.get("/wizards?name=Eve", headers=foreign)).text == "mine"


async def test_errors_are_the_same_with_and_without_hooks(app: Quart, client: AsyncClient) -> None:
    """An error of the list has the same status, headers and body on the fast path and from Quart."""
    shared_list = app.extensions["wizards"]

    async def fail(*_: object) -> None:
        raise RosterBusyError

    shared_list.roster.append = fail
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


# --- What a middleware around the app may do. ---


async def test_messages_are_the_receivers_own() -> None:
    """A middleware that appends to the headers of each response does not change those of the next."""
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
    """Under any prefix appends are stored and shown, and what lies outside of it is not there."""
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
    """What the ASGI specification lets a server leave out changes no answer."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    if extend:
        app.before_request(_do_nothing)

    async def without(scope: Any, receive: Any, send: Any) -> None:
        reduced = {key: value for key, value in scope.items() if key != missing}
        reduced["headers"] = iter(reduced["headers"])  # any iterable will do
        await app(reduced, receive, send)  # type: ignore[arg-type]

    async with app.test_app(), open_client(without) as client:
        expected = 4 if missing != "query_string" else 3
        assert len(parse_page((await client.get("/wizards?name=Luna")).text)) == expected
        for target, status in (("/", 200), ("/api/wizards", 200), ("/api//wizards", 308), ("/no", 404)):
            assert (await client.get(target)).status_code == status


# --- Bounds. ---


async def test_caches_are_bounded(app: Quart, client: AsyncClient) -> None:
    """However many different requests come, only so many routes and answers are kept."""
    for number in range(middleware.MAX_ROUTES + 10):
        await client.get("/wizards", headers={"If-None-Match": f'"{number}"'})
        await client.get(f"/{number}")
    fast_path: FastPathMiddleware = app.asgi_app  # type: ignore[assignment]
    assert len(fast_path._routes) == middleware.MAX_ROUTES
    assert len(fast_path._list._answers) <= MAX_ANSWERS + 1


async def test_different_parts_at_once(client: AsyncClient) -> None:
    """More different parts at once than routes are kept: each is answered."""
    parts = [{"Range": f"bytes={begin}-"} for begin in range(2 * middleware.MAX_ROUTES)]
    answers = await asyncio.gather(*(client.get("/wizards", headers=part) for part in parts))
    assert {answer.status_code for answer in answers} == {206, 416}


async def test_fixed_answers_need_no_storage(tmp_path: Path) -> None:
    """`/` and `/api/wizards` answer while the storage is out of reach; the list says 503, not 500."""
    app = create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/missing/wizards.db"})
    async with open_client(app) as client:
        for _ in range(2):
            assert (await client.get("/")).text == GREETING
            assert len((await client.get("/api/wizards")).json()) == 3
            for query in ("", "?name=Luna"):
                response = await client.get(f"/wizards{query}")
                assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    await app.extensions["wizards"].roster.close()
