"""A real nginx between followers and the server."""

import asyncio
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.events import parse_events
from support.nginx import run_nginx
from support.servers import ROOT, Server
from support.workload import make_client, send
from wizards.storage.base import FIRST_WIZARDS

DOCUMENTED = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
FIRST_EVENTS = list(enumerate(FIRST_WIZARDS, 1))


def documented_blocks(port: int) -> str:
    """Return the blocks of operations.md for one server on this machine."""
    [blocks] = DOCUMENTED
    blocks, servers = re.subn(r"server 10\.0\.0\.\d:8000", f"server 127.0.0.1:{port}", blocks)
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
