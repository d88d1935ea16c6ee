"""Clients follow the list, over HTTP/1.1 and HTTP/2, through kills and stops."""

import asyncio
import signal
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.clients import fresh_client
from support.events import parse_events
from support.followers import FIRST_EVENTS, HTTP1, HTTP2, follow
from support.servers import Server
from support.stores import read_list
from support.workload import ABORTED, append_until_acknowledged, make_client, send

EVENTS = {"Accept": "text/event-stream"}


async def append(base_url: str, *names: str) -> None:
    async with make_client(HTTP1) as client:
        for name in names:
            assert (await send(client, base_url, name)).status == 200


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, f"sqlite:///{tmp_path}/w.db") as server:
        yield server


@pytest.mark.parametrize("version", [HTTP1, HTTP2])
async def test_stream(server: Server, version: int) -> None:
    """A follower gets the list, then each new name; the head says what a stream needs, and no length."""
    async with follow(server.base_url, version) as follower:
        assert await follower.take(3) == FIRST_EVENTS
        for position, name in enumerate(["Luna", '"},{"name":"', "é\n\n🧙"], 4):
            await append(server.base_url, name)
            assert await follower.take(1) == [(position, name)]
        headers = follower.source.response.headers
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert headers["vary"] == "Accept, Accept-Encoding"
    assert not {"content-length", "etag", "content-encoding"} & {*headers}


@pytest.mark.parametrize("option", ["--http1.1", "--http2-prior-knowledge"])
async def test_curl_and_stop(server: Server, option: str) -> None:
    """In curl each event is shown at once; a stop ends the stream as a complete response, and soon."""
    command = ["curl", "-sN", option, "-H", "Accept: text/event-stream", f"{server.base_url}/wizards"]
    curl = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    assert curl.stdout is not None
    received = b""
    while parse_events(received) != FIRST_EVENTS:
        received += await curl.stdout.readline()
    await append(server.base_url, "Luna")
    while parse_events(received) != [*FIRST_EVENTS, (4, "Luna")]:
        received += await curl.stdout.readline()
    server.send_signal(signal.SIGTERM)
    async with asyncio.timeout(5):
        assert await curl.stdout.read() == b""
        assert await curl.wait() == 0  # 18 is a response that was cut off
    assert await asyncio.to_thread(server.wait) == 0


async def test_name_is_appended_first(server: Server) -> None:
    """With `?name=` the stream holds the name; a stream that is resumed does not append it again."""
    async with follow(server.base_url, query="?name=Luna") as follower:
        assert await follower.take(4) == [*FIRST_EVENTS, (4, "Luna")]
    async with follow(server.base_url, query="?name=Luna", last_id="4") as follower:
        await append(server.base_url, "Ginny")
        assert await follower.take(1) == [(5, "Ginny")]


@pytest.mark.parametrize(
    ("query", "headers", "status", "words"),
    [
        ("", {"Last-Event-ID": "4"}, 400, "Last-Event-ID is 4, but the list has 3 wizards."),
        ("", {"Last-Event-ID": "9" * 20}, 400, "but the list has 3 wizards."),
        ("", {"Last-Event-ID": "9" * 5000}, 400, "Last-Event-ID is no number"),
        ("", {"Last-Event-ID": "-1"}, 400, "Last-Event-ID is no number"),
        ("", {"Last-Event-ID": "\xb2"}, 400, "Last-Event-ID is no number"),
        ("?name=" + "a" * 256, {}, 400, "The name has 256 characters"),
        ("?name=Luna", {"Sec-Fetch-Site": "cross-site"}, 403, "A page of another site"),
    ],
)
async def test_refusals(query: str, headers: dict[str, str], status: int, words: str) -> None:
    """A stream that cannot begin is refused with its reason."""
    async with fresh_client() as client:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in {**EVENTS, **headers}.items()]
        response = await client.get(f"/wizards{query}", headers=raw)
        assert response.status_code == status
        assert words in response.text
        assert len((await client.get("/wizards", headers={"Accept": "application/json"})).json()) == 3


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/event-stream", "text/event-stream"),
        ("text/html;q=0.9, text/event-stream", "text/event-stream"),
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("*/*", "text/html; charset=utf-8"),
        ("text/*", "text/html; charset=utf-8"),
        ("text/event-stream, text/html", "text/html; charset=utf-8"),
        ("text/event-stream, application/json", "application/json"),
        ("text/event-stream;q=0, */*", "text/html; charset=utf-8"),
    ],
)
async def test_negotiation(accept: str, media_type: str) -> None:
    """Only a client that prefers events to HTML and JSON gets them; HEAD gets the head alone."""
    async with fresh_client() as client:
        response = await client.head("/wizards", headers={"Accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (200, media_type)
        assert response.content == b""


@pytest.mark.parametrize("version", [HTTP1, HTTP2])
async def test_two_servers(url: str, tmp_path: Path, version: int) -> None:
    """Followers of two servers with one database get every append of both, in one order."""
    with Server(tmp_path, url) as one, Server(tmp_path, url) as two:
        async with follow(one.base_url, version) as of_one, follow(two.base_url, version) as of_two:
            for turn, server in enumerate([one, two, one, two]):
                await append(server.base_url, f"turn.{turn}")
                for follower, begun in ((of_one, turn), (of_two, turn)):
                    expected = [(4 + turn, f"turn.{turn}")]
                    assert await follower.take(1 if begun else 4) == (
                        expected if begun else FIRST_EVENTS + expected
                    )
            names = [[f"{server.port}.{number}" for number in range(20)] for server in (one, two)]
            await asyncio.gather(append(one.base_url, *names[0]), append(two.base_url, *names[1]))
            taken = await of_one.take(40)
            assert taken == await of_two.take(40)
    assert [name for _, name in taken] == (await read_list(url))[7:]


async def test_killed_servers(url: str, tmp_path: Path) -> None:
    """A follower that resumes after each kill -9 misses no name and gets none twice."""
    got: list[tuple[int, str]] = []
    is_over = asyncio.Event()

    async def follow_for_ever(base_url: str) -> None:
        while not is_over.is_set():
            try:
                async with follow(base_url, HTTP1, last_id=str(len(got) or "")) as follower:
                    async for event in follower.events:
                        got.append(event)  # noqa: PERF401  # the rest may never come
            except ABORTED:
                pass

    with Server(tmp_path, url) as server:
        following = asyncio.create_task(follow_for_ever(server.base_url))
        for kill in range(4):
            async with make_client(HTTP1) as client:
                appends = [
                    asyncio.create_task(send(client, server.base_url, f"{kill}.{n}")) for n in range(30)
                ]
                await asyncio.wait(appends, return_when=asyncio.FIRST_COMPLETED)
                server.kill()
                server.start()
                await asyncio.gather(*appends)
        await append_until_acknowledged(server, "last")
        names = await read_list(url)
        while len(got) < len(names):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        is_over.set()
        assert server.stop() == 0
        await following
    assert got == list(enumerate(names, 1))
