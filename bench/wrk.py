"""Run wrk, the load generator, and parse its output."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple, Self

from . import cores

SCRIPT = Path(__file__).with_name("wrk.lua")
HINT = "bench: wrk is missing; get it with: apt install wrk (or: brew install wrk)\n"

_prefixes = count()


class Load(NamedTuple):
    """The result of a run of wrk: responses, bytes received, seconds, and errors."""

    requests: int
    received: int
    seconds: float
    bad_statuses: int
    socket_errors: int

    @classmethod
    def parse(cls, output: str) -> Self:
        """Parse the output of wrk.lua."""
        found = json.loads(output.rpartition("RESULT ")[2])
        return cls(
            found["requests"], found["bytes"], found["microseconds"] / 1e6, found["status"], found["socket"]
        )


def command(url: str, clients: int, seconds: float, headers: dict[str, str]) -> list[str]:
    """Return the command line of clients that read.

    One thread of wrk is faster than any server here.
    """
    options = [f"-H{name}: {value}" for name, value in headers.items()]
    load = ["-t1", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout=60s"]
    return cores.for_wrk(["wrk", *load, *options, f"-s{SCRIPT}", url, "--"])


def append_command(url: str, clients: int, seconds: float, answers: int | None = None) -> list[str]:
    """Return the command line of clients that append, until `answers` responses if given."""
    # The prefix is unique to this run, so no list gets the same name twice.
    prefix = f"Wizard-{next(_prefixes)}-"
    # Each client sends a further request after its last response, so there is one more request per client.
    return [*command(url, clients, seconds, {}), prefix, *([str(answers + clients)] if answers else [])]


def run(arguments: list[str]) -> Load:
    """Run wrk until it ends, and return its result."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, text=True)  # noqa: S603
    return Load.parse(done.stdout)


@contextmanager
def running(arguments: list[str]) -> Iterator[None]:
    """Run wrk in the background and discard its result."""
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            yield
        finally:
            process.terminate()
