"""The results: medians, ratios, a table, and the machine they were found on."""

import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from .measure import Bench, Cell
from .memory import Footprint
from .services import FLASK, FLASK_SQLITE, FLOOR, Contender

PACKAGES = (
    *("wizards", "quart", "flask", "fastapi", "starlette", "blacksheep"),
    *("hypercorn", "uvicorn", "httptools", "uvloop", "granian", "gunicorn"),
)

Is = Callable[[Contender, Contender], bool]


def is_floor(other: Contender, who: Contender) -> bool:
    """Whether one contender is the floor of the other's server."""
    return other in FLOOR and other.server == who.server


def is_flask(other: Contender, _: Contender) -> bool:
    """Whether a contender is the Flask application to compare with."""
    return other in (FLASK[0], *FLASK_SQLITE)


class Results:
    """What a benchmark has found, ready to be shown."""

    def __init__(self, bench: Bench, footprints: list[Footprint]) -> None:
        self.rates = dict(bench.rates)
        self.errors = bench.errors
        self.footprints = footprints
        self.about = about()

    def ratios(self, cell: Cell, reference: Is) -> tuple[float, float] | None:
        """Return the median of the rounds' ratios to a reference, and the ratio of the medians."""
        for other, rates in self.rates.items():
            if other[0] == cell[0] and other != cell and reference(other[1], cell[1]):
                pairs = zip(self.rates[cell], rates, strict=True)
                each = [ours / theirs for ours, theirs in pairs if theirs]
                return (median(each), median(self.rates[cell]) / median(rates)) if each else None
        return None

    def markdown(self) -> str:
        """Return the tables and what they were measured on."""
        lines = [
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
        ratios = [self.ratios(cell, reference) for reference in (is_floor, is_flask)]
        shown = ["" if ratio is None else f"{ratio[0]:.2f}" for ratio in ratios]
        errors = str(self.errors[cell] or "")
        return f"| {cell[1]} | {median(self.rates[cell]):,.0f} | {' | '.join(shown)} | {errors} |"

    def json(self) -> str:
        """Return everything, each round of it too."""
        cells = [self._cell(cell) for cell in self.rates]
        footprints = [footprint._asdict() for footprint in self.footprints]
        return json.dumps({"about": self.about, "memory": footprints, "cells": cells}, indent=1) + "\n"

    def _cell(self, cell: Cell) -> dict[str, Any]:
        names = ("median_of_ratios", "ratio_of_medians")
        return {
            "workload": cell[0].title,
            "contender": cell[1].name,
            "server": cell[1].server,
            "rounds": [round(rate, 1) for rate in self.rates[cell]],
            "median": round(median(self.rates[cell]), 1),
            "errors": self.errors[cell],
            "to_floor": dict(zip(names, self.ratios(cell, is_floor) or (), strict=False)),
            "to_flask": dict(zip(names, self.ratios(cell, is_flask) or (), strict=False)),
        }


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
