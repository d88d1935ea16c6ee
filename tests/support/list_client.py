"""A client of one server that reads the list and appends to it."""

import time
from types import TracebackType
from typing import Self

import httpx

from support.pages import parse_page
from support.servers import Server
from support.workload import CLIENT_TIMEOUT
from wizards.storage.base import FIRST_WIZARDS


class ListClient:
    """Sends requests for the list of `server`, each with a `name` to append, or without."""

    def __init__(self, server: Server) -> None:
        self._client = httpx.AsyncClient(base_url=server.base_url, timeout=CLIENT_TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def names(self, name: str = "") -> list[str]:
        """Return the names behind the first three; fail unless the response is a 200."""
        names = parse_page((await self._get(name)).raise_for_status().text)
        assert tuple(names[:3]) == FIRST_WIZARDS
        return names[3:]

    async def status(self, name: str = "") -> int:
        """Return the status of the response."""
        return (await self._get(name)).status_code

    async def timed_status(self, name: str = "") -> tuple[int, float]:
        """Return the status of the response, and the seconds that it took."""
        start = time.monotonic()
        return await self.status(name), time.monotonic() - start

    async def _get(self, name: str) -> httpx.Response:
        return await self._client.get("/wizards", params={"name": name} if name else {})
