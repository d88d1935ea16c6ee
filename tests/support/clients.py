"""Clients of an application in this very process, and of one behind a socket."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from httpx import ASGITransport, AsyncClient

from wizards import create_app


@asynccontextmanager
async def client_of(app: Callable[..., Awaitable[None]], root_path: str = "") -> AsyncIterator[AsyncClient]:
    """Give a client of `app`. Like httpx itself it runs no lifespan."""
    # Hypercorn's types are narrower than httpx's.
    transport = ASGITransport(app, root_path=root_path)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@asynccontextmanager
async def fresh_client(root_path: str = "", **config: object) -> AsyncIterator[AsyncClient]:
    """Give a client of a new application, started and stopped around it, with its list in memory."""
    app = create_app({"DATABASE_URL": "sqlite://", **config})
    async with app.test_app(), client_of(app, root_path) as client:
        yield client


def names_shown(page: str) -> list[str]:
    """Return the names that a page of the list shows (as they are written there, escaped)."""
    return [part.split(" is a wizard")[0] for part in page.split("<p>Hello ")[1:]]


def receive_all(connection: socket.socket) -> bytes:
    """Return what comes on a connection, up to its end."""
    return b"".join(iter(lambda: connection.recv(2**16), b""))


def receive_until(end: bytes, connection: socket.socket) -> bytes:
    """Return what comes on a connection, up to `end` at least."""
    received = b""
    while end not in received:
        piece = connection.recv(2**16)
        assert piece, "the connection was closed before that"
        received += piece
    return received
