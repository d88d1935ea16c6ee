"""Appends that need nothing of HTTP but the name, carried out in front of Quart.

Most programs that append send `?name=` with letters and digits, and no header that could matter. Such a
request is appended here and answered as a read of the list that it made. All requests of a batch have the
same list, so Quart renders one answer for all of them. Whatever is not plain, Quart's handler decides.
"""

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from .answer import PATH, Outcome
from .read_cache import ReadCache
from .roster import Roster, RosterError
from .stop import Stop

KEY = b"name="

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
        self._max_query_length = len(KEY) + max_name_length

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request. A cancellation does not take a name back."""
        if scope["type"] != "http" or not self._is_plain_append(scope):
            await self._reads(scope, receive, send)
            return
        name = scope["query_string"].removeprefix(KEY).decode()
        try:
            outcome: Outcome = await self._roster.append(name)
        except RosterError as error:
            outcome = error
        await self._reads.answer(outcome, {**scope, "query_string": b""}, receive, send)

    def _is_plain_append(self, scope: HTTPScope) -> bool:
        query = scope["query_string"]
        return (
            query.startswith(KEY)
            and query.removeprefix(KEY).isalnum()  # for bytes: ASCII letters and digits, one at least
            and len(query) <= self._max_query_length
            and scope["path"] == PATH
            and scope["method"] in ("GET", "HEAD")
            and NOT_PLAIN.isdisjoint([name for name, _ in scope["headers"]])
            and not self._stop.has_begun(scope)
        )
