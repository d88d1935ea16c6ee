"""The roster as a plain object: batches, failures and cancellations, one step at a time."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from support.clients import names_shown
from wizards.core.rendering import Snapshot
from wizards.core.roster import Roster, RosterBusyError, RosterFullError, RosterUnavailableError
from wizards.storage.base import FIRST_WIZARDS, Store


class SteppedStore(Store):
    """A list in memory whose exchanges begin at once, but end only when the test lets them."""

    def __init__(self) -> None:
        self.names = list(FIRST_WIZARDS)
        self.exchanges: list[list[str]] = []
        self.under_way = 0
        self.is_open = False
        self.failure: Exception | None = None
        self.loses_answers = False
        self.knows_length = False
        self._begun = asyncio.Semaphore(0)
        self._let = asyncio.Semaphore(0)

    async def open(self) -> None:
        self.is_open = True

    async def read(self, after: int) -> list[str]:
        return self.names[after : after + 2]

    async def exchange(self, names: Sequence[str], after: int, limit: int) -> tuple[list[str], int]:
        assert self.is_open
        assert self.under_way == 0, "two exchanges at once"
        self.under_way += 1
        try:
            return await self._exchange(list(names), after, limit)
        finally:
            self.under_way -= 1

    async def _exchange(self, names: list[str], after: int, limit: int) -> tuple[list[str], int]:
        self.exchanges.append(names)
        self._begun.release()
        await self._let.acquire()
        if self.failure and not self.loses_answers:
            raise self.failure
        fitting = names[: max(0, limit - len(self.names))]
        self.names += fitting
        if self.failure:
            raise self.failure
        return self.names[after:], len(fitting)

    def length(self) -> int | None:
        return len(self.names) if self.knows_length else None

    async def close(self) -> None:
        assert self.under_way == 0
        self.is_open = False

    async def _run(self, *_: object, **__: object) -> None:  # type: ignore[override]
        raise NotImplementedError

    async def begun(self) -> None:
        """Wait until one more exchange has begun."""
        await self._begun.acquire()

    def let(self, exchanges: int = 1) -> None:
        """Let so many exchanges end."""
        for _ in range(exchanges):
            self._let.release()


@pytest.fixture
async def store() -> SteppedStore:
    return SteppedStore()


@pytest.fixture
async def roster(store: SteppedStore) -> Roster:
    return Roster(store, max_wizards=100, max_waiting=20)


def append(roster: Roster, *names: str) -> list[asyncio.Task[Snapshot]]:
    return [asyncio.create_task(roster.append(name)) for name in names]


def shown(snapshot: Snapshot) -> list[str]:
    page = b"".join(snapshot.html.plain.slices(0, snapshot.html.plain.size)).decode()
    return names_shown(page)


async def test_batch_gathers_while_another_commits(store: SteppedStore, roster: Roster) -> None:
    """All that ask during one commit share the next one, and one snapshot."""
    (first,) = append(roster, "Luna")
    await store.begun()
    others = append(roster, "Ginny", "Neville", "Cho")
    read = asyncio.create_task(roster.read())
    store.let(2)
    snapshots = await asyncio.gather(first, *others, read)
    assert store.exchanges == [["Luna"], ["Ginny", "Neville", "Cho"]]
    assert shown(snapshots[0]) == [*FIRST_WIZARDS, "Luna"]
    assert shown(snapshots[1]) == [*FIRST_WIZARDS, "Luna", "Ginny", "Neville", "Cho"]
    assert all(snapshot is snapshots[1] for snapshot in snapshots[1:])


async def test_reads_share_one_exchange(store: SteppedStore, roster: Roster) -> None:
    """Any number of reads at once cost the store one question."""
    reads = [asyncio.create_task(roster.read()) for _ in range(15)]
    store.let()
    await asyncio.gather(*reads)
    assert store.exchanges == [[]]


async def test_read_without_news_asks_only_the_length(store: SteppedStore, roster: Roster) -> None:
    """Where the store can tell its length, a read makes an exchange only if the list has grown."""
    store.let(2)
    before = await roster.open()
    store.knows_length = True
    assert await roster.read() is before
    store.names.append("written elsewhere")
    assert shown(await roster.read())[-1] == "written elsewhere"
    assert len(store.exchanges) == 2


async def test_failed_batch_fails_alone(
    store: SteppedStore, roster: Roster, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure reaches all of its batch and nobody else, and the outage is logged once, as is its end."""
    caplog.set_level(logging.INFO)
    store.failure = OSError("no route\nto host")
    for name in ("Luna", "Ginny"):
        failing = append(roster, name, f"{name} too")
        store.let()
        errors = await asyncio.gather(*failing, return_exceptions=True)
        assert [type(error) for error in errors] == [RosterUnavailableError] * 2
    store.failure = None
    store.let()
    assert shown(await roster.append("Cho")) == [*FIRST_WIZARDS, "Cho"]
    assert [record.getMessage() for record in caplog.records] == [
        "The storage is out of reach; answering 503. no route",
        "The storage is back; wizards: 4.",
    ]


