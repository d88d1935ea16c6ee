"""A cache in front of Quart: a read whose answer is known does not enter the framework.

An answer is kept as the ASGI messages it was sent with, under everything that it depends on. Those of the
shared list are kept while the list stands where it stood: before one is sent again, the roster is asked,
as a handler would ask it. Bodies are made of the list's own blocks, so an answer kept costs next to nothing.
"""

from collections.abc import Hashable
from typing import Any

from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)

from .answer import PATH, READ
from .page import Snapshot
from .roster import Roster, RosterError

FIXED_PATHS = frozenset({"/", "/api/wizards"})

# What an answer depends on, beside method, path and query: a host can be none, and be refused.
VARYING = frozenset({b"host"})
LIST_VARYING = VARYING | {b"accept", b"accept-encoding", b"if-match", b"if-none-match", b"if-range", b"range"}

# A part (206) is its asker's own, so it is not worth keeping; an error is not, either.
KEPT = frozenset({200, 304})
MOST_KEPT = 256


class ReadCache:
    """An ASGI application that answers the known reads of `app` by itself."""

    def __init__(self, app: ASGIFramework, roster: Roster) -> None:
        self._app = app
        self._roster = roster
        self._snapshot: Snapshot | None = None
        self._fixed: dict[Hashable, list[ASGISendEvent]] = {}
        self._list: dict[Hashable, list[ASGISendEvent]] = {}

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation leaves the cache as it was."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
        elif scope["path"] in FIXED_PATHS:
            await self._answer(self._fixed, _key(scope, VARYING), scope, receive, send)
        elif scope["path"] == PATH and _only_reads(scope["query_string"]):
            await self._answer_read(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _answer_read(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        try:
            snapshot = await self._roster.read()
        except RosterError as error:
            await self._app(_with_read(scope, error), receive, send)
            return
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._list = {}
        key = _key(scope, LIST_VARYING)
        await self._answer(self._list, key, _with_read(scope, snapshot), receive, send)

    async def _answer(
        self,
        answers: dict[Hashable, list[ASGISendEvent]],
        key: Hashable,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
    ) -> None:
        known = answers.get(key)
        if known is not None:
            for message in known:
                await send(message)
            return
        sent: list[Any] = []

        async def record(message: ASGISendEvent) -> None:
            sent.append(message)
            await send(message)

        await self._app(scope, receive, record)
        start, *bodies = sent or [{"status": None}]
        # Quart returns early, and without an error, where the client has gone.
        if start["status"] in KEPT and not bodies[-1]["more_body"]:
            if len(answers) >= MOST_KEPT:
                del answers[next(iter(answers))]
            answers[key] = [start, *_without_empty(bodies)]


def _with_read(scope: HTTPScope, outcome: Snapshot | RosterError) -> HTTPScope:
    # So that the handler need not ask the roster again.
    extensions: Any = {**(scope.get("extensions") or {}), READ: outcome}
    return {**scope, "extensions": extensions}


def _key(scope: HTTPScope, varying: frozenset[bytes]) -> Hashable:
    headers = [header for header in scope["headers"] if header[0] in varying]
    return scope["method"], scope["path"], scope["query_string"], tuple(map(tuple, headers))


def _only_reads(query: bytes) -> bool:
    # A key that reads "name" once it is decoded holds those letters or a percent-escape.
    return b"name" not in query and b"%" not in query


def _without_empty(bodies: list[Any]) -> list[Any]:
    # Quart ends every answer with an empty message; the last one with something in it can do that.
    filled = [message for message in bodies if message["body"]] or bodies[-1:]
    return [*filled[:-1], {**filled[-1], "more_body": False}]
