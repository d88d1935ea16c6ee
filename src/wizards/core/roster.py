"""The shared list: group commit and snapshots under asyncio locks.

The rules:

- Reads and appends have a lane each, so that a read never waits for an append that waits for a database
  lock. In a lane, requests gather in the open batch. Each batch has one task, which waits for the lane's
  lock; meanwhile the batch goes on filling. So the exchange under way gathers the next batch by itself.
- The holder of the lock closes its batch, makes ONE exchange with the store ("append these names, return the
  rows behind the last one I hold"), and extends the rendered list. No two exchanges of a lane overlap. The
  order between processes is the store's.
- Exchanges of the two lanes may overlap. The rows of both continue the same list, so whichever ends last adds
  only what the other has not brought.
- A batch gets one snapshot. The exchange began after all of its requests had come, so the snapshot holds
  every name that was acknowledged anywhere before, and the names of the batch itself.
- A failed exchange fails its batch and nothing else. Its names may have been committed; if so, the next
  exchange returns them. A failure is logged when an outage begins and when it ends.
- If the database has lost history, every exchange fails from then on, until the process is restarted.
- The task belongs to the roster, not to a request. A cancelled request leaves its batch as it is.
"""

import asyncio
import logging
from collections.abc import Sequence

from wizards.core.rendering import RenderedList, Snapshot
from wizards.storage.base import (
    READ_CHUNK,
    START,
    STORAGE_TIMEOUT,
    HistoryLostError,
    Row,
    Store,
    first_line,
)

logger = logging.getLogger(__name__)


class RosterError(Exception):
    """A request that the roster turned away."""


class RosterFullError(RosterError):
    """The list holds as many names as it may. Nothing was appended."""


class RosterBusyError(RosterError):
    """Too many requests are waiting. Nothing was appended."""


class RosterUnavailableError(RosterError):
    """The store failed. The name may have been appended."""


class Batch:
    """Requests that share one exchange and its outcome."""

    def __init__(self, opened: float) -> None:
        self.opened = opened
        self.names: list[str] = []
        self.requests = 0
        self.appended = 0
        self.task: asyncio.Task[Snapshot | None]


class Lane:
    """Requests of one kind: the batch that gathers, and the lock of the exchange."""

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self.lock = asyncio.Lock()


