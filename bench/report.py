"""Report the results: medians, ratios, tables, and the machine."""

import json
import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from .measure import Bench, Cell
from .memory import Footprint
from .promises import PROMISES, Promise
from .services import ASGI_SERVERS, FLASK, FLASK_SQLITE, FLOOR, Contender

PACKAGES = (
    *("quart-wizards", "quart", "flask", "fastapi", "starlette", "blacksheep"),
    *("hypercorn", "uvicorn", "httptools", "uvloop", "granian", "gunicorn"),
)

LEGEND = """
Requests a second are the median of the rounds, and ratios are the median of the rounds' ratios.
In a round the contenders are measured right after one another.
wrk has one core to itself, and the contenders have the other cores.
The floor is a bare ASGI callable that sends the same bytes on the same server.
Flask is the tutorial's app on gunicorn's sync worker.
For appends, Flask is a variant of that app that commits each append to SQLite.
Errors are responses with a status of 400 or more, and failed connections.
The unit "page" is the page of 100,000 names.
"""

Is = Callable[[Contender, Contender], bool]


def is_floor(other: Contender, who: Contender) -> bool:
    """Return whether `other` is the floor on the server of `who`."""
    return other in FLOOR and other.server == who.server


def is_flask(other: Contender, _: Contender) -> bool:
    """Return whether `other` is the Flask application to compare with."""
    return other in (FLASK[0], *FLASK_SQLITE)


class Results:
    """The results of a benchmark, ready to be shown."""

    def __init__(self, bench: Bench, footprints: list[Footprint]) -> None:
        self.rates = dict(bench.rates)
        self.errors = bench.errors
        self.footprints = footprints
        self.about = about()

    def ratio(self, cell: Cell, other: Cell) -> float | None:
        """Return the median of the rounds' ratios of two cells."""
        pairs = zip(self.rates[cell], self.rates[other], strict=True)
        each = [one / reference for one, reference in pairs if reference]
        return median(each) if each else None

    def ratio_to(self, reference: Is, cell: Cell) -> float | None:
        """Return a cell's ratio to the reference on the same workload, or None."""
        for other in self.rates:
            if other[0] == cell[0] and other != cell and reference(other[1], cell[1]):
                return self.ratio(cell, other)
        return None

    def promises(self) -> Iterator[tuple[Promise, float]]:
        """Yield each promise whose two sides were measured, with the measured ratio."""
        cells = {(work.title, who): (work, who) for work, who in self.rates}
        for promise in PROMISES:
            ours = cells.get((promise.workload, promise.ours))
            reference = cells.get((promise.reference_workload, promise.reference))
            if ours and reference and (found := self.ratio(ours, reference)):
                yield promise, found

    def markdown(self) -> str:
        """Return the tables, the machine and the versions as Markdown."""
        lines = [
            "# What `make bench` found",
            LEGEND,
            "| promised | on | times the rate of | at least | found |",
            "| --- | --- | --- | ---: | ---: |",
        ]
        lines += [_promise_row(promise, found) for promise, found in self.promises()]
        lines += [
            "",
            "| workload | contender | requests/s | of the floor | times Flask | errors |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        for work, cells in groupby(self.rates, key=lambda cell: cell[0]):
            rows = [self._row(cell) for cell in cells]
            lines += [f"| {work.title} {rows[0]}", *(f"| {row}" for row in rows[1:])]
        if self.footprints:
            lines += ["", "| | measured | allowed |", "| --- | ---: | ---: |"]
        for title, measured, allowed, unit in self.footprints:
            lines.append(f"| {title} | {measured:.2f} {unit} | {allowed:.2f} {unit} |")
        lines += ["", *(f"- {title}: {value}" for title, value in self.about.items()), ""]
        return "\n".join(lines)

    def _row(self, cell: Cell) -> str:
        ratios = [self.ratio_to(reference, cell) for reference in (is_floor, is_flask)]
        shown = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        errors = str(self.errors[cell] or "")
        return f"| {cell[1]} | {median(self.rates[cell]):,.0f} | {' | '.join(shown)} | {errors} |"

    def json(self) -> str:
        """Return all results, including each round, as JSON."""
        cells = [self._cell(cell) for cell in self.rates]
        footprints = [footprint._asdict() for footprint in self.footprints]
        return json.dumps({"about": self.about, "memory": footprints, "cells": cells}, indent=1) + "\n"

    def _cell(self, cell: Cell) -> dict[str, Any]:
        return {
            "workload": cell[0].title,
            "contender": cell[1].name,
            "server": cell[1].server,
            "rounds": [round(rate, 1) for rate in self.rates[cell]],
            "median": round(median(self.rates[cell]), 1),
            "errors": self.errors[cell],
            "to_floor": self.ratio_to(is_floor, cell),
            "to_flask": self.ratio_to(is_flask, cell),
        }


def _promise_row(promise: Promise, found: float) -> str:
    reference = promise.reference
    is_elsewhere = reference.server in ASGI_SERVERS and reference.server != promise.ours.server
    rival = str(reference) if is_elsewhere else reference.name
    if promise.reference_workload != promise.workload:
        rival += f" on `{promise.reference_workload}`"
    # Three digits, because two would round 0.998 up to a promise of 1.
    cells = (f"`{promise.workload}`", promise.ours.server, rival, str(promise.factor), f"{found:.3f}")
    return f"| {' | '.join(cells)} |"


def about() -> dict[str, str]:
    """Return the machine, the versions and the date."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = info.read_text().partition("model name")[2].partition(":")[2].partition("\n")[0].strip()
    return {
        "machine": f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
