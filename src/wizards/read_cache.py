"""A cache in front of Quart: a read whose answer is known does not enter the framework.

An answer is kept as the ASGI messages that Quart sent, under everything that it depends on. Those of the
shared list are kept while the list stands where it stood: before one is sent again, the roster is asked,
as a handler would ask it. Quart is asked once, whoever asks meanwhile waits for the same answer; and not
on behalf of anyone's connection, so that nobody's leaving can spoil it. Bodies are the list's own blocks:
an answer that is kept costs next to nothing.
"""

import asyncio
from collections.abc import Hashable
from typing import Any

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPDisconnectEvent,
    HTTPScope,
    Scope,
)

from .answer import PATH, Outcome, with_outcome
from .page import Snapshot
from .roster import Roster, RosterError

FIXED_PATHS = frozenset({"/", "/api/wizards"})

# What an answer depends on, beside method, path and query: a host can be none, and be refused.
VARYING = frozenset({b"host"})
LIST_VARYING = VARYING | {b"accept", b"accept-encoding", b"if-match", b"if-none-match", b"if-range", b"range"}

# A part (206) is its asker's own, so it is not worth keeping; an error is not, either.
KEPT = frozenset({200, 304})
MOST_KEPT = 256

Answers = dict[Hashable, asyncio.Task[list[ASGISendEvent]]]


class ReadCache:
    """An ASGI application that answers the known reads of `app` by itself."""

    def __init__(self, app: ASGIFramework, roster: Roster) -> None:
        self._app = app
        self._roster = roster
        self._snapshot: Snapshot | None = None
        self._fixed: Answers = {}
        self._list: Answers = {}

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation leaves the cache, and whoever else waits, as they were."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
        elif scope["path"] in FIXED_PATHS:
            await self._replay(self._fixed, _key(scope, VARYING), scope, None, send)
        elif scope["path"] == PATH and _only_reads(scope["query_string"]):
            await self._read(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _read(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        try:
            outcome: Outcome = await self._roster.read()
        except RosterError as error:
            outcome = error
        await self.answer(outcome, scope, receive, send)

    async def answer(
        self, outcome: Outcome, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Answer a request to show the list with what the roster has said to this very request."""
        if isinstance(outcome, RosterError):
            await self._app(with_outcome(scope, outcome), receive, send)
            return
        if outcome is not self._snapshot:
            self._snapshot = outcome
            self._list = {}
        await self._replay(self._list, _key(scope, LIST_VARYING), scope, outcome, send)

    async def _replay(
        self,
        answers: Answers,
        key: Hashable,
        scope: HTTPScope,
        outcome: Outcome,
        send: ASGISendCallable,
    ) -> None:
        asked = answers.get(key)
        if asked is None:
            if len(answers) >= MOST_KEPT:
                del answers[next(iter(answers))]
            asked = answers[key] = asyncio.create_task(self._ask(answers, key, with_outcome(scope, outcome)))
        messages = asked.result() if asked.done() else await asyncio.shield(asked)
        for message in messages:
            await send(message)

    async def _ask(self, answers: Answers, key: Hashable, scope: HTTPScope) -> list[ASGISendEvent]:
        messages: list[Any] = []
        answered = asyncio.Event()

        async def record(message: ASGISendEvent) -> None:
            messages.append(message)
            if not message.get("more_body", True):
                answered.set()

        async def leave() -> HTTPDisconnectEvent:
            await answered.wait()
            return {"type": "http.disconnect"}

        try:
            await self._app(scope, leave, record)
        finally:
            is_kept = messages and messages[0]["status"] in KEPT
            if not is_kept and answers.get(key) is asyncio.current_task():  # it may have had to make room
                del answers[key]
        return _without_empty(messages)


def _key(scope: HTTPScope, varying: frozenset[bytes]) -> Hashable:
    headers = [header for header in scope["headers"] if header[0] in varying]
    return scope["method"], scope["path"], scope["query_string"], tuple(map(tuple, headers))


def _only_reads(query: bytes) -> bool:
    # A key that reads "name" once it is decoded holds those letters or a percent-escape.
    return b"name" not in query and b"%" not in query


def _without_empty(messages: list[Any]) -> list[ASGISendEvent]:
    # Quart ends every answer with an empty message; the last one with something in it can do that.
    start, *bodies = messages
    filled = [message for message in bodies if message["body"]] or bodies[-1:]
    return [start, *filled[:-1], {**filled[-1], "more_body": False}]
