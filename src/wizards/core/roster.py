"""The shared list: one asyncio lock, group commit, snapshots.

The rules:

- Requests gather in the open batch. Each batch has one task, which waits for the lock; while it waits, the
  batch goes on filling. So the commit that is under way gathers the next batch by itself.
- Whoever holds the lock closes its batch, makes ONE exchange with the store ("append these names, give me
  every name after those I have"), and extends the page. Nothing else touches the page, and no two commits of
  this process overlap. The order between processes is the store's.
- A batch gets one snapshot. It was read after all of its requests had come, so it holds every name that was
  acknowledged anywhere before, and the names of the batch itself.
- A failed exchange fails its batch and nothing else. Its names may or may not stand: if they do, the next
  exchange brings them in. The failure is logged when an outage begins and when it ends.
- The task belongs to the roster, not to a request. A cancelled request leaves its batch as it is.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from wizards.core.rendering import RenderedList, Snapshot

if TYPE_CHECKING:  # the roster itself needs no database
    from wizards.storage.base import Store

logger = logging.getLogger(__name__)


class RosterError(Exception):
    """A request that the roster turned away."""


class RosterFullError(RosterError):
    """The list holds as many names as it may. Nothing was appended."""


class RosterBusyError(RosterError):
    """Too many requests are waiting. Nothing was appended."""


class RosterUnavailableError(RosterError):
    """The store failed. What was being appended may or may not stand."""


class Batch:
    """Requests that share one exchange and its outcome."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.requests = 0
        self.appended = 0
        self.task: asyncio.Task[Snapshot | None]


class Roster:
    """The shared list of at most `max_wizards` names, with at most `max_waiting` requests a batch."""

    def __init__(self, store: "Store", *, max_wizards: int, max_waiting: int) -> None:
        self._store = store
        self._max_wizards = max_wizards
        self._max_waiting = max_waiting
        self._rendered = RenderedList()
        self._lock = asyncio.Lock()
        self._open_batch: Batch | None = None
        self._tasks: set[asyncio.Task[Snapshot | None]] = set()
        self._is_open = False
        self._outage = False

    async def open(self) -> Snapshot:
        """Open the store, load the list and return it. Raises whatever the store raises.

        Without it the first request opens the store. A cancellation leaves the roster as it was.
        """
        async with self._lock:
            await self._exchange(Batch())
        return self._rendered.snapshot

    async def append(self, name: str) -> Snapshot:
        """Append `name` and return the list with it in, once it is durable.

        Raises RosterFullError, RosterBusyError or RosterUnavailableError. A cancellation does not
        take the name back: it is appended, or fails, with its batch.
        """
        batch = self._join()
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
        if self._store.length() == self._rendered.snapshot.length:
            return self._rendered.snapshot
        return await self._outcome(self._join())

    async def close(self) -> None:
        """Wait until all that was accepted is committed and answered, then close the store."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._store.close()

    def _join(self) -> Batch:
        batch = self._open_batch
        if batch is None:
            batch = self._open_batch = Batch()
            batch.task = asyncio.create_task(self._commit(batch))
            self._tasks.add(batch.task)
            batch.task.add_done_callback(self._tasks.discard)
        elif batch.requests >= self._max_waiting:
            raise RosterBusyError
        batch.requests += 1
        return batch

    async def _outcome(self, batch: Batch) -> Snapshot:
        # The shield keeps the cancellation of one request from the task that all of the batch share.
        snapshot = await asyncio.shield(batch.task)
        if snapshot is None:
            raise RosterUnavailableError
        return snapshot

    async def _commit(self, batch: Batch) -> Snapshot | None:
        async with self._lock:
            self._open_batch = None
            try:
                await self._exchange(batch)
            except Exception as error:  # noqa: BLE001  # whatever a driver raises is an outage
                if not self._outage:
                    logger.error("The storage is out of reach; answering 503. %s", self._store.explain(error))  # noqa: TRY400
                self._outage = True
                return None
            if self._outage:
                self._outage = False
                logger.warning("The storage is back; wizards: %d.", self._rendered.snapshot.length)
            return self._rendered.snapshot

    async def _exchange(self, batch: Batch) -> None:
        if not self._is_open:
            await self._store.open()
            while names := await self._store.read(self._rendered.snapshot.length):
                self._rendered.extend(names)
            self._is_open = True
        names, batch.appended = await self._store.exchange(
            batch.names, after=self._rendered.snapshot.length, limit=self._max_wizards
        )
        self._rendered.extend(names)
