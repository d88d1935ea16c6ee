"""The feed: sends each follower of the list the events behind a position, and then each new one.

- All followers share the rendered events. A follower is a position in them and the piece that is being sent.
- One task of this process, the watcher, waits for all followers, and only while there are any. The roster
  tells it of names that this process appends or reads; for those of other processes it looks in the store.
- The watcher wakes followers a few at a time, so that other requests are answered in between. It then
  sleeps as long as the wake-up took.
- A follower that has nothing to send gets a comment every HEARTBEAT_SECONDS, so that no proxy times out and a
  dead connection is noticed.
- All streams end when the server is stopping, the roster is closed, or the database has lost history. A
  browser's EventSource comes back by itself, and names the last position that it has.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from contextvars import Context

from wizards.core.errors import RosterError
from wizards.core.replica import Replica
from wizards.core.roster import Roster

COMMENT = b":\n\n"
HEARTBEAT_SECONDS = 15.0  # as WHATWG HTML, 9.2.7, advises
STOP_POLL_SECONDS = 0.1  # seconds in which the watcher notices a stop
WAKE_BATCH_SIZE = 50  # followers that are woken before other requests have their turn: 2 to 3 ms


class Feed:
    """The feed of one roster's list, which looks for names of other processes every `poll_seconds`."""

    def __init__(self, roster: Roster, *, poll_seconds: float, must_end: Callable[[], bool]) -> None:
        self.followers = 0
        self._roster = roster
        self._poll_seconds = poll_seconds
        self._must_end = must_end
        self._waiting: list[asyncio.Future[bool]] = []
        self._watcher: asyncio.Task[None] | None = None

    def gauges(self) -> dict[str, int]:
        """Return the roster's figures for an operator, and how many followers there are."""
        return {**self._roster.gauges(), "followers": self.followers}

    async def follow(self, position: int) -> AsyncGenerator[bytes]:
        """Yield the events behind `position`, which the list has reached; then new ones and heartbeats.

        Ends when no more can come. A cancellation, or closing the generator, ends this stream alone.
        """
        replica = self._roster.replica
        events = replica.rendered.events
        self.followers += 1
        self._start_watcher()
        try:
            yield COMMENT  # a server may hold the head of a response back until there is a body
            await _render_events(replica)
            begin = events.end(position)
            while not self._is_over(replica):
                while (piece := events.piece(begin)) and not self._is_over(replica):
                    begin += len(piece)
                    yield piece
                if await self._next_round():
                    yield COMMENT
        finally:
            self.followers -= 1

    def _is_over(self, replica: Replica) -> bool:
        is_current = replica is self._roster.replica and not self._roster.refuses
        return self._must_end() or not is_current

    def _start_watcher(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._roster.replica.has_grown.clear()  # the first follower renders the existing events itself
            # A context of its own, as the watcher outlives the request of that follower.
            self._watcher = asyncio.create_task(self._watch(), context=Context())

    async def _next_round(self) -> bool:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return await turn

    async def _watch(self) -> None:
        loop, roster = asyncio.get_running_loop(), self._roster
        next_look, next_heartbeat = 0.0, loop.time() + HEARTBEAT_SECONDS
        while self.followers:
            if (began := loop.time()) >= next_look:
                next_look = began + self._poll_seconds
                with suppress(RosterError, TimeoutError):  # the exchange goes on
                    async with asyncio.timeout(STOP_POLL_SECONDS):
                        await roster.read()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_POLL_SECONDS):
                    await roster.replica.has_grown.wait()
            began = loop.time()
            is_due = began >= next_heartbeat
            if roster.replica.has_grown.is_set() or is_due or self._is_over(roster.replica):
                next_heartbeat = began + HEARTBEAT_SECONDS
                roster.replica.has_grown.clear()
                await self._wake(is_heartbeat=is_due)
                await asyncio.sleep(loop.time() - began)

    async def _wake(self, *, is_heartbeat: bool) -> None:
        await _render_events(self._roster.replica)
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), WAKE_BATCH_SIZE):
            for turn in waiting[start : start + WAKE_BATCH_SIZE]:
                if not turn.done():  # its request was cancelled
                    turn.set_result(is_heartbeat)
            await asyncio.sleep(0)


async def _render_events(replica: Replica) -> None:
    rendered = replica.rendered
    while rendered.events.extend(rendered.snapshot.json.plain):  # noqa: ASYNC110  # others have their turn
        await asyncio.sleep(0)
