"""The roster without a database: batches, failures and cancellations, one step at a time."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from support.pages import parse_page
from wizards.core.rendering import Snapshot
from wizards.core.roster import Roster, RosterBusyError, RosterFullError, RosterUnavailableError
from wizards.storage.base import FIRST_WIZARDS, Store


class SteppedStore(Store):
    """A list in memory whose exchanges start at once but end only when the test allows it."""

    def __init__(self) -> None:
        self.names = list(FIRST_WIZARDS)
        self.exchanges: list[list[str]] = []
        self.running = 0
        self.is_open = False
        self.failure: Exception | None = None
        self.commits_before_failure = False
        self.knows_length = False
        self._started = asyncio.Semaphore(0)
        self._allowed = asyncio.Semaphore(0)

    async def open(self) -> None:
        self.is_open = True

    async def read(self, after: int) -> list[str]:
        return self.names[after : after + 2]

    async def exchange(self, names: Sequence[str], after: int, limit: int) -> tuple[list[str], int]:
        assert self.is_open
        assert self.running == 0, "two exchanges at once"
        self.running += 1
        try:
            return await self._exchange(list(names), after, limit)
        finally:
            self.running -= 1

    async def _exchange(self, names: list[str], after: int, limit: int) -> tuple[list[str], int]:
        self.exchanges.append(names)
        self._started.release()
        await self._allowed.acquire()
        if self.failure and not self.commits_before_failure:
            raise self.failure
        fitting = names[: max(0, limit - len(self.names))]
        self.names += fitting
        if self.failure:
            raise self.failure
        return self.names[after:], len(fitting)

    def length(self) -> int | None:
        return len(self.names) if self.knows_length else None

    async def close(self) -> None:
        assert self.running == 0
        self.is_open = False

    async def _run(self, *_: object, **__: object) -> None:  # type: ignore[override]
        raise NotImplementedError

    async def wait_for_exchange(self) -> None:
        """Wait until one more exchange has started."""
        await self._started.acquire()

    def allow(self, exchanges: int = 1) -> None:
        """Let this many exchanges end."""
        for _ in range(exchanges):
            self._allowed.release()


@pytest.fixture
async def store() -> SteppedStore:
    return SteppedStore()


@pytest.fixture
async def roster(store: SteppedStore) -> Roster:
    return Roster(store, max_wizards=100, max_waiting=20)


def start_appends(roster: Roster, *names: str) -> list[asyncio.Task[Snapshot]]:
    return [asyncio.create_task(roster.append(name)) for name in names]


def names_in(snapshot: Snapshot) -> list[str]:
    page = b"".join(snapshot.html.plain.slices(0, snapshot.html.plain.size)).decode()
    return parse_page(page)


async def test_batch_fills_while_another_commits(store: SteppedStore, roster: Roster) -> None:
    """All requests that arrive during one commit share the next commit and one snapshot."""
    (first,) = start_appends(roster, "Luna")
    await store.wait_for_exchange()
    others = start_appends(roster, "Ginny", "Neville", "Cho")
    read = asyncio.create_task(roster.read())
    store.allow(2)
    snapshots = await asyncio.gather(first, *others, read)
    assert store.exchanges == [["Luna"], ["Ginny", "Neville", "Cho"]]
    assert names_in(snapshots[0]) == [*FIRST_WIZARDS, "Luna"]
    assert names_in(snapshots[1]) == [*FIRST_WIZARDS, "Luna", "Ginny", "Neville", "Cho"]
    assert all(snapshot is snapshots[1] for snapshot in snapshots[1:])


async def test_reads_share_one_exchange(store: SteppedStore, roster: Roster) -> None:
    """Any number of concurrent reads cost the store one exchange."""
    reads = [asyncio.create_task(roster.read()) for _ in range(15)]
    store.allow()
    await asyncio.gather(*reads)
    assert store.exchanges == [[]]


async def test_read_of_an_unchanged_list_makes_no_exchange(store: SteppedStore, roster: Roster) -> None:
    """If the store knows its length, a read makes an exchange only if the list has grown."""
    store.allow(2)
    before = await roster.open()
    store.knows_length = True
    assert await roster.read() is before
    store.names.append("written elsewhere")
    assert names_in(await roster.read())[-1] == "written elsewhere"
    assert len(store.exchanges) == 2


async def test_failed_batch_fails_alone(
    store: SteppedStore, roster: Roster, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed exchange fails its own batch only; an outage is logged once, and so is its end."""
    caplog.set_level(logging.INFO)
    store.failure = OSError("no route\nto host")
    for name in ("Luna", "Ginny"):
        failing = start_appends(roster, name, f"{name} too")
        store.allow()
        errors = await asyncio.gather(*failing, return_exceptions=True)
        assert [type(error) for error in errors] == [RosterUnavailableError] * 2
    store.failure = None
    store.allow()
    assert names_in(await roster.append("Cho")) == [*FIRST_WIZARDS, "Cho"]
    assert [record.getMessage() for record in caplog.records] == [
        "The storage is out of reach; answering 503. no route",
        "The storage is back; wizards: 4.",
    ]


