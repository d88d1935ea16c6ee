"""Define the workloads and their contenders."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from . import names
from .answers import Answer, WrongAnswerError
from .services import FLASK, FLASK_SQLITE, FLOOR, OTHERS, OURS, QUART, Contender

CLIENTS = 64
HONOURING = (*FLOOR, *OURS)  # contenders that honour Accept-Encoding and If-None-Match

HELLO = b"<p>Hello World from Flask!</p>"
GRYFFINDORS = [{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")]


@dataclass(frozen=True)
class Workload:
    """A number of clients that request one path, from a service with a list of `names` names.

    A workload with writers has a fresh service with a database of its own for each measurement. The rate is
    that of the readers, if there are any; otherwise that of the writers, until the writers have appended the
    same number of names as every other contender's.
    """

    title: str
    path: str
    contenders: tuple[Contender, ...]
    names: int = 3
    readers: int = CLIENTS
    writers: int = 0
    gzip: bool = False
    known: bool = False
    seconds: float = 1  # the maximum for each measurement
    charted: bool = False

    def headers(self, etag: str) -> dict[str, str]:
        """Return the request's headers; `etag` is that of the client's copy."""
        if self.known:
            return {"If-None-Match": etag}
        return {"Accept-Encoding": "gzip"} if self.gzip else {}

    def check(self, contender: Contender, answer: Answer) -> None:
        """Raise WrongAnswerError unless the response is right."""
        honours = contender in HONOURING
        status = HTTPStatus.NOT_MODIFIED if self.known and honours else HTTPStatus.OK
        zipped = answer.headers.get("content-encoding") == "gzip"
        if answer.status != status or zipped != (self.gzip and honours) or not self._is_right(answer):
            raise WrongAnswerError(f"{self.title}: {contender} answers wrongly: {answer}")

    def check_append(self, answer: Answer, contender: Contender) -> None:
        """Raise WrongAnswerError unless the response to the append of Neville is right."""
        if answer.body != names.page([*names.names(self.names), "Neville"]):
            raise WrongAnswerError(f"{self.title}: {contender} answers wrongly: {answer}")

    def _is_right(self, answer: Answer) -> bool:
        if answer.status == HTTPStatus.NOT_MODIFIED:
            return not answer.body
        if self.path == "/":
            return answer.body == HELLO
        if self.path == "/api/wizards":
            return bool(json.loads(answer.body) == GRYFFINDORS)
        return answer.body == names.page(names.names(self.names))


def _on_hypercorn(*groups: list[Contender]) -> tuple[Contender, ...]:
    return tuple(group[0] for group in groups)


def _pages(
    which: str, contenders: tuple[Contender, ...], sizes: Sequence[int], charted: int, **traits: bool
) -> Iterator[Workload]:
    for size in sizes:
        title = f"/wizards, {size:,} names{which}"
        # Some applications need a second for 64 pages of 7 MiB before the first byte is sent.
        seconds = 1 if traits or size < SIZES[-1] else 3
        yield Workload(
            title, "/wizards", contenders, size, seconds=seconds, charted=size == charted, **traits
        )


ALL = (*FLOOR, *OURS, *FLASK, *QUART, *OTHERS)
PAGE_BUILDERS = _on_hypercorn(FLOOR, OURS, FLASK, QUART)
KEEPERS = _on_hypercorn(FLOOR, OURS, FLASK)
DURABLE = (*OURS, *FLASK_SQLITE)
SIZES = (3, 1_000, 10_000, 100_000)

WORKLOADS = [
    Workload("/", "/", ALL, charted=True),
    Workload("/api/wizards", "/api/wizards", ALL),
    Workload("/wizards, 3 names", "/wizards", ALL, charted=True),
    *_pages("", PAGE_BUILDERS, SIZES[1:], charted=10_000),
    *_pages(", gzip", KEEPERS, SIZES, charted=10_000, gzip=True),
    *_pages(", unchanged", KEEPERS, SIZES, charted=SIZES[-1], known=True),
    *(
        Workload(
            f"durable appends, {writers} client{'s' * (writers > 1)}",
            "/wizards",
            DURABLE,
            readers=0,
            writers=writers,
            seconds=4,
            charted=writers == CLIENTS,
        )
        for writers in (1, CLIENTS, 512)
    ),
    *(
        Workload(f"{path}, while {CLIENTS} clients append", path, DURABLE, writers=CLIENTS, seconds=2)
        for path in ("/", "/wizards")
    ),
]
