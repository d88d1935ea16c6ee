"""The answers to reads, kept: what Quart has answered once is sent again without it.

An answer is kept as the ASGI messages that Quart sent, under everything that it depends on; those of the
shared list as long as the list stands where it stood. Quart is asked once, whoever asks meanwhile waits for
the same answer; and not on behalf of anyone's connection, so that nobody's leaving can spoil it. Bodies are
the list's own blocks: an answer that is kept costs next to nothing.
"""

import asyncio
from typing import Any

from hypercorn.typing import ASGIFramework, ASGISendEvent, HTTPScope

from wizards import messages as bodies
from wizards.core.rendering import Snapshot
from wizards.web.representation import with_outcome

# A part (206) is its asker's own, so it is not worth keeping; an error is not, either.
KEPT = frozenset({200, 304})
MOST_KEPT = 256

Key = tuple[object, ...]
Asked = asyncio.Task[list[ASGISendEvent]]


class ReadCache:
    """What `app` answers to reads of the shared list, or to those of what is always the same."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app
        self._snapshot: Snapshot | None = None
        self._answers: dict[Key, Asked] = {}

    def known(self, key: Key) -> Asked | None:
        """Return the task that was made for `key`, if it is kept."""
        return self._answers.get(key)

    def ask(self, key: Key, scope: HTTPScope, snapshot: Snapshot | None = None) -> Asked:
        """Return the task whose result is the messages that answer the read in `scope`.

        They answer every read of `snapshot` with that `key`. The task may not be done yet; others wait for
        it, too, so it is not to be cancelled.
        """
        if snapshot is not self._snapshot:
            self._snapshot, self._answers = snapshot, {}
        asked = self._answers.get(key)
        if asked is None:
            if len(self._answers) >= MOST_KEPT:
                del self._answers[next(iter(self._answers))]
            asked = asyncio.create_task(self._ask(self._answers, key, with_outcome(scope, snapshot)))
            self._answers[key] = asked
        return asked

    async def _ask(self, answers: dict[Key, Asked], key: Key, scope: HTTPScope) -> list[ASGISendEvent]:
        messages: list[Any] = []

        async def record(message: ASGISendEvent) -> None:
            messages.append(message)

        try:
            await self._app(scope, bodies.nothing_more, record)
        finally:
            is_kept = messages and messages[0]["status"] in KEPT
            if not is_kept and answers.get(key) is asyncio.current_task():  # it may have had to make room
                del answers[key]
        return _without_empty(messages)


def _without_empty(messages: list[Any]) -> list[ASGISendEvent]:
    # Quart ends every answer with an empty message; the last one with something in it can do that.
    start, *pieces = messages
    filled = [message for message in pieces if message["body"]] or pieces[-1:]
    return [start, *filled[:-1], {**filled[-1], "more_body": False}]
