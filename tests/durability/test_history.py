"""The checker of histories: it accepts what one list can have answered and rejects anything else."""

import pytest

from support.history import Record, check_history
from support.pages import parse_page, render_page
from wizards.storage.base import FIRST_WIZARDS

FIRST = [*FIRST_WIZARDS]
LUNA = [*FIRST, "Luna"]
BOTH = [*LUNA, "Ginny"]

GOOD = [
    Record(0, 1, None, 200, FIRST),
    Record(2, 5, "Luna", 200, BOTH),  # the same commit as Ginny
    Record(3, 8, "Ginny", 200, BOTH),
    Record(4, 9, None, 200, FIRST),  # started before any longer answer
    Record(6, 7, None, 200, BOTH),
    Record(6, 9, "Draco", 503),
]


def assert_rejected(history: list[Record], final: list[str], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_history(history, final)


def test_accepts_one_list() -> None:
    """A history that one list can have answered is accepted."""
    check_history(GOOD, BOTH)
    check_history([], FIRST)


def test_accepts_either_outcome_of_an_unknown_append() -> None:
    """An append that was answered 503, or aborted where that is allowed, may be in the list or not."""
    history = [*GOOD, Record(7, 9, "Neville", None)]
    check_history(history, BOTH, allow_aborts=True)
    check_history(history, [*BOTH, "Neville", "Draco"], allow_aborts=True)


def test_accepts_an_aborted_append_that_commits_later() -> None:
    """An aborted append may enter the list long after its client disconnected."""
    history = [Record(0, 1, "Luna", None), Record(2, 3, None, 200, FIRST), Record(4, 5, None, 200, LUNA)]
    check_history(history, LUNA, allow_aborts=True)


def test_rejects_an_abort() -> None:
    """Unless aborts are allowed, every request has a response."""
    assert_rejected([*GOOD, Record(7, 9, None, None)], BOTH, "unexpected statuses")


@pytest.mark.parametrize("status", [400, 404, 500, 507])
def test_rejects_other_statuses(status: int) -> None:
    """Every status but 200 and 503 is rejected."""
    assert_rejected([*GOOD, Record(7, 9, None, status)], BOTH, "unexpected statuses")


def test_rejects_a_fork() -> None:
    """An answer that is not a prefix of the final list is rejected, even with the same names in it."""
    fork = [*FIRST, "Ginny", "Luna"]
    assert_rejected([*GOOD, Record(6, 9, None, 200, fork)], BOTH, "not a prefix")


def test_rejects_more_than_the_final_list() -> None:
    """An answer that is longer than the final list is rejected."""
    assert_rejected([*GOOD, Record(6, 9, None, 200, [*BOTH, "Draco"])], BOTH, "not a prefix")


def test_rejects_an_append_without_its_name() -> None:
    """An answer to an append that lacks its name is rejected."""
    assert_rejected([Record(0, 5, "Luna", 200, FIRST)], LUNA, "not in its own response")


def test_rejects_a_stale_list() -> None:
    """A list shorter than an answer that had ended before is rejected, for appends and reads alike."""
    history = [Record(0, 1, "Luna", 200, LUNA), Record(0, 9, "Ginny", 200, BOTH)]
    check_history([*history, Record(2, 8, None, 200, LUNA)], BOTH)
    assert_rejected([*history, Record(2, 8, None, 200, FIRST)], BOTH, "stale")
    assert_rejected([history[1], Record(10, 11, "Luna", 200, LUNA)], BOTH, "stale")


def test_rejects_a_list_older_than_the_longest() -> None:
    """The longest of all answers that had ended counts, not the last one."""
    history = [
        Record(0, 2, "Luna", 200, LUNA),
        Record(1, 3, None, 200, FIRST),
        Record(4, 5, None, 200, FIRST),
    ]
    assert_rejected(history, LUNA, "stale")


def test_rejects_a_duplicate() -> None:
    """A list that holds a name twice is rejected."""
    assert_rejected(GOOD, [*BOTH, "Luna"], "twice")


def test_rejects_a_loss() -> None:
    """A list that lacks an acknowledged name is rejected."""
    assert_rejected(
        [*GOOD, Record(10, 11, "Neville", 200, [*BOTH, "Neville"])], BOTH, "acknowledged but lost"
    )


@pytest.mark.parametrize("final", [[], ["Luna", *FIRST], ["Harry", "Hermione", "Ron", "Luna"]])
def test_rejects_another_start(final: list[str]) -> None:
    """A list that does not start with the first three in order is rejected."""
    assert_rejected([Record(0, 1, "Luna", 503)], final, "the first three")


def test_rejects_an_unsent_name() -> None:
    """A list with a name that no client sent is rejected."""
    assert_rejected(GOOD, [*BOTH, "Voldemort"], "never sent")


def test_rejects_a_name_from_the_future() -> None:
    """An answer with a name whose request started later is rejected, so appends keep real-time order."""
    history = [Record(0, 1, "Ginny", 200, BOTH), Record(2, 3, "Luna", 200, BOTH)]
    assert_rejected(history, BOTH, "before it was sent")


def test_rejects_a_workload_that_repeats_a_name() -> None:
    """A workload that sends a name twice cannot be checked."""
    assert_rejected([*GOOD, GOOD[1]], BOTH, "the workload sent")


def test_parses_only_pages_of_the_list() -> None:
    """A page is parsed into its names; anything else in the page is an error."""
    page = render_page(BOTH)
    assert parse_page(page) == BOTH
    for broken in (page[:-1], page + "\n", page.replace("Ron", "")):
        with pytest.raises(AssertionError, match="not a page"):
            parse_page(broken)
