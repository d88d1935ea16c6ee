"""Appends that need nothing of HTTP but the name, carried out in front of Quart.

Most programs that append send `?name=` with characters that stand for themselves (RFC 3986, section 2.3), and
no header that could matter. Such a request is appended here and answered as a read of the list that it made.
All requests of a batch have the same list, so Quart renders one answer for all of them. Whatever is not
plain, Quart's handler decides.
"""

import re

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from .answer import PATH, Outcome
from .read_cache import ReadCache
from .roster import Roster, RosterError
from .stop import Stop

PLAIN_QUERY = re.compile(rb"name=([A-Za-z0-9._~-]+)")

# A host that Quart answers; some others it refuses, and a request that is refused must not append.
PLAIN_HOST = re.compile(rb"([A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")

# With one of these an append may be refused, or its answer is not that of a read.
NOT_PLAIN = frozenset(
    {b"range", b"if-none-match", b"if-match", b"if-range", b"sec-fetch-site", b"sec-purpose"}
)


class PlainAppends:
    """An ASGI application that carries out plain appends and leaves the rest to `reads`."""

    def __init__(self, reads: ReadCache, roster: Roster, stop: Stop, *, max_name_length: int) -> None:
        self._reads = reads
        self._roster = roster
        self._stop = stop
        self._max_name_length = max_name_length

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation does not take a name back."""
        name = self._plain_name(scope) if scope["type"] == "http" else None
        if scope["type"] != "http" or name is None:
            await self._reads(scope, receive, send)
            return
        try:
            outcome: Outcome = await self._roster.append(name)
        except RosterError as error:
            outcome = error
        await self._reads.answer(outcome, {**scope, "query_string": b""}, receive, send)

    def _plain_name(self, scope: HTTPScope) -> str | None:
        found = PLAIN_QUERY.fullmatch(scope["query_string"])
        if found is None:
            return None
        is_plain = (
            len(found[1]) <= self._max_name_length
            and scope["path"] == PATH
            and scope["method"] in ("GET", "HEAD")
            and not scope["root_path"]
            and NOT_PLAIN.isdisjoint([name for name, _ in scope["headers"]])
            and all(PLAIN_HOST.fullmatch(value) for name, value in scope["headers"] if name == b"host")
            and not self._stop.has_begun(scope)
        )
        return found[1].decode() if is_plain else None
