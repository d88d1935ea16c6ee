"""Many clients at once on a real Hypercorn: the lock, disconnects, HTTP/1.1 and HTTP/2."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from httpx import AsyncClient, Limits

from support.clients import names_shown
from support.servers import Server

FIRST = ["Harry", "Ron", "Hermione"]


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, url) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.output()


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
async def client(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[AsyncClient]:
    second = request.param == "HTTP/2"  # with prior knowledge, without TLS
    limits = Limits(max_connections=1 if second else 64)
    async with AsyncClient(
        base_url=server.base_url, http1=not second, http2=second, limits=limits, timeout=60
    ) as client:
        assert (await client.get("/")).http_version == request.param
        yield client


async def test_hundreds_of_appends_at_once(client: AsyncClient) -> None:
    """None is lost, none doubled; every answer is a prefix of the final list with its own name in it."""
    names = [f"w{number}" for number in range(400)]
    answers = await asyncio.gather(*(client.get("/wizards", params={"name": name}) for name in names))
    final = names_shown((await client.get("/wizards")).text)
    assert final[:3] == FIRST
    assert sorted(final[3:]) == sorted(names)
    for name, answer in zip(names, answers, strict=True):
        assert answer.status_code == 200
        seen = names_shown(answer.text)
        assert name in seen
        assert seen == final[: len(seen)]


async def test_disconnected_client_harms_nobody(server: Server, client: AsyncClient) -> None:
    """Clients that send an append and leave at once change nothing for those that stay."""
    stays = [asyncio.create_task(client.get("/wizards", params={"name": f"stays{n}"})) for n in range(50)]
    for number in range(50):
        leaver = socket.create_connection(("127.0.0.1", server.port))
        leaver.sendall(f"GET /wizards?name=leaves{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        leaver.close()
        await asyncio.sleep(0)
    assert {(await stay).status_code for stay in stays} == {200}
    final = names_shown((await client.get("/wizards")).text)
    assert [final.count(f"stays{n}") for n in range(50)] == [1] * 50
    assert max(final.count(f"leaves{n}") for n in range(50)) <= 1
    assert final[:3] == FIRST


async def test_half_closed_connection(server: Server) -> None:
    """Whoever ends his own side of the connection behind his request is answered all the same."""
    for target in ("/", "/nowhere", "/wizards?name=plain", "/wizards?name=not+plain"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            connection.shutdown(socket.SHUT_WR)
            assert connection.makefile("rb").readline().split()[1] in {b"200", b"404"}


async def test_list_outlives_the_server(server: Server, client: AsyncClient) -> None:
    """What was acknowledged is there after SIGKILL and a new start."""
    before = names_shown((await client.get("/wizards?name=Luna")).text)
    server.kill()
    server.start()
    async with AsyncClient(base_url=server.base_url) as again:
        assert names_shown((await again.get("/wizards")).text) == before == [*FIRST, "Luna"]