async def test_commit_whose_result_was_lost(store: SteppedStore, roster: Roster) -> None:
    """A name that was committed although its append failed is in the next snapshot once, in order."""
    store.failure, store.commits_before_failure = ConnectionError("cut"), True
    store.allow()
    with pytest.raises(RosterUnavailableError):
        await roster.append("Luna")
    store.failure = None
    store.allow()
    assert names_in(await roster.append("Ginny")) == [*FIRST_WIZARDS, "Luna", "Ginny"]


@pytest.mark.parametrize("cancelled", [0, 1], ids=["first", "second"])
async def test_cancelled_request_leaves_its_batch_unchanged(
    store: SteppedStore, roster: Roster, cancelled: int
) -> None:
    """If a request is cancelled, its name is still appended and the rest of the batch gets its snapshot."""
    tasks = start_appends(roster, "Luna", "Ginny")
    await store.wait_for_exchange()
    tasks[cancelled].cancel()
    store.allow()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[cancelled], asyncio.CancelledError)
    other = done[1 - cancelled]
    assert isinstance(other, Snapshot)
    assert names_in(other) == [*FIRST_WIZARDS, "Luna", "Ginny"]


async def test_failed_batch_without_waiters(store: SteppedStore, roster: Roster) -> None:
    """A failure whose requests are all cancelled is not an unhandled error, and the next batch works."""
    tasks = start_appends(roster, "Luna", "Ginny")
    await store.wait_for_exchange()
    for task in tasks:
        task.cancel()
    store.failure = OSError("gone")
    store.allow()
    await asyncio.gather(*tasks, *roster._tasks, return_exceptions=True)
    store.failure = None
    store.allow()
    assert names_in(await roster.append("Cho")) == [*FIRST_WIZARDS, "Cho"]


async def test_close_commits_accepted_batches(store: SteppedStore, roster: Roster) -> None:
    """`close` commits the running batch and the next one before it closes the store."""
    (first,) = start_appends(roster, "Luna")
    await store.wait_for_exchange()
    (second,) = start_appends(roster, "Ginny")
    closing = asyncio.create_task(roster.close())
    store.allow()
    await first
    assert not closing.done()
    store.allow()
    assert names_in(await second) == [*FIRST_WIZARDS, "Luna", "Ginny"]
    await closing
    assert not store.is_open


async def test_waiting_is_bounded(store: SteppedStore, roster: Roster) -> None:
    """Requests beyond the bound are rejected at once; waiting requests are served in order."""
    (first,) = start_appends(roster, "first")
    await store.wait_for_exchange()
    names = [f"w{number}" for number in range(25)]
    waiting = start_appends(roster, *names)
    rejected = await asyncio.gather(*waiting[20:], return_exceptions=True)
    assert {type(error) for error in rejected} == {RosterBusyError}
    store.allow(2)
    await asyncio.gather(first, *waiting[:20])
    assert store.names[4:] == names[:20]


async def test_bound_counts_cancelled_requests(store: SteppedStore, roster: Roster) -> None:
    """Cancelled appends count, so that clients that disconnect cannot pile up names during a slow commit."""
    (first,) = start_appends(roster, "first")
    await store.wait_for_exchange()
    cancelled = start_appends(roster, *(f"w{number}" for number in range(20)))
    await asyncio.sleep(0)  # after one iteration of the loop all of them have joined the batch
    for task in cancelled:
        task.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
    with pytest.raises(RosterBusyError):
        await roster.append("one too many")
    store.allow(2)
    await first
    await roster.close()


async def test_full_list(store: SteppedStore) -> None:
    """If a batch does not fit, its first names are appended and the others rejected."""
    roster = Roster(store, max_wizards=5, max_waiting=20)
    tasks = start_appends(roster, "Luna", "Ginny", "Cho")
    store.allow()
    luna, ginny, cho = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(luna, Snapshot)
    assert luna is ginny
    assert isinstance(cho, RosterFullError)
    assert store.names == [*FIRST_WIZARDS, "Luna", "Ginny"]


async def test_exchanges_exclude_each_other(store: SteppedStore) -> None:
    """Of 500 concurrent appends none is lost or doubled, and no two exchanges overlap."""
    roster = Roster(store, max_wizards=1_000, max_waiting=1_000)
    store.allow(1_000)
    names = [f"w{number}" for number in range(500)]
    snapshots = await asyncio.gather(*start_appends(roster, *names))
    assert store.names[3:] == names
    for name, snapshot in zip(names, snapshots, strict=True):
        assert name in names_in(snapshot)
        assert names_in(snapshot) == store.names[: snapshot.length]
