"""HTTP clients of an application in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from httpx import ASGITransport, AsyncClient

from wizards import create_app


@asynccontextmanager
async def open_client(app: Callable[..., Awaitable[None]], root_path: str = "") -> AsyncIterator[AsyncClient]:
    """Yield a client of `app`, which has to be started already: httpx runs no lifespan."""
    transport = ASGITransport(app, root_path=root_path)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@asynccontextmanager
async def fresh_client(root_path: str = "", **config: object) -> AsyncIterator[AsyncClient]:
    """Yield a client of a new application with its list in memory; start and stop the application."""
    app = create_app({"DATABASE_URL": "sqlite://", **config})
    async with app.test_app(), open_client(app, root_path) as client:
        yield client
