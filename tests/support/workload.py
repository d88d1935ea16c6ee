"""Mixed load on servers: clients that read and append by turns, and a record of every request."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import httpx

from support.history import Record, parse
from support.servers import Server
from wizards import create_app

# A connection that was closed before the whole answer was there. A timeout is none: nobody may hang.
CUT = (httpx.NetworkError, httpx.RemoteProtocolError)
PATIENCE = 30  # seconds; more than a server takes to start, since clients wait for that


async def send(client: httpx.AsyncClient, base_url: str, name: str | None = None) -> Record:
    """Read the list, or append a name to it, and return the record of that."""
    start = time.monotonic_ns()
    try:
        response = await client.get(f"{base_url}/wizards", params={"name": name} if name else {})
    except CUT:
        return Record(start, time.monotonic_ns(), name, None)
    end = time.monotonic_ns()
    names = parse(response.text) if response.status_code == 200 else []
    return Record(start, end, name, response.status_code, names)


def make_client(number: int) -> httpx.AsyncClient:
    """Return a client: the first of three speaks HTTP/2, the second reconnects for each request.

    Whoever keeps a connection stays with the worker that accepted it; whoever reconnects meets all.
    """
    limits = httpx.Limits(max_keepalive_connections=0 if number % 3 == 1 else None)
    http2 = number % 3 == 0
    return httpx.AsyncClient(
        http1=not http2, http2=http2, limits=limits, timeout=PATIENCE, trust_env=False, verify=False
    )


async def run_workload(
    servers: Sequence[Server],
    *,
    clients: int = 48,
    requests: int = 24,
    after_answer: Callable[[int, Server], None] = lambda _count, _server: None,
) -> list[Record]:
    """Let clients append and read by turns, each as fast as it is answered; return what came of it.

    `after_answer` is told how many answers there have been and who gave the last one. All clients stand
    still while it runs, so what it does to a server happens at that very answer.
    """
    history: list[Record] = []
    answers = itertools.count(1)

    async def run(client: httpx.AsyncClient, number: int) -> None:
        server = servers[number % len(servers)]
        for step in range(requests):
            name = f"c{number}.{step}" if (number + step) % 2 else None
            history.append(await send(client, server.base_url, name))
            if history[-1].status is not None:
                after_answer(next(answers), server)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for number in range(clients):
            client = await stack.enter_async_context(make_client(number))
            group.create_task(run(client, number))
    return history


async def recover(server: Server, name: str) -> list[Record]:
    """Append until it is answered 200, under a new name for every try; fail after the third."""
    history: list[Record] = []
    async with make_client(1) as client:
        while not history or history[-1].status != 200:
            assert len(history) < 3, history
            history.append(await send(client, server.base_url, f"{name}.{len(history)}"))
    return history


async def stored(url: str) -> list[str]:
    """Return the list as a process that has just started finds it."""
    async with create_app({"DATABASE_URL": url}).test_app() as app:
        response = await app.test_client().get("/wizards")
        return parse(await response.get_data(as_text=True))
