"""A mixed workload on servers: clients that read and append in turn, with a record of every request."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import httpx

from support.history import Record
from support.pages import parse_page
from support.servers import Server

# Raised for a connection that was closed before the whole response arrived. Timeouts are not among them:
# no request may hang.
ABORTED = (httpx.NetworkError, httpx.RemoteProtocolError)
CLIENT_TIMEOUT = 30  # seconds; longer than a server takes to start, because clients wait for that


async def send(client: httpx.AsyncClient, base_url: str, name: str | None = None) -> Record:
    """Read the list, or append `name` to it, and return the record of the request."""
    start = time.monotonic_ns()
    try:
        response = await client.get(f"{base_url}/wizards", params={"name": name} if name else {})
    except ABORTED:
        return Record(start, time.monotonic_ns(), name, None)
    end = time.monotonic_ns()
    names = parse_page(response.text) if response.status_code == 200 else []
    return Record(start, end, name, response.status_code, names)


def make_client(number: int) -> httpx.AsyncClient:
    """Return a client: of three in a row the first speaks HTTP/2, the second reconnects for each request.

    A client that keeps its connection stays with the worker that accepted it; one that reconnects meets all
    workers.
    """
    limits = httpx.Limits(max_keepalive_connections=0 if number % 3 == 1 else None)
    is_http2 = number % 3 == 0
    return httpx.AsyncClient(
        http1=not is_http2,
        http2=is_http2,
        limits=limits,
        timeout=CLIENT_TIMEOUT,
        trust_env=False,
        verify=False,
    )


async def run_workload(
    servers: Sequence[Server],
    *,
    clients: int = 48,
    requests: int = 24,
    after_response: Callable[[int, Server], None] = lambda _count, _server: None,
) -> list[Record]:
    """Let each client append and read in turn without pauses; return the records of all requests.

    `after_response` gets the number of responses so far and the server that sent the last one. It blocks all
    clients while it runs, so what it does to a server happens exactly at that response.
    """
    history: list[Record] = []
    responses = itertools.count(1)

    async def run(client: httpx.AsyncClient, number: int) -> None:
        server = servers[number % len(servers)]
        for step in range(requests):
            name = f"c{number}.{step}" if (number + step) % 2 else None
            history.append(await send(client, server.base_url, name))
            if history[-1].status is not None:
                after_response(next(responses), server)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for number in range(clients):
            client = await stack.enter_async_context(make_client(number))
            group.create_task(run(client, number))
    return history


async def append_until_acknowledged(server: Server, name: str) -> list[Record]:
    """Append, with a new name for each try, until a 200 arrives; fail after the tenth try."""
    history: list[Record] = []
    async with make_client(1) as client:
        while not history or history[-1].status != 200:
            assert len(history) < 10, history
            history.append(await send(client, server.base_url, f"{name}.{len(history)}"))
    return history
