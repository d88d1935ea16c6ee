"""Mixed load for minutes, servers and PostgreSQL killed at random: `make soak ARGS='--minutes 10'`.

Every round has a database of its own, SQLite and PostgreSQL by turns, and two servers, which are killed in
the middle of requests; PostgreSQL is crashed under them. It ends with the check of every answer against the
list. Beside them one server, on a PostgreSQL database with a short list, lives through all rounds: its
memory counts.
"""

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support.history import Record, check
from support.postgresql import PostgreSQL
from support.servers import Server
from support.workload import recover, run_workload, stored

MOST_BETWEEN_KILLS = 300  # answers
OUTAGE = 100  # answers
LONGEST_OUTAGE = 10  # seconds
SHORT_LIST = {"WIZARDS_MAX_WIZARDS": "1000"}
WARM_UP = 3  # rounds, until the survivor's list is full and its caches are what they will be


@dataclass
class Soak:
    """What goes on, and what it has come to."""

    postgresql: PostgreSQL
    folder: Path
    chance: random.Random
    rounds: int = 0
    statuses: Counter[int | None] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    async def run(self, minutes: float) -> None:
        """Run rounds for so many minutes, and the last one to its end."""
        end = time.monotonic() + 60 * minutes
        with Server(self.folder, self.postgresql.new_database(), settings=SHORT_LIST) as survivor:
            while time.monotonic() < end:
                self.rounds += 1
                try:
                    await self._round(survivor)
                except* Exception as errors:  # noqa: BLE001  # whatever it is, it counts
                    self.violations += [f"round {self.rounds}: {error!r}" for error in errors.exceptions]
                self.memory.append(survivor.memory())

    async def _round(self, survivor: Server) -> None:
        kind = ("sqlite", "postgresql")[self.rounds % 2]
        file = self.folder / f"{self.rounds}.db"
        url = f"sqlite:///{file}" if kind == "sqlite" else self.postgresql.new_database()
        trouble = Trouble(self, crashes=kind == "postgresql")
        with Server(self.folder, url) as one, Server(self.folder, url) as two:
            supervisors = [asyncio.create_task(supervise(server)) for server in (one, two)]
            try:
                history, beside = await asyncio.gather(
                    run_workload([one, two], after_answer=trouble.after_answer), run_workload([survivor])
                )
                trouble.end()
                for server in (one, two):
                    history += await recover(server, f"after.{server.port}")
            finally:
                trouble.end()
                for supervisor in supervisors:
                    supervisor.cancel()
            self._note(history + beside)
            for server in (one, two, survivor):
                assert "Traceback" not in server.output(), server.log
        check(history, await stored(url), cuts=True)

    def _note(self, history: list[Record]) -> None:
        self.statuses.update(record.status for record in history)

    def report(self) -> str:
        """Return all of it in a few lines."""
        answers = ", ".join(f"{count} x {status or 'cut'}" for status, count in self.statuses.most_common())
        killed = ", ".join(f"{kind} {count} times" for kind, count in self.kills.items())
        first, last = (self.memory[index] / 2**20 for index in (min(WARM_UP, self.rounds) - 1, -1))
        lines = [
            f"rounds: {self.rounds}; requests: {self.statuses.total()} ({answers})",
            f"killed: {killed}",
            f"memory of the server that lived: {first:.1f} MiB after {WARM_UP} rounds, {last:.1f} at the end",
            f"violations: {len(self.violations)}",
        ]
        return "\n".join(lines + self.violations)


class Trouble:
    """What befalls the servers of one round, told after every answer."""

    def __init__(self, soak: Soak, *, crashes: bool) -> None:
        self._soak = soak
        self._crashes = crashes
        self._is_down = False
        self._next = self._soon()

    def after_answer(self, count: int, server: Server) -> None:
        """Kill the server that gave the answer, or its database, if the time has come."""
        if count < self._next:
            return
        self._next = count + self._soon()
        if self._is_down:
            self.end()
        elif self._crashes and self._soak.chance.random() < 0.5:
            self._soak.kills["PostgreSQL"] += 1
            self._soak.postgresql.stop("immediate")
            self._is_down = True
            self._next = count + OUTAGE
            # A server that was starting ends, and the clients of the other may have few requests left.
            asyncio.get_running_loop().call_later(LONGEST_OUTAGE, self.end)
        else:
            self._soak.kills["server"] += 1
            server.kill()
            server.start()

    def end(self) -> None:
        """Start the database again if it is down."""
        if self._is_down:
            self._soak.postgresql.start()
            self._is_down = False

    def _soon(self) -> int:
        return self._soak.chance.randint(1, MOST_BETWEEN_KILLS)


async def supervise(server: Server) -> None:
    """Start the server again whenever it ends, as it does when it starts while its database is down."""
    while True:
        await asyncio.to_thread(server.wait, 3600)
        if server.process is not None and server.process.poll() is not None:
            server.start()


def main() -> int:
    """Run it, print what came of it, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0] + ".")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    logging.disable(logging.INFO)
    sys.stdout.write(f"seed: {options.seed}\n")
    postgresql = PostgreSQL()
    try:
        with tempfile.TemporaryDirectory() as folder:
            soak = Soak(postgresql, Path(folder), random.Random(options.seed))
            asyncio.run(soak.run(options.minutes))
            sys.stdout.write(soak.report() + "\n")
    finally:
        postgresql.remove()
    return 1 if soak.violations else 0


if __name__ == "__main__":
    sys.exit(main())
