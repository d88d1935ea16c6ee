"""The roster without a database: batches, failures and cancellations, one step at a time."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial

import pytest

from support.pages import parse_page
from wizards.core.errors import RosterBusyError, RosterFullError, RosterUnavailableError
from wizards.core.rendering import Snapshot
from wizards.core.roster import Roster
from wizards.storage.base import FIRST_WIZARDS, START, Row, rows_behind


class SteppedStore:
    """A list in memory whose exchanges start at once but end only when the test allows it."""

    where = "memory"
    poll_seconds = 0.1

    def __init__(self) -> None:
        self.rows: list[Row] = [(number, name, "first") for number, name in enumerate(FIRST_WIZARDS, 1)]
        self.exchanges: list[list[str]] = []
        self.running: Counter[str] = Counter()
        self.is_open = False
        self.failure: Exception | None = None
        self.commits_before_failure = False
        self.knows_last_row = False
        self._started = {kind: asyncio.Semaphore(0) for kind in ("read", "append")}
        self._allowed = {kind: asyncio.Semaphore(0) for kind in ("read", "append")}

    async def open(self) -> None:
        self.is_open = True

    async def read(self, after: Row) -> list[Row]:
        if after == START:  # loading the list needs no permission
            return self.rows[:]
        await self._step("read", [])
        return rows_behind(after, self.rows[after[0] - 1 :])

    async def append(self, names: Sequence[str], after: Row, limit: int) -> tuple[list[Row], int]:
        await self._step("append", list(names), fails=not self.commits_before_failure)
        fitting = names[: max(0, limit - len(self.rows))]
        self.commit(*fitting)
        if self.failure:
            raise self.failure
        return rows_behind(after, self.rows[after[0] - 1 :]), len(fitting)

    def commit(self, *names: str) -> None:
        """Append names without an exchange, as another process does."""
        self.rows += [(number, name, "stamp") for number, name in enumerate(names, len(self.rows) + 1)]

    def names(self) -> list[str]:
        return [name for _, name, _ in self.rows]

    async def _step(self, kind: str, names: list[str], *, fails: bool = True) -> None:
        assert self.is_open
        assert not self.running[kind], "two exchanges of one kind at once"
        self.running[kind] += 1
        self.exchanges.append(names)
        self._started[kind].release()
        try:
            await self._allowed[kind].acquire()
            if self.failure and fails:
                raise self.failure
        finally:
            self.running[kind] -= 1

    def is_current(self, last: Row) -> bool:
        return self.knows_last_row and last == self.rows[-1]

    async def close(self) -> None:
        assert not +self.running
        self.is_open = False

    async def wait_for_exchange(self, kind: str = "append") -> None:
        """Wait until one more exchange has started."""
        await self._started[kind].acquire()

    def allow(self, exchanges: int = 1, kind: str = "append") -> None:
        """Let this many exchanges end."""
        for _ in range(exchanges):
            self._allowed[kind].release()


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
    """All appends that arrive during one commit share the next commit and one snapshot."""
    (first,) = start_appends(roster, "Luna")
    await store.wait_for_exchange()
    others = start_appends(roster, "Ginny", "Neville", "Cho")
    store.allow(2)
    snapshots = await asyncio.gather(first, *others)
    assert store.exchanges == [["Luna"], ["Ginny", "Neville", "Cho"]]
    assert names_in(snapshots[0]) == [*FIRST_WIZARDS, "Luna"]
    assert names_in(snapshots[1]) == [*FIRST_WIZARDS, "Luna", "Ginny", "Neville", "Cho"]
    assert all(snapshot is snapshots[1] for snapshot in snapshots[1:])


async def test_reads_share_one_exchange(store: SteppedStore, roster: Roster) -> None:
    """Any number of concurrent reads cost the store one exchange."""
    await roster.open()
    reads = [asyncio.create_task(roster.read()) for _ in range(15)]
    store.allow(kind="read")
    await asyncio.gather(*reads)
    assert store.exchanges == [[]]


async def test_read_does_not_wait_for_an_append(store: SteppedStore, roster: Roster) -> None:
    """A read is answered while an append waits for the database; the append then extends the same list."""
    await roster.open()
    (append,) = start_appends(roster, "Luna")
    await store.wait_for_exchange()
    store.commit("written elsewhere")
    store.allow(kind="read")
    assert names_in(await roster.read()) == [*FIRST_WIZARDS, "written elsewhere"]
    store.allow()
    assert names_in(await append) == [*FIRST_WIZARDS, "written elsewhere", "Luna"]


async def test_read_that_an_append_overtakes(store: SteppedStore, roster: Roster) -> None:
    """A read whose rows an append has brought meanwhile adds none of them again."""
    await roster.open()
    read = asyncio.create_task(roster.read())
    await store.wait_for_exchange("read")
    store.allow()
    await roster.append("Luna")
    store.commit("written elsewhere")
    store.allow(kind="read")
    assert names_in(await read) == [*FIRST_WIZARDS, "Luna", "written elsewhere"]


async def test_read_of_an_unchanged_list_makes_no_exchange(store: SteppedStore, roster: Roster) -> None:
    """If the store knows its last row, a read makes an exchange only if the list has grown."""
    before = await roster.open()
    store.knows_last_row = True
    assert await roster.read() is before
    store.commit("written elsewhere")
    store.allow(kind="read")
    assert names_in(await roster.read())[-1] == "written elsewhere"
    assert len(store.exchanges) == 1


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


async def test_lost_history_ends_the_service(
    store: SteppedStore, roster: Roster, caplog: pytest.LogCaptureFixture
) -> None:
    """Once the database lacks a row that it had, nothing is answered any more; one line says so."""
    store.allow()
    await roster.append("Luna")
    store.rows[3:] = [(4, "Draco", "stamp")]
    store.allow(2, kind="read")
    store.knows_last_row = True
    for _ in range(2):
        with pytest.raises(RosterUnavailableError):
            await roster.read()
        store.rows[3:] = [(4, "Luna", "stamp")]
    with pytest.raises(RosterUnavailableError):
        await roster.append("Ginny")
    assert store.exchanges == [["Luna"], []]
    (record,) = caplog.records
    assert record.getMessage() == (
        "The database has lost names; answering 503 until this process is restarted."
        " It holds 4 wizards; row 4 of the list is gone, or another one."
    )


async def test_lost_history_between_two_lanes(store: SteppedStore, roster: Roster) -> None:
    """A read whose rows contradict those that an append has brought meanwhile is lost history, too."""
    await roster.open()
    read = asyncio.create_task(roster.read())
    await store.wait_for_exchange("read")
    store.allow()
    await roster.append("Luna")
    store.rows[3:] = [(4, "Draco", "stamp")]
    store.allow(kind="read")
    with pytest.raises(RosterUnavailableError):
        await read


async def test_batch_that_waited_has_a_second(
    store: SteppedStore, roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for another exchange counts: two that never end take a second longer than one."""
    await roster.open()
    monkeypatch.setattr("wizards.core.roster.STORAGE_TIMEOUT", 3)
    start = asyncio.get_running_loop().time()
    (first,) = start_appends(roster, "Luna")
    await store.wait_for_exchange()
    (second,) = start_appends(roster, "Ginny")
    errors = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(error) for error in errors] == [RosterUnavailableError] * 2
    assert 4 <= asyncio.get_running_loop().time() - start < 5.5


