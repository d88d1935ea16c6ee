"""The replica: the list as this process holds it, rendered, and brought up to date by exchanges.

An exchange is "append these names, return the rows behind the last one I hold". A read and an append may
overlap. The rows of both continue the same list, so whichever ends last adds only what the other has not
brought. The order between processes is the store's.
"""

import asyncio
from collections.abc import Sequence

from wizards.core.rendering import RenderedList
from wizards.storage.base import READ_CHUNK, START, HistoryLostError, Row, Store


class Replica:
    """The list of one store, from its opening on. Its methods raise what the store raises."""

    def __init__(self, store: Store) -> None:
        self.rendered = RenderedList()
        self.has_grown = asyncio.Event()  # set when names of any process are added; a Feed clears it
        self.last: Row = START
        self._store = store
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self) -> None:
        """Open the store and load the list, once. A cancellation leaves it to the next call."""
        async with self._opening:
            if not self._is_open:
                await self._store.open()
                await self.catch_up()
                self._is_open = True

    async def append(self, names: Sequence[str], limit: int, reads_lock: asyncio.Lock) -> int:
        """Append as many of `names` as a list of `limit` holds; return their number.

        If other processes have appended very much, their rows are read under `reads_lock`.
        """
        rows, appended = await self._store.append(names, self.last, limit)
        if self._extend(rows) >= READ_CHUNK:  # this process was far behind
            async with reads_lock:
                await self.catch_up()
        return appended

    async def catch_up(self) -> None:
        """Read the rows that are committed by now."""
        while self._extend(await self._store.read(self.last)) >= READ_CHUNK:
            pass

    def _extend(self, rows: Sequence[Row]) -> int:
        # The other exchange may have brought some of them, and the last of those has to be the same row.
        known = self.last[0] - rows[0][0] + 1 if rows else 0
        if 0 < known <= len(rows) and rows[known - 1] != self.last:
            raise HistoryLostError(f"row {self.last[0]:,} of the list is another one")
        if new := rows[known:]:
            self.rendered.extend([name for _, name, _ in new])
            self.last = new[-1]
            self.has_grown.set()
        return len(rows)
