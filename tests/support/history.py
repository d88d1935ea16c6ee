"""What clients were answered under load, and whether one list can have answered it.

A list that only grows makes linearizability cheap to check. All answers are prefixes of one final list, so an
answer is known by its length, and one sweep in the order of time compares it with all that it has to hold.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST = ["Harry", "Ron", "Hermione"]
PARAGRAPH = "<p>Hello {} is a wizard of system design with Flask!</p>"
NAME = re.compile(PARAGRAPH.format("([A-Za-z0-9.]+)"))


@dataclass(frozen=True, slots=True)
class Record:
    """One finished request: when it began and ended (ns), the name it was to append, and what came of it.

    A read has no name. A request whose connection was cut has no status, and none but a 200 has a list.
    """

    start: int
    end: int
    name: str | None
    status: int | None
    names: list[str] = field(default_factory=list)


def parse(page: str) -> list[str]:
    """Return the plain names on an HTML page that holds nothing else."""
    names = NAME.findall(page)
    assert page == "".join(map(PARAGRAPH.format, names)), f"not a list of plain names: {page[-200:]}"
    return names


def check(history: Sequence[Record], final: list[str], *, cuts: bool = False) -> None:
    """Assert that one list, which ended as `final`, can have given every answer in `history`.

    An append that was answered 503, or (with `cuts`) whose connection was cut, may stand, once, or not.
    """
    check_statuses(history, cuts=cuts)
    check_names(history, final)
    check_order(history, final)


def check_statuses(history: Sequence[Record], *, cuts: bool) -> None:
    """Assert that every request was answered, by a list or by a 503; or with `cuts` by nothing."""
    unexpected = {record.status for record in history} - {200, 503} - ({None} if cuts else set())
    assert not unexpected, f"answered with {unexpected}"


def check_names(history: Sequence[Record], final: list[str]) -> None:
    """Assert that the list holds the first three, all that was acknowledged, and nothing else; all once."""
    sent = [record.name for record in history if record.name]
    assert len(sent) == len(set(sent)), "the load itself sent a name twice"
    acknowledged = {record.name for record in history if record.name and record.status == 200}
    found = set(final)
    assert final[:3] == FIRST, f"does not start with the first three: {final[:3]}"
    assert len(final) == len(found), "something is in the list twice"
    assert not acknowledged - found, f"acknowledged and lost: {acknowledged - found}"
    assert not found - {*FIRST, *sent}, f"sent by nobody: {found - {*FIRST, *sent}}"


def check_order(history: Sequence[Record], final: list[str]) -> None:
    """Assert that every answer is a prefix, at least as long and at most as long as its time allows."""
    answers = [record for record in history if record.status == 200]
    for record in answers:
        length = len(record.names)
        assert record.names == final[:length], f"no prefix of the final list: …{record.names[-3:]}"
        assert record.name is None or record.name in record.names, f"not in its own answer: {record.name}"
    check_not_behind(answers)
    began = {record.name: record.start for record in history}
    latest = list(itertools.accumulate((began.get(name, 0) for name in final), max))
    for record in answers:
        assert not record.names or latest[len(record.names) - 1] < record.end, "answered before it was sent"


def check_not_behind(answers: Sequence[Record]) -> None:
    """Assert that no answer is shorter than one which had ended before its request began."""
    ended = sorted(answers, key=lambda record: record.end)
    seen, longest = 0, 0
    for record in sorted(answers, key=lambda record: record.start):
        while ended[seen].end < record.start:
            longest = max(longest, len(ended[seen].names))
            seen += 1
        length = len(record.names)
        assert length >= longest, f"an older list, {length} names, where {longest} had been answered"
