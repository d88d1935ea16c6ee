"""A real browser: Debian's Chromium in headless mode, driven by Playwright."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

import pytest

from support.servers import Server

if TYPE_CHECKING:  # Playwright is optional
    from playwright.async_api import Browser, BrowserContext, Dialog, Request

BROWSER_TIMEOUT = 20  # seconds; the events waited for take a few milliseconds

# Host names under .example resolve to this machine, so that a page can belong to another site.
CHROMIUM_ARGUMENTS = ["--disable-gpu", "--disable-quic", "--host-resolver-rules=MAP *.example 127.0.0.1"]

LOG_PREFIX = "request:"
LOG_FORMAT = LOG_PREFIX + " %(s)s %(m)s %(Uq)s %({sec-fetch-site}i)s %({sec-purpose}i)s"
LOG_OPTIONS = ("--access-logfile", "-", "--access-logformat", LOG_FORMAT)


def find_chromium() -> str:
    """Return the path of Chromium; skip the test if a part is missing, or fail the test if CI is set."""
    chromium = shutil.which("chromium")
    if chromium and find_spec("playwright"):
        return chromium
    missing = "Playwright: pip install playwright" if chromium else "Chromium: apt-get install chromium"
    give_up = pytest.fail if os.environ.get("CI") else pytest.skip
    return give_up(f"a browser test needs {missing}")


@asynccontextmanager
async def open_chromium() -> AsyncIterator[Browser]:
    """Start Chromium with a fresh profile; close it when the block ends."""
    path = find_chromium()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        await browser.close()


class PageRecorder:
    """Records the requests, dialogs, errors and console messages of all pages in a context.

    `requests` holds every request, also blocked ones, except those for a favicon: Playwright hides them, but
    the server logs them. `events` holds every dialog, uncaught error and console message.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.requests: list[Request] = []
        self.events: list[str] = []
        self._ended: asyncio.Queue[Request] = asyncio.Queue()
        context.on("request", self._record)
        context.on("requestfinished", self._ended.put_nowait)
        context.on("requestfailed", self._ended.put_nowait)
        context.on("console", lambda message: self.events.append(message.text))
        context.on("weberror", lambda error: self.events.append(str(error.error)))
        context.on("dialog", self._dismiss)

    async def wait_until_ended(self, urls: set[str]) -> None:
        """Wait until a request for each of `urls` has finished or failed."""
        async with asyncio.timeout(BROWSER_TIMEOUT):
            while urls:
                urls = urls - {(await self._ended.get()).url}

    def _record(self, request: Request) -> None:  # Playwright refuses a list's own append
        self.requests.append(request)

    async def _dismiss(self, dialog: Dialog) -> None:
        self.events.append(f"dialog: {dialog.message}")
        await dialog.dismiss()


@contextmanager
def serve_page(directory: Path, page: str) -> Iterator[int]:
    """Serve one page as another site, under any host name of this machine; yield the port."""
    (directory / "index.html").write_text(page)
    handler = partial(_QuietHandler, directory=str(directory))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class named it
        pass


class LoggedRequest(NamedTuple):
    """A request in the server's access log; "-" is a header that was not sent."""

    status: str
    method: str
    target: str
    fetch_site: str
    purpose: str


def stop_and_list_requests(server: Server) -> list[LoggedRequest]:
    """Stop a server that was started with LOG_OPTIONS; return the requests of pages, also for favicons.

    Hypercorn logs a request after its response is sent; only the log of a stopped server is complete.
    """
    assert server.stop() == 0
    lines = [line.partition(LOG_PREFIX)[2] for line in server.output().splitlines() if LOG_PREFIX in line]
    return [logged for line in lines if (logged := LoggedRequest(*line.split())).fetch_site != "-"]
