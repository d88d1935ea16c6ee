"""Group commit: requests of one kind share exchanges with the store, one exchange at a time.

Requests gather in the open batch. Each batch has one task, which waits for the lane's lock; meanwhile the
batch goes on filling. So the exchange under way gathers the next batch by itself. The task belongs to the
lane, not to a request: a cancelled request leaves its batch as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable

from wizards.core.errors import RosterBusyError
from wizards.core.rendering import Snapshot


class Batch:
    """Requests that share one exchange and its outcome: a snapshot, or None if it failed."""

    def __init__(self) -> None:
        self.opened = asyncio.get_running_loop().time()
        self.names: list[str] = []
        self.requests = 0
        self.appended = 0  # of the names
        self.task: asyncio.Task[Snapshot | None]


class Lane:
    """Requests of one kind: the batch that gathers, and the lock of the exchange.

    `exchange` is called with the lane and a batch, which no request joins any more. It never raises.
    """

    def __init__(self, exchange: Callable[["Lane", Batch], Awaitable[Snapshot | None]]) -> None:
        self.lock = asyncio.Lock()
        self._exchange = exchange
        self._open_batch: Batch | None = None
        self._tasks: set[asyncio.Task[Snapshot | None]] = set()

    def join(self, max_waiting: int) -> Batch:
        """Add a request to the open batch and return the batch.

        Raises RosterBusyError if the batch has `max_waiting` requests.
        """
        batch = self._open_batch
        if batch is None:
            batch = self._open_batch = Batch()
            batch.task = asyncio.create_task(self._run(batch))
            self._tasks.add(batch.task)
            batch.task.add_done_callback(self._tasks.discard)
        elif batch.requests >= max_waiting:
            raise RosterBusyError
        batch.requests += 1
        return batch

    async def finish(self) -> None:
        """Wait until every batch has had its exchange."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, batch: Batch) -> Snapshot | None:
        async with self.lock:
            self._open_batch = None
            return await self._exchange(self, batch)