async def test_commit_whose_answer_was_lost(store: SteppedStore, roster: Roster) -> None:
    """A name that was committed though its append failed is in the next answer, once, in its place."""
    store.failure, store.loses_answers = ConnectionError("cut"), True
    store.let()
    with pytest.raises(RosterUnavailableError):
        await roster.append("Luna")
    store.failure = None
    store.let()
    assert shown(await roster.append("Ginny")) == [*FIRST_WIZARDS, "Luna", "Ginny"]


@pytest.mark.parametrize("leaves", [0, 1], ids=["leader", "follower"])
async def test_cancelled_request_harms_nobody(store: SteppedStore, roster: Roster, leaves: int) -> None:
    """Whoever leaves a batch, the others get their answer, and the name of the one who left stands."""
    tasks = append(roster, "Luna", "Ginny")
    await store.begun()
    tasks[leaves].cancel()
    store.let()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[leaves], asyncio.CancelledError)
    stayed = done[1 - leaves]
    assert isinstance(stayed, Snapshot)
    assert shown(stayed) == [*FIRST_WIZARDS, "Luna", "Ginny"]


async def test_everybody_leaves_a_failing_batch(store: SteppedStore, roster: Roster) -> None:
    """A failure that nobody waits for any more is no unhandled error, and the next batch works."""
    tasks = append(roster, "Luna", "Ginny")
    await store.begun()
    for task in tasks:
        task.cancel()
    store.failure = OSError("gone")
    store.let()
    await asyncio.gather(*tasks, *roster._tasks, return_exceptions=True)
    store.failure = None
    store.let()
    assert shown(await roster.append("Cho")) == [*FIRST_WIZARDS, "Cho"]


async def test_close_waits_for_all_that_was_accepted(store: SteppedStore, roster: Roster) -> None:
    """A stop commits the batch under way and the one behind it before it closes the store."""
    (first,) = append(roster, "Luna")
    await store.begun()
    (second,) = append(roster, "Ginny")
    closing = asyncio.create_task(roster.close())
    store.let()
    await first
    assert not closing.done()
    store.let()
    assert shown(await second) == [*FIRST_WIZARDS, "Luna", "Ginny"]
    await closing
    assert not store.is_open


async def test_waiting_is_bounded(store: SteppedStore, roster: Roster) -> None:
    """Beyond the bound a request is turned away at once; those that wait are served, in their order."""
    (first,) = append(roster, "first")
    await store.begun()
    names = [f"w{number}" for number in range(25)]
    waiting = append(roster, *names)
    turned_away = await asyncio.gather(*waiting[20:], return_exceptions=True)
    assert {type(error) for error in turned_away} == {RosterBusyError}
    store.let(2)
    await asyncio.gather(first, *waiting[:20])
    assert store.names[4:] == names[:20]


async def test_bound_counts_those_who_left(store: SteppedStore, roster: Roster) -> None:
    """Clients that ask and leave cannot pile up names behind a slow commit."""
    (first,) = append(roster, "first")
    await store.begun()
    left = append(roster, *(f"w{number}" for number in range(20)))
    await asyncio.sleep(0)  # one turn of the loop: all of them have joined the batch
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    with pytest.raises(RosterBusyError):
        await roster.append("one too many")
    store.let(2)
    await first
    await roster.close()


async def test_full_list(store: SteppedStore) -> None:
    """Of a batch that does not fit, the first names are taken and the others turned away."""
    roster = Roster(store, max_wizards=5, max_waiting=20)
    tasks = append(roster, "Luna", "Ginny", "Cho")
    store.let()
    luna, ginny, cho = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(luna, Snapshot)
    assert luna is ginny
    assert isinstance(cho, RosterFullError)
    assert store.names == [*FIRST_WIZARDS, "Luna", "Ginny"]


async def test_lock_excludes(store: SteppedStore) -> None:
    """Of hundreds of appends at once none is lost, none doubled, and no two exchanges ever overlap."""
    roster = Roster(store, max_wizards=1_000, max_waiting=1_000)
    store.let(1_000)
    names = [f"w{number}" for number in range(500)]
    snapshots = await asyncio.gather(*append(roster, *names))
    assert store.names[3:] == names
    for name, snapshot in zip(names, snapshots, strict=True):
        assert name in shown(snapshot)
        assert shown(snapshot) == store.names[: snapshot.length]
