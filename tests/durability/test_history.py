"""The checker itself: it passes what one list can have answered and nothing else."""

import pytest

from support.history import FIRST, PARAGRAPH, Record, check, parse

LUNA = [*FIRST, "Luna"]
BOTH = [*LUNA, "Ginny"]

GOOD = [
    Record(0, 1, None, 200, FIRST),
    Record(2, 5, "Luna", 200, BOTH),  # answered by the same commit as Ginny
    Record(3, 8, "Ginny", 200, BOTH),
    Record(4, 9, None, 200, FIRST),  # began before any answer with more
    Record(6, 7, None, 200, BOTH),
    Record(6, 9, "Draco", 503),
]


def rejected(history: list[Record], final: list[str], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check(history, final)


def test_accepts_one_list() -> None:
    """A history that one list can have answered passes."""
    check(GOOD, BOTH)
    check([], FIRST)


def test_accepts_either_end_of_the_unknown() -> None:
    """An append answered 503, or cut where that may happen, may stand or not."""
    history = [*GOOD, Record(7, 9, "Neville", None)]
    check(history, BOTH, cuts=True)
    check(history, [*BOTH, "Neville", "Draco"], cuts=True)


def test_accepts_the_cut_that_came_late() -> None:
    """An append that was cut may come into the list long after its client gave up."""
    history = [Record(0, 1, "Luna", None), Record(2, 3, None, 200, FIRST), Record(4, 5, None, 200, LUNA)]
    check(history, LUNA, cuts=True)


def test_rejects_a_cut() -> None:
    """Nobody's connection is cut while nobody is killed."""
    rejected([*GOOD, Record(7, 9, None, None)], BOTH, "answered with")


@pytest.mark.parametrize("status", [400, 404, 500, 507])
def test_rejects_other_statuses(status: int) -> None:
    """Nothing but a list and 503 is an answer."""
    rejected([*GOOD, Record(7, 9, None, status)], BOTH, "answered with")


def test_rejects_a_fork() -> None:
    """An answer that is no prefix of the final list is wrong, even with the same names in it."""
    fork = [*FIRST, "Ginny", "Luna"]
    rejected([*GOOD, Record(6, 9, None, 200, fork)], BOTH, "no prefix")


def test_rejects_more_than_the_final_list() -> None:
    """An answer that is longer than the final list is wrong."""
    rejected([*GOOD, Record(6, 9, None, 200, [*BOTH, "Draco"])], BOTH, "no prefix")


def test_rejects_an_append_without_its_name() -> None:
    """The answer to an append holds its name."""
    rejected([Record(0, 5, "Luna", 200, FIRST)], LUNA, "not in its own answer")


def test_rejects_an_older_list() -> None:
    """A request that began after an answer had ended never sees less, an append no less than a read."""
    history = [Record(0, 1, "Luna", 200, LUNA), Record(0, 9, "Ginny", 200, BOTH)]
    check([*history, Record(2, 8, None, 200, LUNA)], BOTH)
    rejected([*history, Record(2, 8, None, 200, FIRST)], BOTH, "an older list")
    rejected([history[1], Record(10, 11, "Luna", 200, LUNA)], BOTH, "an older list")


def test_rejects_an_older_list_after_a_long_one() -> None:
    """The longest list of all that had ended counts, not the last one."""
    history = [
        Record(0, 2, "Luna", 200, LUNA),
        Record(1, 3, None, 200, FIRST),
        Record(4, 5, None, 200, FIRST),
    ]
    rejected(history, LUNA, "an older list")


def test_rejects_what_is_there_twice() -> None:
    """No name is in the list twice."""
    rejected(GOOD, [*BOTH, "Luna"], "twice")


def test_rejects_a_loss() -> None:
    """What was acknowledged is in the list."""
    rejected([*GOOD, Record(10, 11, "Neville", 200, [*BOTH, "Neville"])], BOTH, "acknowledged and lost")


@pytest.mark.parametrize("final", [[], ["Luna", *FIRST], ["Harry", "Hermione", "Ron", "Luna"]])
def test_rejects_another_start(final: list[str]) -> None:
    """The list starts with the first three, in their order."""
    rejected([Record(0, 1, "Luna", 503)], final, "the first three")


def test_rejects_what_nobody_sent() -> None:
    """Nothing is in the list but the first three and what was sent."""
    rejected(GOOD, [*BOTH, "Voldemort"], "sent by nobody")


def test_rejects_what_is_not_yet_sent() -> None:
    """No answer holds a name whose request began later: so appends keep the order they were made in."""
    history = [Record(0, 1, "Ginny", 200, BOTH), Record(2, 3, "Luna", 200, BOTH)]
    rejected(history, BOTH, "before it was sent")


def test_rejects_a_load_that_repeats_a_name() -> None:
    """A load that sends a name twice cannot be judged."""
    rejected([*GOOD, GOOD[1]], BOTH, "the load itself")


def test_parses_the_page_and_nothing_else() -> None:
    """A page is read back into its names; whatever else is in it is an error."""
    page = "".join(map(PARAGRAPH.format, BOTH))
    assert parse(page) == BOTH
    for broken in (page[:-1], page + "\n", page.replace("Ron", "")):
        with pytest.raises(AssertionError, match="plain names"):
            parse(broken)
