"""A real browser: Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest

from support.servers import Server

if TYPE_CHECKING:  # a machine may lack it
    from playwright.async_api import Browser, BrowserContext, Dialog, Request

PATIENCE = 20  # seconds for what takes a few milliseconds

# Names under .example lead to this machine, so that a page can belong to another site.
CHROMIUM_ARGUMENTS = ["--disable-gpu", "--disable-quic", "--host-resolver-rules=MAP *.example 127.0.0.1"]

ASKED = "asked:"
LOG_FORMAT = ASKED + " %(s)s %(m)s %(Uq)s %({sec-fetch-site}i)s %({sec-purpose}i)s"
LOGGED = ("--access-logfile", "-", "--access-logformat", LOG_FORMAT)


def find_chromium() -> str:
    """Return the path of Chromium; where a part is missing, skip the test, or fail it if CI is set."""
    chromium = shutil.which("chromium")
    if chromium and find_spec("playwright"):
        return chromium
    missing = "Playwright: pip install playwright" if chromium else "Chromium: apt-get install chromium"
    stop = pytest.fail if os.environ.get("CI") else pytest.skip
    return stop(f"a browser test needs {missing}")


@asynccontextmanager
async def open_chromium() -> AsyncIterator[Browser]:
    """Start Chromium with a fresh profile; end it when the block ends."""
    path = find_chromium()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        await browser.close()


class Witness:
    """Notes everything that the pages of a context do beyond showing themselves.

    `requests` holds every request, also those that were blocked, but none for a favicon: Playwright hides
    it, the server's log tells. `events` holds every dialog, uncaught error and console message.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.requests: list[Request] = []
        self.events: list[str] = []
        self._ended: asyncio.Queue[Request] = asyncio.Queue()
        context.on("request", self._note)
        context.on("requestfinished", self._ended.put_nowait)
        context.on("requestfailed", self._ended.put_nowait)
        context.on("console", lambda message: self.events.append(message.text))
        context.on("weberror", lambda error: self.events.append(str(error.error)))
        context.on("dialog", self._dismiss)

    async def until_ended(self, urls: set[str]) -> None:
        """Wait until a request for each of `urls` has been answered or blocked on arrival of its answer."""
        async with asyncio.timeout(PATIENCE):
            while urls:
                urls = urls - {(await self._ended.get()).url}

    def _note(self, request: Request) -> None:  # Playwright cannot call a list's own append
        self.requests.append(request)

    async def _dismiss(self, dialog: Dialog) -> None:
        self.events.append(f"dialog: {dialog.message}")
        await dialog.dismiss()


class Site:
    """Another site: one page on a port of its own, under whatever host name leads to this machine."""

    def __init__(self, directory: Path, page: str) -> None:
        (directory / "index.html").write_text(page)
        handler = partial(_QuietHandler, directory=str(directory))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class named it
        pass


class Asked(NamedTuple):
    """A request as the server saw it and answered it; "-" is a header that was not sent."""

    status: str
    method: str
    target: str
    fetch_site: str
    purpose: str


def asked_by_pages(server: Server) -> list[Asked]:
    """Stop a server that was started with LOGGED; return what pages asked it for, favicons included.

    A line is logged when its answer is out, so only a server that has ended has logged them all.
    """
    assert server.stop() == 0
    lines = [line.partition(ASKED)[2] for line in server.output().splitlines() if ASKED in line]
    return [asked for line in lines if (asked := Asked(*line.split())).fetch_site != "-"]