async def test_closed_roster_refuses_until_it_is_opened(store: SteppedStore, roster: Roster) -> None:
    """After `close` every request is refused and the store stays closed; `open` loads the list again."""
    await roster.open()
    await roster.close()
    for request in (roster.read, partial(roster.append, "Luna")):
        with pytest.raises(RosterUnavailableError):
            await request()
    assert not store.is_open
    store.rows[3:] = [(4, "Draco", "stamp")]
    assert names_in(await roster.open()) == [*FIRST_WIZARDS, "Draco"]


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
    await asyncio.gather(*tasks, *roster._appends._tasks, return_exceptions=True)
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
    assert store.names()[4:] == names[:20]


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
    assert store.names() == [*FIRST_WIZARDS, "Luna", "Ginny"]


async def test_exchanges_exclude_each_other(store: SteppedStore) -> None:
    """Of 500 concurrent appends none is lost or doubled, and no two exchanges overlap."""
    roster = Roster(store, max_wizards=1_000, max_waiting=1_000)
    store.allow(1_000)
    names = [f"w{number}" for number in range(500)]
    snapshots = await asyncio.gather(*start_appends(roster, *names))
    assert store.names()[3:] == names
    for name, snapshot in zip(names, snapshots, strict=True):
        assert name in names_in(snapshot)
        assert names_in(snapshot) == store.names()[: snapshot.length]


async def test_gauges(store: SteppedStore, roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gauges count the names, the requests that wait, and the exchanges with their time."""
    await roster.open()
    tasks = start_appends(roster, "Luna", "Ginny", "Neville")
    await store.wait_for_exchange()
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    gauges = {"list.length": 3, "requests.waiting": 2, "exchanges": 0, "exchanges.milliseconds": 0}
    assert roster.gauges() == gauges
    loop = asyncio.get_running_loop()
    later = loop.time() + 2
    monkeypatch.setattr(loop, "time", lambda: later)  # the exchange takes two seconds
    store.allow()
    await asyncio.gather(*tasks[1:])
    gauges = {"list.length": 6, "requests.waiting": 0, "exchanges": 1}
    assert roster.gauges().items() > gauges.items()
    assert 2000 <= roster.gauges()["exchanges.milliseconds"] < 3000
