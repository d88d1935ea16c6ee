"""wrk, the load generator, and what it says."""

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
    """What a run of wrk has done: answers, bytes received, seconds, and what went wrong."""

    requests: int
    received: int
    seconds: float
    bad_statuses: int
    socket_errors: int

    @classmethod
    def parse(cls, output: str) -> Self:
        """Read what wrk.lua has printed."""
        found = json.loads(output.rpartition("RESULT ")[2])
        return cls(
            found["requests"], found["bytes"], found["microseconds"] / 1e6, found["status"], found["socket"]
        )


def command(url: str, clients: int, seconds: float, headers: dict[str, str]) -> list[str]:
    """Return the command line of clients that read. One thread of wrk is faster than any server here."""
    options = [f"-H{name}: {value}" for name, value in headers.items()]
    load = ["-t1", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout=60s"]
    return cores.for_wrk(["wrk", *load, *options, f"-s{SCRIPT}", url, "--"])


def append_command(url: str, clients: int, seconds: float, answers: int | None = None) -> list[str]:
    """Return the command line of clients that append, until there are so many answers if that is said."""
    # A name that no other run has used: a list is never appended to twice with the same one.
    prefix = f"Wizard-{next(_prefixes)}-"
    # A client asks again when it has its answer, so there are as many more requests as there are clients.
    return [*command(url, clients, seconds, {}), prefix, *([str(answers + clients)] if answers else [])]


def run(arguments: list[str]) -> Load:
    """Run wrk to its end."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, text=True)  # noqa: S603
    return Load.parse(done.stdout)


@contextmanager
def running(arguments: list[str]) -> Iterator[None]:
    """Let wrk run beside something else; what it has done does not matter."""
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            yield
        finally:
            process.terminate()