class Roster:
    """The shared list of at most `max_wizards` names, with at most `max_waiting` requests a batch.

    After `close`, `open` restarts a closed roster, on any event loop.
    """

    def __init__(self, store: Store, *, max_wizards: int, max_waiting: int) -> None:
        self._store = store
        self._max_wizards = max_wizards
        self._max_waiting = max_waiting
        self._waiting = self._exchanges = 0
        self._exchange_seconds = 0.0
        self._reset()

    def gauges(self) -> dict[str, int]:
        """Return figures for an operator; those of the exchanges count from the roster's making."""
        return {
            "list.length": self._last[0],
            "requests.waiting": self._waiting,
            "exchanges": self._exchanges,
            "exchanges.milliseconds": round(1000 * self._exchange_seconds),
        }

    def _reset(self) -> None:
        self.rendered = RenderedList()  # as far as this process knows the list
        self.has_grown = asyncio.Event()  # set when names of any process are added; a Feed clears it
        self._last: Row = START
        self._reads, self._appends = Lane(), Lane()
        self._tasks: set[asyncio.Task[Snapshot | None]] = set()
        self._opening = asyncio.Lock()
        self._is_open = False
        self._users = 0  # servers that have opened the roster
        self.refuses = False  # history was lost, or the roster is closed
        self._outages: set[Lane] = set()

    async def open(self) -> Snapshot:
        """Open the store, load the list and return it. Raises what the store raises.

        Without it the first request opens the store. Several servers of one event loop may open the roster.
        A cancellation leaves it as it was.
        """
        if self.refuses:
            self._reset()
        try:
            await self._load()
        except BaseException:
            await self._store.close()
            self._reset()
            raise
        self._users += 1
        return self.rendered.snapshot

    async def append(self, name: str) -> Snapshot:
        """Append `name` and return the list with it in, once it is durable.

        Raises RosterFullError, RosterBusyError or RosterUnavailableError. A cancellation does not
        take the name back: it is appended, or fails, with its batch.
        """
        batch = self._join(self._appends)
        turn = len(batch.names)
        batch.names.append(name)
        snapshot = await self._outcome(batch)
        if turn >= batch.appended:
            raise RosterFullError
        return snapshot

    async def read(self) -> Snapshot:
        """Return the list with everything in it that was acknowledged anywhere before this call.

        Raises RosterBusyError or RosterUnavailableError. A cancellation changes nothing.
        """
        return self.current() or await self._outcome(self._join(self._reads))

    def current(self) -> Snapshot | None:
        """Return what `read` would return, or None if that takes an exchange."""
        if self._store.is_current(self._last) and not self.refuses:
            return self.rendered.snapshot
        return None

    async def close(self) -> None:
        """Wait until all that was accepted is committed and answered, then close the store.

        From then on every request is refused. Does nothing if another server has opened the roster.
        """
        self._users -= 1
        if self._users > 0:
            return
        while self._tasks:
            await asyncio.wait(self._tasks)
        self.refuses = True
        await self._store.close()

    def _join(self, lane: Lane) -> Batch:
        if self.refuses:
            raise RosterUnavailableError
        batch = lane.batch
        if batch is None:
            batch = lane.batch = Batch(asyncio.get_running_loop().time())
            batch.task = asyncio.create_task(self._commit(lane, batch))
            self._tasks.add(batch.task)
            batch.task.add_done_callback(self._tasks.discard)
        elif batch.requests >= self._max_waiting:
            raise RosterBusyError
        batch.requests += 1
        return batch

    async def _outcome(self, batch: Batch) -> Snapshot:
        self._waiting += 1
        try:
            # The shield keeps the cancellation of one request from the task that all of the batch share.
            snapshot = await asyncio.shield(batch.task)
        finally:
            self._waiting -= 1
        if snapshot is None:
            raise RosterUnavailableError
        return snapshot

    async def _commit(self, lane: Lane, batch: Batch) -> Snapshot | None:
        async with lane.lock:
            lane.batch = None
            begin = asyncio.get_running_loop().time()
            try:
                # At least a second. So no request waits for longer than STORAGE_TIMEOUT and a second.
                async with asyncio.timeout(max(1, STORAGE_TIMEOUT - (begin - batch.opened))):
                    await self._load()
                    await self._exchange(batch)
            except Exception as error:  # noqa: BLE001  # any exception of a driver is an outage
                self._note_failure(lane, error)
                return None
            finally:
                self._exchanges += 1
                self._exchange_seconds += asyncio.get_running_loop().time() - begin
            self._note_success(lane)
            return None if self.refuses else self.rendered.snapshot

    async def _load(self) -> None:
        async with self._opening:
            if not self._is_open:
                await self._store.open()
                await self._catch_up()
                self._is_open = True

    async def _exchange(self, batch: Batch) -> None:
        if not batch.names:
            await self._catch_up()
            return
        rows, batch.appended = await self._store.append(batch.names, self._last, self._max_wizards)
        self._extend(rows)
        if len(rows) >= READ_CHUNK:  # this process was far behind
            async with self._reads.lock:
                await self._catch_up()

    async def _catch_up(self) -> None:
        is_complete = False
        while not is_complete:
            rows = await self._store.read(self._last)
            self._extend(rows)
            is_complete = len(rows) < READ_CHUNK

    def _extend(self, rows: Sequence[Row]) -> None:
        # The other lane may have brought some of them, and the last of those has to be the same row.
        known = self._last[0] - rows[0][0] + 1 if rows else 0
        if 0 < known <= len(rows) and rows[known - 1] != self._last:
            raise HistoryLostError(f"row {self._last[0]:,} of the list is another one")
        if new := rows[known:]:
            self.rendered.extend([name for _, name, _ in new])
            self._last = new[-1]
            self.has_grown.set()

    def _note_failure(self, lane: Lane, error: Exception) -> None:
        if isinstance(error, HistoryLostError):
            if not self.refuses:
                logger.error(
                    "The database has lost names; answering 503 until this process is restarted."
                    " It holds %d wizards; %s.",
                    self._last[0],
                    first_line(error),
                )
            self.refuses = True
            return
        if not self._outages:
            logger.error("The storage is out of reach; answering 503. %s", first_line(error))
        self._outages.add(lane)

    def _note_success(self, lane: Lane) -> None:
        if self._outages and not self._outages - {lane}:
            logger.warning("The storage is back; wizards: %d.", self._last[0])
        self._outages.discard(lane)
