"""The proxies of operations.md in front of two servers that are restarted one by one."""

import asyncio
import itertools
import re
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen

import pytest

from support.haproxy import run_haproxy
from support.nginx import run_nginx
from support.servers import ROOT, run_module
from support.stores import read_table
from wizards.storage.base import FIRST_WIZARDS

OPERATIONS = (ROOT / "docs/operations.md").read_text()
PROXIES = {"nginx": run_nginx, "haproxy": run_haproxy}


def documented(proxy: str, ports: list[int]) -> str:
    """Return the block of operations.md for a proxy, with servers at these ports of this machine."""
    blocks = re.findall(rf"```{proxy}\n(.*?)```", OPERATIONS, re.DOTALL)
    block: str = next(block for block in blocks if ":8000" in block)
    for number, port in enumerate(ports, 1):
        assert block.count(f"10.0.0.{number}:8000") == 1
        block = block.replace(f"10.0.0.{number}:8000", f"127.0.0.1:{port}")
    return block.replace("listen 80;", "listen LISTEN;").replace("bind :80", "bind LISTEN")


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


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("proxy", PROXIES)
async def test_rolling_restart(tmp_path: Path, proxy: str, workers: int) -> None:
    """Behind a proxy as documented a rolling restart fails no append, and makes none twice."""
    answers, is_over = Counter[bytes](), asyncio.Event()
    with ExitStack() as stack:
        servers = [await start(stack, tmp_path, workers) for _ in range(2)]
        settings = documented(proxy, [port for _, port in servers])
        socket = stack.enter_context(PROXIES[proxy](tmp_path, settings))
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


@pytest.mark.parametrize("proxy", PROXIES)
async def test_no_upgrade_passes(tmp_path: Path, proxy: str) -> None:
    """A proxy as documented forwards no upgrade to HTTP/2, which it could not look into."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with ExitStack() as stack:
        _, port = await start(stack, tmp_path, 0)
        socket = stack.enter_context(PROXIES[proxy](tmp_path, documented(proxy, [port, port])))
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"GET / HTTP/1.1\r\nHost: t\r\n" + upgrade + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
