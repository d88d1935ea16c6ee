"""The expected content of the three routes, and a parser for the page of the list."""

import re
from collections.abc import Iterable

GREETING = "<p>Hello World from Flask!</p>"
GRYFFINDORS = [{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")]
PARAGRAPH = "<p>Hello {} is a wizard of system design with Flask!</p>"
NAME = re.compile(PARAGRAPH.format("([^<]+)"))


def render_page(names: Iterable[str]) -> str:
    """Return the page that shows `names`, which are already escaped."""
    return "".join(map(PARAGRAPH.format, names))


def parse_page(page: str) -> list[str]:
    """Return the names on a page of the list, still escaped; fail if the page holds anything else."""
    names = NAME.findall(page)
    assert page == render_page(names), f"not a page of the list: {page[-200:]}"
    return names
