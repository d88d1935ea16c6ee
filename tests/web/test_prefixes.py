"""Prefixes: the options of servers, and applications that mount ours."""

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypercorn.middleware import DispatcherMiddleware
from starlette.applications import Starlette
from starlette.routing import Mount

from support.clients import open_client
from support.pages import GREETING, parse_page
from support.servers import run_module
from wizards import create_app

PREFIXES = ["/api", "/app", "/a/b", "/api/wizards"]

# Each server's option, and a part of the line that it prints when it accepts connections.
OPTIONS = {
    "hypercorn --workers 0 --bind 127.0.0.1:{port} --root-path {prefix}": "Running on",
    "hypercorn --workers 0 --bind 127.0.0.1:{port} --root-path {prefix}/": "Running on",
    "uvicorn --port {port} --root-path {prefix}": "Uvicorn running",
    "granian --interface asgi --port {port} --url-path-prefix {prefix}": "Started worker-1",
}


def read_append_read(get: Callable[[str], httpx.Response], prefix: str) -> list[int]:
    """Read, append twice and read again; return the length of the list in each answer."""
    queries = ("", "?name=Luna", "?name=Luna", "")
    return [len(parse_page(get(f"{prefix}/wizards{query}").text)) for query in queries]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("command", OPTIONS)
def test_prefix_option_of_a_server(tmp_path: Path, command: str, prefix: str) -> None:
    """Behind a server's prefix option, each append is stored and shown."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # uvicorn adds the prefix to the path, for proxies that remove it; the other servers expect it there.
    sent = "" if command.startswith("uvicorn") else prefix
    line = command.format(port=port, prefix=prefix)
    with run_module([*line.split(), "asgi:app"], f"sqlite:///{tmp_path}/w.db") as process:
        assert process.stdout is not None
        assert next(line for line in process.stdout if OPTIONS[command] in line)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert read_append_read(client.get, sent) == [3, 4, 5, 5]
            assert client.get(f"{sent}/").text == GREETING
            assert len(client.get(f"{sent}/api/wizards").json()) == 3


def _mounted(prefix: str, app: Any) -> Callable[..., Awaitable[None]]:
    return Starlette(routes=[Mount(prefix, app=app)])


def _mounted_twice(prefix: str, app: Any) -> Callable[..., Awaitable[None]]:
    return _mounted("/outer", _mounted(prefix, app))


def _dispatched(prefix: str, app: Any) -> Callable[..., Awaitable[None]]:
    return DispatcherMiddleware({prefix: app})


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("mount", "outer"), [(_mounted, ""), (_mounted_twice, "/outer"), (_dispatched, "")])
async def test_mounted(mount: Callable[..., Any], outer: str, prefix: str) -> None:
    """In an application that mounts ours, each append is stored and shown."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    async with app.test_app(), open_client(mount(prefix, app)) as client:
        for query, length in (("", 3), ("?name=Luna", 4), ("?name=Luna", 5), ("", 5)):
            page = (await client.get(f"{outer}{prefix}/wizards{query}")).text
            assert len(parse_page(page)) == length
        assert (await client.get(f"{outer}{prefix}/")).text == GREETING
        assert (await client.get(f"{outer}{prefix}/nowhere")).status_code == 404
