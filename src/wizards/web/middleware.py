"""In front of Quart: what a request needs no framework for.

- A body, which no route wants, is read to its end and thrown away (see `bodies`).
- A read whose answer is known is answered (see `read_cache`). Before the shared list is shown, the roster is
  asked, as a handler would ask it.
- A plain append is carried out and answered as a read of the list that it made: most programs append names
  of characters that stand for themselves (RFC 3986, section 2.3), and send no header that could matter. All
  appends of a batch have the same list, so Quart renders one answer for all of them.

Everything else Quart's handlers decide. The headers are gone through once, for all of that.
"""

import asyncio
import re

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from wizards import messages as bodies
from wizards.core.roster import Roster, RosterError
from wizards.server.shutdown import Stop
from wizards.web.quart_workarounds import closing
from wizards.web.read_cache import Asked, Key, ReadCache
from wizards.web.representation import PATH, with_outcome

READS = frozenset({"GET", "HEAD"})
PATHS = frozenset({"/", "/api/wizards", PATH})

# What an answer depends on beside method, path and query. A host can be none, and be refused.
NEGOTIATING = frozenset({b"host", b"accept", b"accept-encoding"})

# With one of these an append may be refused, or its answer is not that of a read.
NOT_PLAIN = frozenset(
    {b"range", b"if-none-match", b"if-match", b"if-range", b"sec-fetch-site", b"sec-purpose"}
)
MATTERING = NEGOTIATING | NOT_PLAIN | bodies.ANNOUNCING

PLAIN_QUERY = re.compile(rb"name=([A-Za-z0-9._~-]+)")

# A host that Quart answers; some others it refuses, and a request that is refused must not append.
PLAIN_HOST = re.compile(rb"([A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Front:
    """An ASGI application that answers by itself what it can, and leaves the rest to `app`.

    Appends are plain with up to `max_plain_length` characters; 0 leaves all of them to `app`.
    """

    def __init__(self, app: ASGIFramework, roster: Roster, stop: Stop, *, max_plain_length: int) -> None:
        self._app = app
        self._roster = roster
        self._stop = stop
        self._max_plain_length = max_plain_length
        self._fixed = ReadCache(app)
        self._list = ReadCache(app)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation does not take a name back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Names and values in turn. A value that reads as a name costs its sender a short cut, no more.
        headers = [part for header in scope["headers"] if header[0] in MATTERING for part in header]
        if bodies.may_follow(scope["http_version"], headers):
            if not await bodies.is_complete(receive):
                return
            send = closing(send) if bodies.are_ambiguous(headers) else send
        key = _key(scope, headers)
        try:
            asked = self._fixed.known(key) or await self._ask(key, scope, headers)
        except RosterError as error:
            asked, scope = None, with_outcome(scope, error)
        if asked is None:
            await self._app(scope, bodies.nothing_more, send)
            return
        for message in asked.result() if asked.done() else await asyncio.shield(asked):
            await send(message)

    async def _ask(self, key: Key, scope: HTTPScope, headers: list[bytes]) -> Asked | None:
        path = scope["path"]
        if scope["method"] not in READS or path not in PATHS:
            return None
        if path != PATH:
            return self._fixed.ask(key, scope)
        if not _may_append(scope["query_string"]):
            snapshot = await self._roster.read()
        elif name := self._plain_name(scope, headers):
            snapshot = await self._roster.append(name)
            scope = {**scope, "query_string": b""}
            key = _key(scope, headers)
        else:
            return None
        return self._list.ask(key, scope, snapshot)

    def _plain_name(self, scope: HTTPScope, headers: list[bytes]) -> str:
        found = PLAIN_QUERY.fullmatch(scope["query_string"])
        if (
            found is not None
            and len(found[1]) <= self._max_plain_length
            and not scope["root_path"]
            and NOT_PLAIN.isdisjoint(headers)
            and all(PLAIN_HOST.fullmatch(value) for name, value in scope["headers"] if name == b"host")
            and not self._stop.has_begun()
        ):
            return found[1].decode()
        return ""


def _key(scope: HTTPScope, headers: list[bytes]) -> Key:
    return scope["method"], scope["path"], scope["query_string"], *headers


def _may_append(query: bytes) -> bool:
    # A key that reads "name" once it is decoded holds those letters or a percent-escape. Most reads have no
    # query, and to look into one takes 0.1 µs a time.
    return query != b"" and (b"name" in query or b"%" in query)
