"""Clients that go on appending until the server refuses them, and what became of their requests."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """The names that were asked for, by what became of the request."""

    acknowledged: list[str] = field(default_factory=list)
    turned_away: list[str] = field(default_factory=list)  # 503
    cut: list[str] = field(default_factory=list)  # a part of an answer
    dropped: list[str] = field(default_factory=list)  # connected and sent, but no byte of an answer
    refused: int = 0  # no connection
    answers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def check(self, names: Iterable[str]) -> None:
        """Check against the final list: nothing acknowledged is missing, nothing unanswered is there."""
        present = set(names)
        assert not self.cut
        assert present.issuperset(self.acknowledged)
        assert present.isdisjoint(self.turned_away)
        assert present.isdisjoint(self.dropped)


async def append_until_refused(port: int, outcome: Outcome, client: int, *, keep_alive: bool) -> None:
    """Append names of this client, one by one, until the server is gone."""
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    number = 0
    while True:
        if connection is None:
            try:
                connection = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                outcome.refused += 1
                return
        goes_on = await _append(connection, outcome, f"c{client}n{number}", keep_alive=keep_alive)
        number += 1
        if not goes_on:
            connection[1].close()
            connection = None
        if outcome.dropped or outcome.cut:
            return


async def _append(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    outcome: Outcome,
    name: str,
    *,
    keep_alive: bool,
) -> bool:
    reader, writer = connection
    wish = "keep-alive" if keep_alive else "close"
    part = "Range: bytes=0-0\r\n" if name[-1] in "02468" else ""  # every other one through Quart
    request = f"GET /wizards?name={name} HTTP/1.1\r\nHost: test\r\n{part}Connection: {wish}\r\n\r\n"
    head = b""
    try:
        writer.write(request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    except (OSError, asyncio.IncompleteReadError):
        (outcome.cut if head else outcome.dropped).append(name)
        return False
    status = head.split()[1]
    assert status in {b"200", b"206", b"503"}, head
    (outcome.turned_away if status == b"503" else outcome.acknowledged).append(name)
    outcome.answers.release()
    told_to_close = head.lower().count(b"connection: close")
    assert told_to_close <= 1, head
    return not told_to_close
