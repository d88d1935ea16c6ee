"""The shared list as an HTTP resource: one function answers for it, called by view and middleware."""

import re
from collections.abc import AsyncGenerator, Callable
from urllib.parse import parse_qsl

from werkzeug.exceptions import BadRequest, Forbidden, ServiceUnavailable

from wizards.core.feed import Feed
from wizards.core.rendering import Snapshot
from wizards.core.roster import Roster
from wizards.web.errors import RETRY_AFTER
from wizards.web.list_request import ListRequest
from wizards.web.representation import Answer, render

# Rendered answers that are kept for one snapshot, each for one request that the fast path has parsed and
# keeps. Their bodies are the list's own blocks.
MAX_ANSWERS = 256


class ListResource:
    """The shared list over HTTP, with names of at most `max_name_length` code points."""

    def __init__(
        self, roster: Roster, feed: Feed, *, max_name_length: int, must_refuse_appends: Callable[[], bool]
    ) -> None:
        self.roster = roster
        self.feed = feed
        self._max_name_length = max_name_length
        self._must_refuse_appends = must_refuse_appends
        self._snapshot: Snapshot | None = None
        self._answers: dict[tuple[ListRequest, bool], Answer] = {}

    async def answer(self, request: ListRequest, name: str | None) -> Answer:
        """Answer a read or, with a `name`, an append.

        Raises RosterError or HTTPException. A cancellation does not take the name back.
        """
        snapshot = await self._ask(request, name)
        return self._rendered(snapshot, request, is_append=bool(name))

    async def follow(self, request: ListRequest, name: str | None, last_id: str) -> AsyncGenerator[bytes]:
        """Return the events behind `last_id`, or without it all of them, after appending `name`.

        With a `last_id` the client resumes a stream, whose start has appended the name already.
        Raises RosterError or HTTPException. A cancellation does not take the name back.
        """
        snapshot = await self._ask(request, None if last_id else name)
        if last_id and not re.fullmatch("[0-9]{1,20}", last_id):
            raise BadRequest("Last-Event-ID is no number; it may be the id of an event of this list.")
        position = int(last_id or 0)
        if position > snapshot.length:
            raise BadRequest(f"Last-Event-ID is {position}, but the list has {snapshot.length} wizards.")
        return self.feed.follow(position)

    def known_answer(self, request: ListRequest, name: str | None) -> Answer | None:
        """Return what `answer` would return, or None if that takes an exchange with the storage."""
        snapshot = None if name else self.roster.current()
        if snapshot is None:
            return None
        return self._rendered(snapshot, request, is_append=False)

    async def _ask(self, request: ListRequest, name: str | None) -> Snapshot:
        if not name:
            return await self.roster.read()
        self._check(request, name)
        return await self.roster.append(name)

    def _check(self, request: ListRequest, name: str) -> None:
        if request.append_refusal:
            raise Forbidden(request.append_refusal)
        if len(name) > self._max_name_length:
            raise BadRequest(
                f"The name has {len(name)} characters; it may have {self._max_name_length} at most."
            )
        if "\0" in name:
            raise BadRequest("The name holds a NUL character; it may hold any other.")
        if self._must_refuse_appends():
            raise ServiceUnavailable(
                "This server is stopping and did nothing. Try again.", retry_after=RETRY_AFTER
            )

    def _rendered(self, snapshot: Snapshot, request: ListRequest, *, is_append: bool) -> Answer:
        if snapshot is not self._snapshot or len(self._answers) > MAX_ANSWERS:
            self._snapshot, self._answers = snapshot, {}
        answer = self._answers.get((request, is_append))
        if answer is None:
            answer = render(snapshot, request, is_append=is_append)
            if request.range is None:  # each client asks for another part
                self._answers[request, is_append] = answer
        return answer


def name_in(query: bytes) -> str | None:
    """Return the first `name` of a query string, as Werkzeug's `request.args` has it."""
    if not query or (b"name" not in query and b"%" not in query):  # no key can read "name" once decoded
        return None
    text = query.decode(errors="werkzeug.url_quote")
    pairs = parse_qsl(text, keep_blank_values=True, errors="werkzeug.url_quote")
    return next((value for key, value in pairs if key == "name"), None)
