"""Many concurrent clients of a real Hypercorn: the lock, disconnects, HTTP/1.1 and HTTP/2."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from httpx import AsyncClient, Limits

from support.pages import parse_page
from support.servers import Server
from support.sockets import connect
from wizards.storage.base import FIRST_WIZARDS


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, url) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
async def client(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[AsyncClient]:
    is_http2 = request.param == "HTTP/2"  # with prior knowledge, without TLS
    limits = Limits(max_connections=1 if is_http2 else 64)
    async with AsyncClient(
        base_url=server.base_url, http1=not is_http2, http2=is_http2, limits=limits, timeout=60
    ) as client:
        assert (await client.get("/")).http_version == request.param
        yield client


async def test_400_concurrent_appends(client: AsyncClient) -> None:
    """No append is lost or doubled; every answer is a prefix of the final list and holds its own name."""
    names = [f"w{number}" for number in range(400)]
    answers = await asyncio.gather(*(client.get("/wizards", params={"name": name}) for name in names))
    final = parse_page((await client.get("/wizards")).text)
    assert tuple(final[:3]) == FIRST_WIZARDS
    assert sorted(final[3:]) == sorted(names)
    for name, answer in zip(names, answers, strict=True):
        assert answer.status_code == 200
        seen = parse_page(answer.text)
        assert name in seen
        assert seen == final[: len(seen)]


async def test_disconnecting_clients_do_not_affect_others(server: Server, client: AsyncClient) -> None:
    """Clients that disconnect right after sending an append do not affect other clients."""
    staying = [asyncio.create_task(client.get("/wizards", params={"name": f"stays{n}"})) for n in range(50)]
    for number in range(50):
        with connect(server.port) as leaving:
            leaving.sendall(f"GET /wizards?name=leaves{number} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        await asyncio.sleep(0)
    assert {(await response).status_code for response in staying} == {200}
    final = parse_page((await client.get("/wizards")).text)
    assert [final.count(f"stays{n}") for n in range(50)] == [1] * 50
    assert max(final.count(f"leaves{n}") for n in range(50)) <= 1
    assert tuple(final[:3]) == FIRST_WIZARDS


async def test_half_closed_connection(server: Server) -> None:
    """A client that shuts down its sending side after a request still gets the response."""
    for target in ("/", "/nowhere", "/wizards?name=plain", "/wizards?name=not+plain"):
        with connect(server.port) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            connection.shutdown(socket.SHUT_WR)
            assert connection.makefile("rb").readline().split()[1] in {b"200", b"404"}


async def test_list_survives_sigkill(server: Server, client: AsyncClient) -> None:
    """An acknowledged append is in the list after SIGKILL and a restart."""
    before = parse_page((await client.get("/wizards?name=Luna")).text)
    server.kill()
    server.start()
    async with AsyncClient(base_url=server.base_url) as again:
        assert parse_page((await again.get("/wizards")).text) == before == [*FIRST_WIZARDS, "Luna"]
