"""The shared list: reads and appends under asyncio locks, and what becomes of them when the storage fails.

- Reads and appends have a lane each, so that a read never waits for an append that waits for a database
  lock. A lane commits its requests in groups, one exchange at a time (see `lanes`).
- A batch gets one snapshot. The exchange began after all of its requests had come, so the snapshot holds
  every name that was acknowledged anywhere before, and the names of the batch itself.
- A failed exchange fails its batch and nothing else. Its names may have been committed; if so, the next
  exchange returns them. A failure is logged when an outage begins and when it ends.
- If the database has lost history, every exchange fails from then on, until the process is restarted.
"""

import asyncio
import logging

from wizards.core.errors import RosterFullError, RosterUnavailableError
from wizards.core.lanes import Batch, Lane
from wizards.core.rendering import Snapshot
from wizards.core.replica import Replica
from wizards.storage.base import STORAGE_TIMEOUT, HistoryLostError, Store, first_line

logger = logging.getLogger(__name__)


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
        self._users = 0  # servers that have opened the roster
        self._reset()

    def gauges(self) -> dict[str, int]:
        """Return figures for an operator; those of the exchanges count from the roster's making."""
        return {
            "list.length": self.replica.last[0],
            "requests.waiting": self._waiting,
            "exchanges": self._exchanges,
            "exchanges.milliseconds": round(1000 * self._exchange_seconds),
        }

    def _reset(self) -> None:
        self.replica = Replica(self._store)
        self.refuses = False  # history was lost, or the roster is closed
        self._reads, self._appends = Lane(self._exchange), Lane(self._exchange)
        self._failing: set[Lane] = set()

    async def open(self) -> Snapshot:
        """Open the store, load the list and return it. Raises what the store raises.

        Without it the first request opens the store. Several servers of one event loop may open the roster.
        A cancellation leaves it as it was.
        """
        if self.refuses:
            self._reset()
        try:
            await self.replica.open()
        except BaseException:
            await self._store.close()
            self._reset()
            raise
        self._users += 1
        return self.replica.rendered.snapshot

    async def append(self, name: str) -> Snapshot:
        """Append `name` and return the list with it in, once it is durable.

        Raises RosterFullError, RosterBusyError or RosterUnavailableError. A cancellation does not
        take the name back: it is appended, or fails, with its batch.
        """
        return await self._ask(self._appends, name)

    async def read(self) -> Snapshot:
        """Return the list with everything in it that was acknowledged anywhere before this call.

        Raises RosterBusyError or RosterUnavailableError. A cancellation changes nothing.
        """
        return self.current() or await self._ask(self._reads)

    def current(self) -> Snapshot | None:
        """Return what `read` would return, or None if that takes an exchange."""
        replica = self.replica
        if self._store.is_current(replica.last) and not self.refuses:
            return replica.rendered.snapshot
        return None

    async def close(self) -> None:
        """Wait until all that was accepted is committed and answered, then close the store.

        From then on every request is refused. Does nothing if another server has opened the roster.
        """
        self._users = max(0, self._users - 1)
        if self._users:
            return
        await self._reads.finish()
        await self._appends.finish()
        self.refuses = True
        await self._store.close()

    async def _ask(self, lane: Lane, *names: str) -> Snapshot:
        if self.refuses:
            raise RosterUnavailableError
        batch = lane.join(self._max_waiting)
        turn = len(batch.names)
        batch.names += names
        self._waiting += 1
        try:
            snapshot = await asyncio.shield(batch.task)  # which keeps a cancellation from the task
        finally:
            self._waiting -= 1
        if snapshot is None:
            raise RosterUnavailableError
        if names and turn >= batch.appended:
            raise RosterFullError
        return snapshot

    async def _exchange(self, lane: Lane, batch: Batch) -> Snapshot | None:
        begin = asyncio.get_running_loop().time()
        try:
            # At least a second. So no request waits for longer than STORAGE_TIMEOUT and a second.
            async with asyncio.timeout(max(1, STORAGE_TIMEOUT - (begin - batch.opened))):
                await self._carry_out(batch)
        except Exception as error:  # noqa: BLE001  # any exception of a driver is an outage
            self._note_failure(lane, error)
            return None
        finally:
            self._exchanges += 1
            self._exchange_seconds += asyncio.get_running_loop().time() - begin
        self._note_success(lane)
        return None if self.refuses else self.replica.rendered.snapshot

    async def _carry_out(self, batch: Batch) -> None:
        await self.replica.open()
        if batch.names:
            batch.appended = await self.replica.append(batch.names, self._max_wizards, self._reads.lock)
        else:
            await self.replica.catch_up()

    def _note_failure(self, lane: Lane, error: Exception) -> None:
        if isinstance(error, HistoryLostError):
            if not self.refuses:
                logger.error(
                    "The database has lost names; answering 503 until this process is restarted."
                    " It holds %d wizards; %s.",
                    self.replica.last[0],
                    first_line(error),
                )
            self.refuses = True
            return
        if not self._failing:
            logger.error("The storage is out of reach; answering 503. %s", first_line(error))
        self._failing.add(lane)

    def _note_success(self, lane: Lane) -> None:
        if self._failing == {lane}:
            logger.warning("The storage is back; wizards: %d.", self.replica.last[0])
        self._failing.discard(lane)
