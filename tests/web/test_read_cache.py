"""The read cache answers repeated requests without Quart and never with a stale answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from httpx import AsyncClient
from hypothesis import given, settings
from hypothesis import strategies as st
from quart import Quart, request_started

from support.clients import open_client
from support.pages import GREETING
from support.stores import make_store
from wizards import create_app, read_cache
from wizards.front import Front
from wizards.roster import Roster


class QuartRequests:
    """Counts the requests that reach Quart."""

    def __init__(self, app: Quart) -> None:
        self.count = 0
        self.first = asyncio.Event()
        request_started.connect(self._add, app)

    async def _add(self, _: object) -> None:
        self.count += 1
        self.first.set()


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Quart]:
    app = create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/wizards.db"})
    async with app.test_app():
        yield app


@pytest.fixture
async def client(app: Quart) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


@pytest.mark.parametrize("target", ["/", "/?x=1", "/api/wizards", "/wizards", "/wizards?x=1", "/wizards?"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_cached_answer_bypasses_quart(
    app: Quart, client: AsyncClient, method: str, target: str
) -> None:
    """The second answer equals the first, and only the first request reaches Quart."""
    seen = QuartRequests(app)
    first = await client.request(method, target)
    again = await client.request(method, target)
    assert seen.count == 1
    assert (again.status_code, again.headers, again.content) == (200, first.headers, first.content)


async def test_concurrent_requests_reach_quart_once(app: Quart, client: AsyncClient) -> None:
    """One answer of Quart serves all concurrent equal requests, also after a batch of appends."""
    seen = QuartRequests(app)
    await asyncio.gather(*(client.get("/wizards") for _ in range(50)))
    assert seen.count == 1
    pages = await asyncio.gather(*(client.get(f"/wizards?name=w{number}") for number in range(50)))
    assert seen.count == 1 + len({page.headers["ETag"] for page in pages}) < 50
    assert all(f"w{number} is a wizard" in page.text for number, page in enumerate(pages))


async def test_cancelled_request_still_fills_the_cache(app: Quart, client: AsyncClient) -> None:
    """The answer to a request that was cancelled serves the next client."""
    seen = QuartRequests(app)
    cancelled = asyncio.create_task(client.get("/wizards"))
    await seen.first.wait()
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert (await client.get("/wizards")).status_code == 200
    assert seen.count == 1


async def test_304_is_cached(app: Quart, client: AsyncClient) -> None:
    """Only the first of several equal conditional requests reaches Quart."""
    headers = {"If-None-Match": (await client.get("/wizards")).headers["ETag"]}
    seen = QuartRequests(app)
    assert [(await client.get("/wizards", headers=headers)).status_code for _ in range(3)] == [304] * 3
    assert seen.count == 1


@pytest.mark.parametrize("append", ["name=Luna", "n%61me=Luna", "x=1&name=Luna", "name=Luna&name="])
async def test_append_is_never_cached(client: AsyncClient, append: str) -> None:
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
        await other.exchange([name], 0, 100)
        assert name in (await client.get("/wizards")).text
    await other.close()


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
async def test_answers_as_without_cache(requests: list[tuple[str, str, dict[str, str]]]) -> None:
    """In any sequence of requests every answer equals that of Quart without the cache."""
    cached, plain = (create_app({"DATABASE_URL": "sqlite://"}) for _ in range(2))
    plain.asgi_app = plain.asgi_app._app  # type: ignore[method-assign,attr-defined]
    async with cached.test_app(), plain.test_app(), open_client(cached) as one, open_client(plain) as other:
        etag = '"none"'
        for method, target, drawn in requests:
            headers = {key: value.replace("ETAG", etag) for key, value in drawn.items()}
            first, second = [await client.request(method, target, headers=headers) for client in (one, other)]
            assert (first.status_code, first.content) == (second.status_code, second.content)
            assert first.headers == second.headers
            assert first.status_code < 500
            etag = first.headers.get("ETag", etag)


async def test_cache_is_bounded(app: Quart, client: AsyncClient) -> None:
    """The cache keeps a bounded number of answers to different requests."""
    for number in range(read_cache.MOST_KEPT + 10):
        await client.get(f"/?{number}")
        await client.get(f"/wizards?{number}")
    front: Front = app.asgi_app  # type: ignore[assignment]
    for cache in (front._fixed, front._list):
        assert len(cache._answers) == read_cache.MOST_KEPT


async def test_more_concurrent_requests_than_seen(client: AsyncClient) -> None:
    """More different concurrent requests than the cache has room for are all answered."""
    ranges = [{"Range": f"bytes={start}-"} for start in range(2 * read_cache.MOST_KEPT)]
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
    roster: Roster = app.extensions["roster"]
    await roster.close()
