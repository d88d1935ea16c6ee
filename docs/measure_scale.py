#!/usr/bin/env python3
"""Measure the figures of docs/operations.md, "Scale on paper".

Run `.venv/bin/python docs/measure_scale.py`. Eight server processes, each with `workers = 0`, share one
PostgreSQL: the script prints requests and exchanges a second, the processor time that PostgreSQL and the
servers take for each, and the size of a response. Servers, database and clients share one machine, so the
ratios hold on other machines and the rates do not.
"""

import asyncio
import os
import random
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.postgresql import PostgreSQL  # lives with the tests
from support.servers import Server

SERVERS = 8
SECONDS = 8
READ = "GET /wizards HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\nIf-None-Match: {etag}\r\n\r\n"
APPEND = "GET /wizards?name={name} HTTP/1.1\r\nHost: test\r\nRange: bytes=-1\r\n\r\n"


def random_name() -> str:
    """Return eight random letters, which hardly compress."""
    return "".join(random.choices(string.ascii_lowercase, k=8))  # noqa: S311  # the name is no secret


class Usage(NamedTuple):
    """Processor time and clock in seconds, and bytes of PostgreSQL's log, so far."""

    database: float
    servers: float
    clock: float
    log: int


async def ask(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: str) -> tuple[bytes, int]:
    """Send a request; return the response's head and the response's size in bytes."""
    reader, writer = stream
    writer.write(request.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b"content-length: " not in head:
        return head, len(head)
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head, len(head) + length


async def client(port: int, until: float, appends: bool, statuses: Counter[int]) -> None:  # noqa: FBT001
    """Send appends, or reads with the last response's ETag, one after the other."""
    stream = await asyncio.open_connection("127.0.0.1", port)
    etag = '""'
    while time.monotonic() < until:
        request = APPEND.format(name=random_name()) if appends else READ.format(etag=etag)
        head, _ = await ask(stream, request)
        statuses[int(head.split()[1])] += 1
        if not appends:
            etag = head.partition(b"etag: ")[2].split(b"\r\n")[0].decode()
    stream[1].close()


async def load(ports: Sequence[int], readers: int, appenders: int) -> Counter[int]:
    """Run readers and appenders on every port; return the number of responses by status."""
    statuses: Counter[int] = Counter()
    until = time.monotonic() + SECONDS
    kinds = [False] * readers + [True] * appenders
    await asyncio.gather(*(client(port, until, kind, statuses) for port in ports for kind in kinds))
    return statuses


def processor_time(pids: set[int]) -> float:
    """Return the processor time of processes and their children, in seconds."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(path.parent.name) in pids or int(fields[1]) in pids:
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def exchanges_in(log: Path, start: int) -> Iterator[str]:
    """Yield the first word of each exchange after `start` bytes of PostgreSQL's log: select or begin."""
    with log.open("rb") as file:
        file.seek(start)
        for line in file:
            _, found, text = line.decode(errors="replace").partition("LOG:  ")
            words = text.partition(": ")[2].split()
            if found and words and text.startswith("statement"):
                yield words[0].strip(";").lower()


def usage(folder: Path, servers: Sequence[Server]) -> Usage:
    """Return the usage so far of the servers and of PostgreSQL in `folder`."""
    postmaster = int((folder / "data/postmaster.pid").read_text().splitlines()[0])
    pids = {server.process.pid for server in servers if server.process}
    size = (folder / "log").stat().st_size
    return Usage(processor_time({postmaster}), processor_time(pids), time.monotonic(), size)


def measure(folder: Path, servers: Sequence[Server], readers: int, appenders: int) -> None:
    """Load every server with readers and appenders, and print the cost."""
    before = usage(folder, servers)
    statuses = asyncio.run(load([server.port for server in servers], readers, appenders))
    after = usage(folder, servers)
    used = [end - start for start, end in zip(before, after, strict=True)]
    kinds = Counter(exchanges_in(folder / "log", before.log))
    requests, exchanges, seconds = statuses.total(), kinds.total(), after.clock - before.clock
    report(
        f"{SERVERS} processes, each with {readers} readers and {appenders} appenders: {dict(statuses)}",
        f"{requests / seconds:,.0f} requests a second, {requests / exchanges:.1f} an exchange",
        f"{exchanges / seconds:,.0f} exchanges a second: "
        f"{kinds['select'] / seconds:,.0f} read, {kinds['begin'] / seconds:,.0f} append",
        f"PostgreSQL {1e6 * used[0] / exchanges:,.0f} us of processor time an exchange, "
        f"the servers {1e6 * used[1] / requests:,.0f} us a request",
    )


def report(title: str, *lines: str) -> None:
    """Print a title and its indented lines."""
    sys.stdout.write("\n  ".join([title, *lines]) + "\n")
    sys.stdout.flush()


def measure_load(directory: Path) -> None:
    """Measure reads, appends and both on eight servers with one PostgreSQL."""
    database = PostgreSQL()
    url = database.new_database()
    name = url.split("/")[3].partition("?")[0]
    database.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")
    with ExitStack() as stack:
        stack.callback(database.remove)
        settings = {"WIZARDS_MAX_WIZARDS": "10000000"}
        servers = [stack.enter_context(Server(directory, url, settings=settings)) for _ in range(SERVERS)]
        folder = Path(database.execute("SHOW data_directory")).parent
        for readers, appenders in ((1, 0), (8, 0), (32, 0), (0, 1), (0, 8), (0, 32), (16, 2)):
            measure(folder, servers, readers, appenders)


async def sizes(port: int, held: int) -> list[int]:
    """Return response sizes: plain, gzipped, 304, and the list after `held` bytes."""
    stream = await asyncio.open_connection("127.0.0.1", port)
    get = "GET /wizards HTTP/1.1\r\nHost: test\r\n"
    head, plain = await ask(stream, get + "\r\n")
    etag = head.partition(b"etag: ")[2].split(b"\r\n")[0].decode()
    rest = [f"{get}{h}\r\n\r\n" for h in ("Accept-Encoding: gzip", f"If-None-Match: {etag}")]
    rest.append(f"{get}Range: bytes={held}-\r\n\r\n")
    found = [plain, *[(await ask(stream, request))[1] for request in rest]]
    stream[1].close()
    return found


async def fill(port: int, first: int, last: int) -> int:
    """Append names up to number `last`; return the page's size before the last name."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(64)]

    async def fill_share(share: int) -> None:
        for _ in range(first + share, last - 1, len(streams)):
            await ask(streams[share], APPEND.format(name=random_name()))

    await asyncio.gather(*map(fill_share, range(len(streams))))
    request = "HEAD /wizards HTTP/1.1\r\nHost: test\r\n\r\n"
    streams[0][1].write(request.encode())
    head = await streams[0][0].readuntil(b"\r\n\r\n")
    await ask(streams[0], APPEND.format(name=random_name()))
    for _, writer in streams:
        writer.close()
    return int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])


def measure_sizes(directory: Path) -> None:
    """Print the size of a response, head included, at three lengths of the list."""
    with Server(directory, "sqlite://") as server:
        length = 3
        for last in (1_000, 10_000, 100_000):
            held = asyncio.run(fill(server.port, length, last))
            length = last
            plain, zipped, unchanged, new = asyncio.run(sizes(server.port, held))
            report(
                f"{last:,} names",
                f"bytes: plain {plain:,}, gzip {zipped:,}, 304 {unchanged:,}, Range, one new name {new:,}",
            )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        measure_sizes(Path(temporary))
        measure_load(Path(temporary))
