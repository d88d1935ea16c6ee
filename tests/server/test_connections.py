"""A connection's idle time, its end, and what a client sends meanwhile."""

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from support.connections import Application, make
from support.servers import Server
from wizards.server.connections import Connection

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize("first", ["request", "timeout"])
async def test_request_at_the_end_of_the_idle_time(first: str) -> None:
    """A request is carried out and answered, or neither, if it comes as the idle time ends."""
    app = Application()
    connection = make(Connection, app, keep_alive_timeout=60)
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    steps = [lambda: connection.reader.feed_data(REQUEST), connection.idle_task.expire]
    for step in steps if first == "request" else reversed(steps):
        step()
    for _ in range(20):
        await asyncio.sleep(0)
    connection.reader.feed_eof()
    await running
    assert len(app.requests) == connection.writer.sent.count(b"ok")
    assert len(app.requests) or first == "timeout"


@pytest.mark.parametrize("sent", [b"", REQUEST[:9], REQUEST])
async def test_idle_connection_is_closed(sent: bytes) -> None:
    """With nothing, half a head or an answered request a connection is closed when idle for too long."""
    connection = make(Connection, Application(), keep_alive_timeout=0.01)
    connection.reader.feed_data(sent)
    async with asyncio.timeout(10):
        await connection.run()
    assert connection.writer.is_closing()


async def test_idle_time_begins_again_with_each_answer() -> None:
    """Requests move the end of the idle time without a new timer for each."""
    connection = make(Connection, Application(), keep_alive_timeout=60)
    running = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    timer, ends = connection.idle_task._handle, []
    for turn in range(1, 4):
        connection.reader.feed_data(REQUEST)
        while connection.writer.sent.count(b"ok") < turn or connection.protocol.protocol.stream:  # noqa: ASYNC110
            await asyncio.sleep(0)
        ends.append(connection.idle_task.until)
    assert ends == sorted(set(ends))
    assert connection.idle_task._handle is timer
    connection.reader.feed_eof()
    await running
    assert timer.cancelled()


async def append_late(port: int, name: str, delay: float) -> bool:
    """Make a request, wait, and append on the same connection; return whether there was an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(REQUEST)
        await reader.readuntil(b"</p>")
        await asyncio.sleep(delay)
        writer.write(b"GET /wizards?name=%s HTTP/1.1\r\nHost: t\r\n\r\n" % name.encode())
        return bool(await reader.read(1))
    except OSError:
        return False
    finally:
        writer.close()


async def test_no_append_is_carried_out_unanswered(tmp_path: Path) -> None:
    """Hundreds of appends come as their connections' idle time ends: those in the list were answered."""
    jitter = random.Random(1)
    file = tmp_path / "w.db"
    with Server(tmp_path, f"sqlite:///{file}", options=("--keep-alive", "1")) as server:
        names = [f"late{number}" for number in range(400)]
        delays = (1 + jitter.uniform(-0.05, 0.05) for _ in names)
        answered = await asyncio.gather(*map(append_late, [server.port] * len(names), names, delays))
        assert await asyncio.to_thread(server.stop) == 0
    with sqlite3.connect(file) as connection:
        present = {name for (name,) in connection.execute("SELECT name FROM wizards")}
    connection.close()
    assert {name for name, got in zip(names, answered, strict=True) if got} == present.intersection(names)
