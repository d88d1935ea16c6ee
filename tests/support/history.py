"""Records of requests under load, and a check that one list can have answered all of them.

A list that only grows makes linearizability cheap to check. Every response is a prefix of one final list, so
its length identifies it, and one sweep in the order of time compares it with everything it has to contain.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from wizards.storage.base import FIRST_WIZARDS


@dataclass(frozen=True, slots=True)
class Record:
    """A finished request: its start and end (ns), the name it was to append, its status, the list it got.

    A read has no name. A request whose connection was aborted has no status. Only a 200 has a list.
    """

    start: int
    end: int
    name: str | None
    status: int | None
    names: list[str] = field(default_factory=list)


def check_history(history: Sequence[Record], final: list[str], *, allow_aborts: bool = False) -> None:
    """Assert that one list, which ended as `final`, can have given every response in `history`.

    An append that was answered 503 may be in the list once or not at all. With `allow_aborts` the same holds
    for an append whose connection was aborted.
    """
    check_statuses(history, allow_aborts=allow_aborts)
    check_names(history, final)
    check_order(history, final)


def check_statuses(history: Sequence[Record], *, allow_aborts: bool) -> None:
    """Assert that every response was a list or a 503; with `allow_aborts` it may be missing."""
    unexpected = {record.status for record in history} - {200, 503} - ({None} if allow_aborts else set())
    assert not unexpected, f"unexpected statuses: {unexpected}"


def check_names(history: Sequence[Record], final: list[str]) -> None:
    """Assert that the list holds the first three, every acknowledged name, nothing unsent, no duplicates."""
    sent = [record.name for record in history if record.name]
    assert len(sent) == len(set(sent)), "the workload sent a name twice"
    acknowledged = {record.name for record in history if record.name and record.status == 200}
    found = set(final)
    assert tuple(final[:3]) == FIRST_WIZARDS, f"the list does not start with the first three: {final[:3]}"
    assert len(final) == len(found), "a name is in the list twice"
    assert not acknowledged - found, f"acknowledged but lost: {acknowledged - found}"
    assert not found - {*FIRST_WIZARDS, *sent}, f"never sent: {found - {*FIRST_WIZARDS, *sent}}"


def check_order(history: Sequence[Record], final: list[str]) -> None:
    """Assert that every response is a prefix of `final` whose length fits the time of its request."""
    responses = [record for record in history if record.status == 200]
    for record in responses:
        length = len(record.names)
        assert record.names == final[:length], f"not a prefix of the final list: …{record.names[-3:]}"
        assert record.name is None or record.name in record.names, f"not in its own response: {record.name}"
    check_not_stale(responses)
    start = {record.name: record.start for record in history}
    latest = list(itertools.accumulate((start.get(name, 0) for name in final), max))
    for record in responses:
        assert not record.names or latest[len(record.names) - 1] < record.end, "returned before it was sent"


def check_not_stale(responses: Sequence[Record]) -> None:
    """Assert that no response is shorter than one that had ended before its request started."""
    ended = sorted(responses, key=lambda record: record.end)
    seen, longest = 0, 0
    for record in sorted(responses, key=lambda record: record.start):
        while ended[seen].end < record.start:
            longest = max(longest, len(ended[seen].names))
            seen += 1
        length = len(record.names)
        assert length >= longest, f"stale: {length} names after a response with {longest}"
