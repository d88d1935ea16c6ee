"""Run the rounds: in each round every contender has a turn on each workload."""

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

from wizards import create_app
from wizards.storage.sqlite_connection import library

from . import wrk
from .answers import Answer, WrongAnswerError, fetch, same_bytes
from .names import NAMES, names
from .services import FLOOR, OURS, Contender, Service
from .workloads import Workload

Cell = tuple[Workload, Contender]
LIMIT = 10_000_000  # names: far more than any measurement appends
APPENDS = 2_000  # equal for all contenders, because every response holds all names


class Bench:
    """The running services, one for each contender and length of list, and the measured rates.

    All services run all the time, because idle services cost nothing. Each round therefore covers all
    workloads, and a disturbance of the machine affects all contenders alike.
    """

    def __init__(self, workloads: Sequence[Workload], folder: Path) -> None:
        self.cells: list[Cell] = [(work, who) for work in workloads for who in work.contenders]
        self.rates: defaultdict[Cell, list[float]] = defaultdict(list)
        self.errors: Counter[Cell] = Counter()
        self._folder = folder
        self._number = count()
        self._services: dict[tuple[Contender, int], Service] = {}
        self._answers: dict[Cell, Answer] = {}

    def run(self, rounds: int, seconds: float | None = None) -> None:
        """Measure every cell `rounds` times, for `seconds` or the workload's own duration."""
        with ExitStack() as stack:
            for work, who in self.cells:
                key = (who, work.names)
                if not work.writers and key not in self._services:
                    self._services[key] = stack.enter_context(self.start(*key))
            for work, who in self._with_progress(1, "checking"):
                if not work.writers:
                    self._check(work, who)
            for cell in self._with_progress(rounds, "measuring"):
                load = self._measure(*cell, seconds or cell[0].seconds)
                self.errors[cell] += load.bad_statuses + load.socket_errors
                self.rates[cell].append(self._rate(cell, load))

    def start(self, who: Contender, length: int) -> Service:
        """Start a service with a list of `length` names; only our own services share a database."""
        path = self._folder / (f"{length}.db" if length > 3 else f"fresh-{next(self._number)}.db")
        if who in OURS and length > 3 and not path.exists():
            asyncio.run(_fill(path, length))
        environment = {
            NAMES: str(length),
            "BENCH_DATABASE": str(path),
            "WIZARDS_DATABASE_URL": f"sqlite:///{path}",
            "WIZARDS_MAX_WIZARDS": str(LIMIT),
        }
        return Service(who, environment, self._folder / f"{next(self._number)}.log")

    def _check(self, work: Workload, who: Contender) -> None:
        port = self._services[who, work.names].port
        etag = fetch(port, work.path).headers.get("etag", '"none"') if work.known else ""
        answer = self._answers[work, who] = fetch(port, work.path, work.headers(etag))
        work.check(who, answer)
        if who in OURS:  # the floor on the same server was checked before
            floor = self._answers[work, FLOOR[OURS.index(who)]]
            if not same_bytes(answer, floor):
                raise WrongAnswerError(f"{work.title}: {who} answers {answer}, but the floor {floor}")

    def _measure(self, work: Workload, who: Contender, seconds: float) -> wrk.Load:
        if work.writers:
            return self._measure_writing(work, who, seconds)
        service = self._services[who, work.names]
        headers = work.headers(self._answers[work, who].headers.get("etag", '"none"'))
        load = wrk.run(wrk.command(service.url(work.path), work.readers, seconds, headers))
        fetch(service.port, "/")  # drains wrk's leftover requests now, not in the next turn
        return load

    def _measure_writing(self, work: Workload, who: Contender, seconds: float) -> wrk.Load:
        with self.start(who, work.names) as service:
            work.check_append(fetch(service.port, "/wizards?name=Neville"), who)
            url = service.url("/wizards?name=")
            if not work.readers:
                return wrk.run(wrk.append_command(url, work.writers, seconds, APPENDS))
            with wrk.running(wrk.append_command(url, work.writers, seconds)):
                return wrk.run(wrk.command(service.url(work.path), work.readers, seconds, {}))

    def _rate(self, cell: Cell, load: wrk.Load) -> float:
        # A response under way at the end counts by its received share; pages of 7 MiB are few a second.
        answer = self._answers.get(cell)
        return (load.received / answer.size if answer else load.requests) / load.seconds

    def _with_progress(self, rounds: int, doing: str) -> Iterator[Cell]:
        cells = self.cells * rounds
        is_watched = sys.stderr.isatty()
        for done, cell in enumerate(cells):
            bar = "#" * (30 * done // len(cells))
            title = f"{cell[0].title}: {cell[1]}"
            if is_watched:
                sys.stderr.write(f"\r\033[K{doing} [{bar:30}] {done}/{len(cells)} {title:.70}")
                sys.stderr.flush()
            yield cell
        if is_watched:
            sys.stderr.write("\r\033[K")


async def _fill(path: Path, length: int) -> None:
    app = create_app({"DATABASE_URL": f"sqlite:///{path}"})
    app.logger.setLevel("ERROR")
    async with app.test_app():  # creates the table with the first three names
        rows = list(enumerate(names(length), 1))[3:]
        with closing(library.connect(path)) as connection, connection:
            connection.executemany("INSERT INTO wizards (position, name) VALUES (?, ?)", rows)
