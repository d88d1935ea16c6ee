"""What belongs to the host: its signals, its other servers, its Hypercorn."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config

from support.connections import Application, make
from support.servers import ROOT, serve_here
from wizards import create_app
from wizards.server import patches

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def attributes() -> dict[str, object]:
    """Return what the patches would replace, as it is now."""
    found = {}
    for patch in (patches.HOOK, *patches.PATCHES):
        module = import_module(f"hypercorn.{patch.module}")
        found[f"{patch.module}.{patch.name}"] = getattr(module, patch.name)
    return found


ORIGINALS = attributes()


@pytest.fixture(autouse=True)
def _everything_is_given_back() -> Iterator[None]:
    handlers = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert attributes() == ORIGINALS
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


@asynccontextmanager
async def serving(app: Any, config: Config | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Serve an application with Hypercorn in this process; stop it at the end of the block."""
    async with (
        serve_here(app, config) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


def fresh_app() -> Any:
    return create_app({"DATABASE_URL": "sqlite://"})


async def test_another_server_stops() -> None:
    """When one of two servers in a process has stopped, the other one appends, and is still patched."""
    async with serving(fresh_app()) as ours:
        assert (await ours.get("/wizards?name=Luna")).status_code == 200
        async with serving(fresh_app()) as other:
            assert (await other.get("/wizards?name=Ginny")).status_code == 200
        assert (await ours.get("/wizards?name=Cho")).status_code == 200
        assert run.TCPServer is not TCPServer  # type: ignore[attr-defined]


async def test_two_servers_of_one_application() -> None:
    """When one of two servers of an application stops, its streams end, and the other server appends.

    The last one closes the list.
    """
    app = fresh_app()
    async with serving(app) as ours, httpx.AsyncClient() as follower:
        async with serving(app) as other:
            assert (await other.get("/wizards?name=Ginny")).text.count("Ginny") == 1
            url, headers = f"{other.base_url}/wizards", {"Accept": "text/event-stream"}
            stream = await follower.send(follower.build_request("GET", url, headers=headers), stream=True)
        assert b'"Ginny"' in await stream.aread()
        assert (await ours.get("/wizards?name=Cho")).text.count("Ginny") == 1
    assert (await app.test_client().get("/wizards")).status_code == 503


async def test_two_servers_of_one_config(capfd: pytest.CaptureFixture[str]) -> None:
    """When one of two servers with one Config has stopped, no client forges lines in the log of the other."""
    config = Config.from_mapping(accesslog="-", access_log_format="%(U)s")
    async with serving(fresh_app(), config) as ours:
        await ours.get("/one%0Aline")
        async with serving(fresh_app(), config) as other:
            await other.get("/one%0Aline")
        await ours.get("/one%0Aline")
    assert capfd.readouterr().out.count("/one\\nline") == 3
    assert "atoms" not in vars(config.log)


async def test_an_application_is_served_again() -> None:
    """An application whose server has stopped can be served once more, and appends."""
    app = fresh_app()
    for name in ("Luna", "Ginny"):
        async with serving(app) as client:
            response = await client.get(f"/wizards?name={name}")
            assert response.text.count(name) == 1


async def test_a_foreign_server_beside_ours() -> None:
    """A server of another application in the process gets Hypercorn's own classes throughout."""
    async with serving(fresh_app()) as ours, serving(Application()) as foreign:
        assert (await ours.get("/")).status_code == (await foreign.get("/")).status_code == 200
        unknown = make(run.TCPServer, Application())  # type: ignore[attr-defined]
        own = make(run.TCPServer, Application(), context=WorkerContext(None))  # type: ignore[attr-defined]
        assert type(own) is TCPServer is not type(unknown)


async def test_handlers_of_the_host() -> None:
    """A host's own handlers stay, and get the signal, while a server of ours runs in its process."""
    got = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, got.set)
    async with serving(fresh_app()) as client:
        assert (await client.get("/")).status_code == 200
        os.kill(os.getpid(), signal.SIGTERM)
        await got.wait()
        assert (await client.get("/")).status_code == 200
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_a_mere_lifespan() -> None:
    """A lifespan without a server leaves signals, loggers and Hypercorn as they are."""
    app, loop = fresh_app(), asyncio.get_running_loop()
    received: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    scope: Any = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    lifespan = loop.create_task(app(scope, received.get, sent.put))
    for event in ("startup", "shutdown"):
        received.put_nowait({"type": f"lifespan.{event}"})
        assert (await sent.get())["type"] == f"lifespan.{event}.complete"
    await lifespan


def test_in_a_thread() -> None:
    """A server in a thread starts and stops beside a main thread that handles signals."""
    answers: list[int] = []

    async def ask() -> None:
        async with serving(fresh_app()) as client:
            answers.append((await client.get("/wizards?name=Luna")).status_code)

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        thread = threading.Thread(target=asyncio.run, args=(ask(),))
        thread.start()
        await asyncio.to_thread(thread.join)

    asyncio.run(main())
    assert answers == [200]


# In which file of Hypercorn's what is replaced.
DOCTORED = [
    ("asyncio/run.py", "from .tcp_server import", "from .moved import"),
    ("protocol/ws_stream.py", "class WSStream:", "class WSStream:\n    changed = True\n"),
    ("protocol/h2.py", "class H2Protocol:", "class Renamed:"),
    ("protocol/__init__.py", "from .h2 import H2Protocol\n", "from .h2 import Renamed\n"),
    ("protocol/__init__.py", "= H2Protocol(", "= Renamed("),
    ("protocol/__init__.py", "H11Protocol | H2Protocol", "H11Protocol | Renamed"),
]


def test_another_hypercorn(tmp_path: Path) -> None:
    """With a Hypercorn whose classes moved, changed or have new names the server runs, and says so."""
    package = tmp_path / "hypercorn"
    shutil.copytree(Path(run.__file__).parents[1], package)
    (package / "asyncio/tcp_server.py").rename(package / "asyncio/moved.py")
    for file, old, new in DOCTORED:
        text = (package / file).read_text()
        assert old in text
        (package / file).write_text(text.replace(old, new))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "hypercorn", "--workers", "0", "--bind", f"fd://{listener.fileno()}"]
        environment = {**os.environ, "WIZARDS_DATABASE_URL": "sqlite://"}
        environment["PYTHONPATH"] = f"{tmp_path}:{ROOT}/src"
        process = subprocess.Popen(
            [*command, "wizards.asgi:app"],
            env=environment,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[listener.fileno()],
        )
        try:
            response = httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/wizards?name=Luna")
            process.send_signal(signal.SIGTERM)
            output = process.communicate(timeout=10)[1]
        finally:
            process.kill()
    assert response.text.count("Luna") == 1
    assert process.returncode == 0
    lines = [line.partition("differs: ")[2] for line in output.splitlines() if "Not patched" in line]
    assert [line.partition(" ")[0] for line in lines] == [
        f"hypercorn.{name}"
        for name in (
            "asyncio.run.TCPServer",
            "protocol.H2Protocol",
            "protocol.h2.StreamBuffer",
            "protocol.h11.WSStream",
            "protocol.h2.WSStream",
        )
    ]
    assert "Traceback" not in output
