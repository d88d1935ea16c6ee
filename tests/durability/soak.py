"""A mixed workload for minutes while servers and PostgreSQL are killed at random: `make soak`.

Each round has its own database, in turn SQLite, PostgreSQL, and PostgreSQL with a synchronous standby, and
two servers that are killed during requests. PostgreSQL is crashed and restarted, or killed and its standby
promoted. A round ends with a check of every response against the list.
One more server, on a PostgreSQL database with a short list, runs through all rounds to measure its memory.
"""

import asyncio
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from support import soak_options
from support.history import Record, check_history
from support.postgresql import PostgreSQL, run_postgresql
from support.servers import Server
from support.stores import read_list
from support.workload import append_until_acknowledged, run_workload

MAX_RESPONSES_BETWEEN_FAULTS = 300
OUTAGE_RESPONSES = 100
MAX_OUTAGE_SECONDS = 10
SHORT_LIST = {"WIZARDS_MAX_WIZARDS": "1000"}
WARM_UP_ROUNDS = 3  # until the surviving server's list is full and its caches have their final size


@dataclass
class Soak:
    """The rounds of a soak test and their results."""

    postgresql: PostgreSQL
    folder: Path
    chance: random.Random
    rounds: int = 0
    statuses: Counter[int | None] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    async def run(self, minutes: float) -> None:
        """Start rounds for `minutes` and finish the last one."""
        end = time.monotonic() + 60 * minutes
        with Server(self.folder, self.postgresql.new_database(), settings=SHORT_LIST) as survivor:
            while time.monotonic() < end:
                self.rounds += 1
                try:
                    await self._round(survivor)
                except* Exception as errors:  # noqa: BLE001  # every error is a violation
                    self.violations += [f"round {self.rounds}: {error!r}" for error in errors.exceptions]
                self.memory.append(survivor.memory())

    async def _round(self, survivor: Server) -> None:
        with ExitStack() as stack:
            if self.rounds % 3 == 0:
                url, faults = f"sqlite:///{self.folder / f'{self.rounds}.db'}", FaultInjector(self)
            elif self.rounds % 3 == 1:
                url, faults = self.postgresql.new_database(), FaultInjector(self, self.postgresql)
            else:
                primary = stack.enter_context(run_postgresql())
                standby = stack.enter_context(run_postgresql(primary))
                primary.configure("synchronous_standby_names", "standby")
                url = f"{primary.new_database()},{standby.folder}"
                faults = FaultInjector(self, primary, standby)
            history = await self._load(url, survivor, faults)
            check_history(history, await read_list(url), allow_aborts=True)

    async def _load(self, url: str, survivor: Server, faults: "FaultInjector") -> list[Record]:
        with Server(self.folder, url) as one, Server(self.folder, url) as two:
            supervisors = [asyncio.create_task(supervise(server)) for server in (one, two)]
            try:
                history, survived = await asyncio.gather(
                    run_workload([one, two], after_response=faults.after_response), run_workload([survivor])
                )
                faults.end()
                for server in (one, two):
                    history += await append_until_acknowledged(server, f"after.{server.port}")
            finally:
                faults.end()
                for supervisor in supervisors:
                    supervisor.cancel()
            self._count(history + survived)
            assert "Traceback" not in survivor.output(), survivor.log
            return history

    def _count(self, history: list[Record]) -> None:
        self.statuses.update(record.status for record in history)

    def report(self) -> str:
        """Return the results in a few lines."""
        answers = ", ".join(
            f"{count} x {status or 'aborted'}" for status, count in self.statuses.most_common()
        )
        killed = ", ".join(f"{kind} {count} times" for kind, count in self.kills.items())
        first, last = (self.memory[index] / 2**20 for index in (min(WARM_UP_ROUNDS, self.rounds) - 1, -1))
        lines = [
            f"rounds: {self.rounds}; requests: {self.statuses.total()} ({answers})",
            f"killed: {killed}",
            f"memory of the survivor: {first:.1f} MiB after {WARM_UP_ROUNDS} rounds, {last:.1f} at the end",
            f"violations: {len(self.violations)}",
        ]
        return "\n".join(lines + self.violations)


class FaultInjector:
    """Kills the servers of one round after random numbers of responses, or their database if there is one.

    The database is promoted to its standby once, or else crashed and restarted.
    """

    def __init__(
        self, soak: Soak, database: PostgreSQL | None = None, standby: PostgreSQL | None = None
    ) -> None:
        self._soak = soak
        self._database = database
        self._standby = standby
        self._is_down = False
        self._next = self._soon()

    def after_response(self, count: int, server: Server) -> None:
        """Inject the next fault if `count` responses have been reached."""
        if count < self._next:
            return
        self._next = count + self._soon()
        if self._is_down:
            self.end()
        elif self._database and self._soak.chance.random() < 0.5:
            self._strike(self._database, count)
        else:
            self._soak.kills["server"] += 1
            server.kill()
            server.start()

    def _strike(self, database: PostgreSQL, count: int) -> None:
        if self._standby:
            self._soak.kills["primary"] += 1
            database.kill()
            self._standby.promote()
            self._database = None
            return
        self._soak.kills["PostgreSQL"] += 1
        database.stop("immediate")
        self._is_down = True
        self._next = count + OUTAGE_RESPONSES
        # A server that is starting exits, and the clients of the other may have too few requests left.
        asyncio.get_running_loop().call_later(MAX_OUTAGE_SECONDS, self.end)

    def end(self) -> None:
        """Restart the database if it is down."""
        if self._is_down and self._database:
            self._database.start()
            self._is_down = False

    def _soon(self) -> int:
        return self._soak.chance.randint(1, MAX_RESPONSES_BETWEEN_FAULTS)


async def supervise(server: Server) -> None:
    """Restart the server whenever it ends; it exits if it starts while its database is down."""
    while True:
        await asyncio.to_thread(server.wait, 3600)
        if server.process is not None and server.process.poll() is not None:
            server.start()


def main() -> int:
    """Run the soak test, print its results and return the exit status."""
    options = soak_options.parse()
    logging.disable(logging.INFO)
    sys.stdout.write(f"seed: {options.seed}\n")
    with run_postgresql() as postgresql, tempfile.TemporaryDirectory() as folder:
        soak = Soak(postgresql, Path(folder), random.Random(options.seed))
        asyncio.run(soak.run(options.minutes))
        sys.stdout.write(soak.report() + "\n")
    return 1 if soak.violations else 0


if __name__ == "__main__":
    sys.exit(main())
