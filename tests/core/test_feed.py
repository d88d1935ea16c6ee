"""The feed without a server: what followers are sent, when, and what they cost."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.events import parse_events, take_events
from support.stores import make_store
from wizards.core import feed, rendering
from wizards.core.feed import COMMENT, Feed
from wizards.core.rendering import RenderedList
from wizards.core.roster import Roster
from wizards.storage.base import FIRST_WIZARDS, HistoryLostError, Row
from wizards.storage.sqlite import SQLiteStore

FIRST_EVENTS = list(enumerate(FIRST_WIZARDS, 1))


class FailingStore(SQLiteStore):
    """A list in memory that has to be asked for what is new, and may fail."""

    def __init__(self) -> None:
        super().__init__("")
        self.failure: Exception | None = None
        self.reads = 0

    async def read(self, after: Row) -> list[Row]:
        self.reads += 1
        if self.failure:
            raise self.failure
        return await super().read(after)

    def is_current(self, last: Row) -> bool:  # noqa: ARG002
        return False


class App:
    """A roster with its feed, and a switch that ends the streams."""

    def __init__(self, store: SQLiteStore) -> None:
        self.roster = Roster(store, max_wizards=100_000, max_waiting=10_000)
        self.feed = Feed(self.roster, poll_seconds=0, must_end=lambda: self.is_stopping)
        self.is_stopping = False

    async def append(self, *names: str) -> None:
        await asyncio.gather(*map(self.roster.append, names))


@asynccontextmanager
async def run_app(store: SQLiteStore | None = None) -> AsyncIterator[App]:
    app = App(store or SQLiteStore(""))
    async with asyncio.timeout(30):
        await app.roster.open()
        yield app
        await app.roster.close()


@asynccontextmanager
async def followers(app: App, count: int, position: int = 3) -> AsyncIterator[list[AsyncGenerator[bytes]]]:
    """Yield the streams of followers that have got their first comment."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(app.feed.follow(position))) for _ in range(count)]
        assert [await anext(stream) for stream in streams] == [COMMENT] * count
        yield streams


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "STOP_POLL_SECONDS", 0.001)
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 3600)


def events_in(rendered: RenderedList, position: int = 0) -> bytes:
    while rendered.events.extend(rendered.snapshot.json.plain):
        pass
    begin = rendered.events.end(position)
    taken = b""
    while piece := rendered.events.piece(begin + len(taken)):
        taken += piece
    return taken


LOOKALIKES = ['"', "\\", '{"name":', '"},{"name":"', "},{", ",", "]\n", "\n\n", "id: 7\n\ndata: ", "\0", "🧙"]
NAMES = st.lists(st.sampled_from(LOOKALIKES) | st.text(), max_size=4).map("".join)


@given(st.lists(st.lists(NAMES, max_size=20), max_size=5), st.integers(300, 2000))
@example([LOOKALIKES, LOOKALIKES, ["a" * 299] * 20], 300)
def test_each_name_is_an_event(batches: list[list[str]], step: int) -> None:
    """Any names, rendered in any batches and steps, are one event each; each position begins its own."""
    longest = max((len(name) for batch in batches for name in batch), default=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "RENDER_CHUNK_SIZE", max(step, 12 * longest + 20))
        patch.setattr(rendering, "FOLLOWER_CHUNK_SIZE", step)
        rendered, names = RenderedList(), []
        for number, batch in enumerate(batches):
            rendered.extend(batch)
            names += batch
            if number % 2:  # not after each batch, as the list grows before somebody follows it
                assert parse_events(events_in(rendered)) == list(enumerate(names, 1))
        for position in range(len(names) + 1):
            assert parse_events(events_in(rendered, position)) == list(enumerate(names, 1))[position:]


def test_unfollowed_list_keeps_no_events() -> None:
    """A list that was never followed holds no byte of an event."""
    rendered = RenderedList()
    rendered.extend(["Luna"] * 100_000)
    assert rendered.events.piece(0) == b""
    assert len(events_in(rendered)) > 3_000_000


async def test_follows_own_appends() -> None:
    """A follower gets the names behind its position, and then each batch in one piece."""
    async with run_app() as app, aclosing(app.feed.follow(1)) as stream:
        assert await anext(stream) == COMMENT
        assert parse_events(await anext(stream)) == FIRST_EVENTS[1:]
        await app.append("Luna", "Ginny")
        assert parse_events(await anext(stream)) == [(4, "Luna"), (5, "Ginny")]


