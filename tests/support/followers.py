"""Clients that follow the list with httpx-sse."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from httpx_sse import EventSource, aconnect_sse

from support.workload import make_client
from wizards.storage.base import FIRST_WIZARDS

FIRST_EVENTS = list(enumerate(FIRST_WIZARDS, 1))
HTTP2, HTTP1 = 0, 1  # for make_client


class Follower(NamedTuple):
    """A client's stream, and what it has got."""

    source: EventSource
    events: AsyncIterator[tuple[int, str]]

    async def take(self, count: int) -> list[tuple[int, str]]:
        """Return the next `count` events."""
        async with asyncio.timeout(30):
            return [await anext(self.events) for _ in range(count)]


@asynccontextmanager
async def follow(
    base_url: str, version: int = HTTP1, query: str = "", last_id: str = ""
) -> AsyncIterator[Follower]:
    """Open a stream with httpx-sse."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with (
        make_client(version) as client,
        aconnect_sse(client, "GET", f"{base_url}/wizards{query}", headers=headers) as source,
    ):
        events = ((int(event.id), json.loads(event.data)["name"]) async for event in source.aiter_sse())
        yield Follower(source, events)
