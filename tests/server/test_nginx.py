"""A real nginx between followers and the server."""

import asyncio
import itertools
import re
import signal
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from support.events import parse_events
from support.nginx import run_nginx
from support.servers import ROOT, Server, run_module
from support.stores import read_table
from support.workload import make_client, send
from wizards.storage.base import FIRST_WIZARDS

DOCUMENTED = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
FIRST_EVENTS = list(enumerate(FIRST_WIZARDS, 1))


def documented_blocks(*ports: int) -> str:
    """Return the blocks of operations.md for two servers on this machine, or for one in place of both."""
    blocks: str = DOCUMENTED[0]
    for port in (ports * 2)[:2]:
        blocks, servers = re.subn(r"server 10\.0\.0\.\d:8000", f"server 127.0.0.1:{port}", blocks, count=1)
        assert servers
    return blocks.replace("listen 80;", "listen LISTEN;")


def plain_blocks(port: int, *directives: str) -> str:
    """Return the least that nginx needs to be a proxy, and `directives`."""
    location = "".join(f"{directive};" for directive in (f"proxy_pass http://127.0.0.1:{port}", *directives))
    return f"server {{ listen LISTEN; location / {{ {location} }} }}"


@asynccontextmanager
async def follow_with_curl(socket: Path) -> AsyncIterator[asyncio.StreamReader]:
    """Follow the list through a Unix socket; yield the stream."""
    command: list[str | Path] = [
        "curl",
        "-sNf",
        "--unix-socket",
        socket,
        "-H",
        "Accept: text/event-stream",
        "http://test/wizards",
    ]
    curl = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    assert curl.stdout is not None
    async with asyncio.timeout(30):
        yield curl.stdout
        await curl.wait()


@pytest.mark.parametrize("blocks", [plain_blocks, documented_blocks])
async def test_events_pass_at_once(tmp_path: Path, blocks: Callable[[int], str]) -> None:
    """Through nginx, plain and as documented, each event arrives at once; a stop ends the stream."""
    with Server(tmp_path) as server, run_nginx(tmp_path, blocks(server.port)) as socket:
        async with follow_with_curl(socket) as stream, make_client(1) as client:
            received = b""
            for turn in range(5):
                while len(parse_events(received)) < 3 + turn:
                    received += await stream.readuntil(b"\n\n")
                assert (await send(client, server.base_url, f"turn.{turn}")).status == 200
            await asyncio.to_thread(server.stop)
            received += await stream.read()
        assert parse_events(received) == [*FIRST_EVENTS, *((4 + turn, f"turn.{turn}") for turn in range(5))]


async def test_header_is_needed(tmp_path: Path) -> None:
    """If nginx ignores the header X-Accel-Buffering, it holds events back until the stream ends."""
    with Server(tmp_path) as server:
        blocks = plain_blocks(server.port, "proxy_ignore_headers X-Accel-Buffering")
        with run_nginx(tmp_path, blocks) as socket:
            async with follow_with_curl(socket) as stream:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(stream.readline(), 2)
                await asyncio.to_thread(server.stop)
                assert parse_events(await stream.read()) == FIRST_EVENTS


async def append_until(is_over: asyncio.Event, socket: Path, client: int, answers: Counter[bytes]) -> None:
    """Append names of this client one by one on one connection; count the statuses."""
    reader, writer = await asyncio.open_unix_connection(socket)
    for number in itertools.count():
        if is_over.is_set():
            break
        target = f"/wizards?name=c{client}n{number}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: t\r\nRange: bytes=0-0\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        answers[head.split()[1]] += 1
    writer.close()


async def start(stack: ExitStack, folder: Path, workers: int, port: int = 0) -> tuple[Popen[str], int]:
    """Start a server that binds its own socket; return it and its port once all its workers listen."""
    command = ["hypercorn", "--workers", f"{workers}", "--bind", f"127.0.0.1:{port}", "asgi:app"]
    server = stack.enter_context(run_module(command, f"sqlite:///{folder}/w.db"))
    assert server.stdout is not None
    for _ in range(max(workers, 1)):
        line = ""
        while "Running on" not in line:
            line = await asyncio.to_thread(server.stdout.readline)
    return server, int(line.partition("127.0.0.1:")[2].split()[0])


@pytest.mark.parametrize("workers", [0, 2])
async def test_rolling_restart(tmp_path: Path, workers: int) -> None:
    """Behind nginx as documented two servers restart one by one: each append is answered, and made once."""
    answers, is_over = Counter[bytes](), asyncio.Event()
    with ExitStack() as stack:
        servers = [await start(stack, tmp_path, workers) for _ in range(2)]
        socket = stack.enter_context(run_nginx(tmp_path, documented_blocks(*(port for _, port in servers))))
        async with asyncio.timeout(60), asyncio.TaskGroup() as clients:
            for client in range(16):
                clients.create_task(append_until(is_over, socket, client, answers))
            for server, port in servers:
                server.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(server.wait) == 0
                await start(stack, tmp_path, workers, port)
            is_over.set()
    names = Counter(read_table(tmp_path / "w.db"))
    assert answers.keys() == {b"206"}
    assert set(names.values()) == {1}
    assert len(names) == answers[b"206"] + len(FIRST_WIZARDS)