async def test_follows_other_processes(tmp_path: Path) -> None:
    """A follower gets what another process appends, without a request of its own process."""
    url = f"sqlite:///{tmp_path}/w.db"
    one, two = make_store(url), make_store(url)
    assert isinstance(one, SQLiteStore)
    assert isinstance(two, SQLiteStore)
    async with run_app(one) as reader, run_app(two) as writer, followers(reader, 1) as [stream]:
        for position in range(4, 10):
            await writer.append(f"name-{position}")
            assert await take_events(stream, 1) == [(position, f"name-{position}")]


async def test_followers_share_one_task() -> None:
    """A thousand followers wait without a task, timer or read for each of them; all get each name."""
    store = FailingStore()
    async with run_app(store) as app, followers(app, 1000) as streams:
        rounds = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
        store.reads = 0
        await app.append("Luna")
        assert {await each for each in rounds} == {b'id: 4\ndata: {"name":"Luna"}\n\n'}
        assert app.feed.followers == 1000
        assert store.reads < 100
        ours = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(ours) <= 2  # the watcher, and the roster's exchange for it


async def test_watcher_ends_with_the_last_follower() -> None:
    """When the last follower has left, the process looks for news no more; a new one starts it again."""
    async with run_app() as app:
        for _ in range(2):
            async with followers(app, 2):
                watcher = app.feed._watcher
                assert watcher is not None
                assert not watcher.done()
            await watcher
            assert app.feed.followers == 0


async def test_cancelled_follower() -> None:
    """A follower that leaves while it waits disturbs no other."""
    async with run_app() as app, followers(app, 3) as streams:
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await app.append("Luna")
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(each, bytes) for each in found] == [True, False, True]
        assert app.feed.followers == 2


async def test_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without news each follower is sent a comment when the heartbeat is due."""
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.01)
    async with run_app() as app, followers(app, 2) as streams:
        for _ in range(3):
            assert [await anext(stream) for stream in streams] == [COMMENT] * 2


async def test_others_have_their_turn() -> None:
    """Between the wake-ups of WAKE_BATCH_SIZE followers the event loop does other work."""
    count = 10 * feed.WAKE_BATCH_SIZE
    async with run_app() as app, followers(app, count) as streams:
        got = 0
        seen = []

        async def receive(stream: AsyncGenerator[bytes]) -> None:
            nonlocal got
            await anext(stream)
            got += 1

        tasks = [asyncio.create_task(receive(stream)) for stream in streams]
        await app.append("Luna")
        while got < count:
            seen.append(got)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        steps = [after - before for before, after in zip(seen, [*seen[1:], got], strict=True)]
        assert max(steps) == feed.WAKE_BATCH_SIZE


async def test_stop_ends_streams() -> None:
    """When the server stops, waiting followers and those with much to read end at once."""
    async with run_app() as app:
        await app.append(*["Luna" * 60] * 5000)
        async with followers(app, 1) as [busy], followers(app, 1, position=5003) as [waiting]:
            await anext(busy)  # the first of many pieces
            end = asyncio.ensure_future(anext(waiting, b"the end"))
            app.is_stopping = True
            assert [part async for part in busy] == []
            assert {await end, await anext(waiting, b"the end")} <= {COMMENT, b"the end"}


async def test_outage_and_lost_history(caplog: pytest.LogCaptureFixture) -> None:
    """Streams outlast an outage of the storage, and end when the database has lost history."""
    caplog.set_level(logging.CRITICAL)
    store = FailingStore()
    async with run_app(store) as app, followers(app, 1) as [stream]:
        store.failure = OSError("gone")
        while store.reads < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        store.failure = None
        await app.append("Luna")
        assert await take_events(stream, 1) == [(4, "Luna")]
        store.failure = HistoryLostError("row 4 is gone")
        assert {part async for part in stream} <= {COMMENT}


def test_new_loop() -> None:
    """An app that was stopped with followers serves new ones on another event loop."""
    app = App(SQLiteStore(""))

    async def run() -> list[tuple[int, str]]:
        await app.roster.open()
        stream = app.feed.follow(0)
        events = await take_events(stream, 3)
        await app.roster.close()
        return events

    for _ in range(2):
        assert asyncio.run(run()) == FIRST_EVENTS
