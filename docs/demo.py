#!/usr/bin/env python3
"""Run a server, five concurrent clients and a follower, and show what each of them gets (`make demo`)."""

import asyncio
import json
import logging
import socket
import sys
from itertools import islice
from urllib.parse import quote
from urllib.request import Request, urlopen

from hypercorn.asyncio import serve
from hypercorn.config import Config

from wizards import create_app

CLIENTS = {
    "Ann": ("Luna", "Ginny"),
    "Bob": ("Neville", "Cho"),
    "Cem": ("Cedric", "Dean"),
    "Dea": ("Parvati", "Padma"),
    "Eve": ("Fred & George", "<b>Draco</b>"),
}


def say(line: str = "") -> None:
    """Print a line and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def fetch(url: str, media_type: str = "application/json") -> str:
    """Return the body of the server's response."""
    with urlopen(Request(url, headers={"Accept": media_type}), timeout=30) as answer:  # noqa: S310  # our own
        text: str = answer.read().decode()
    return text


def follow(url: str, count: int) -> list[str]:
    """Return the first `count` names of the list, as the server sends them one by one."""
    request = Request(url, headers={"Accept": "text/event-stream"})  # noqa: S310  # our own
    with urlopen(request, timeout=30) as stream:  # noqa: S310
        data = (line.removeprefix(b"data: ") for line in stream if line.startswith(b"data: "))
        return [json.loads(event)["name"] for event in islice(data, count)]


async def names(url: str) -> list[str]:
    """Return the server's list, without blocking the server in the same event loop."""
    return [wizard["name"] for wizard in json.loads(await asyncio.to_thread(fetch, url))]


async def add(client: str, url: str) -> list[list[str]]:
    """Add the wizards of one client, one after the other, and show each response."""
    answers = []
    for name in CLIENTS[client]:
        answers.append(await names(f"{url}/wizards?name={quote(name)}"))
        place = answers[-1].index(name) + 1
        since = ", ".join(answers[-1][place - 1 :])
        say(f"  {client} adds {name:<15}no. {place:>2}   of {len(answers[-1]):>2}: …, {since}")
    return answers


async def show(url: str) -> None:
    """Show the list at the start, the clients' responses, and the final list."""
    say(f"A server has started on {url}, its list in memory: {', '.join(await names(f'{url}/wizards'))}.")
    say("Five clients add two wizards each, all at the same time. Each client gets back:\n")
    count = 3 + sum(map(len, CLIENTS.values()))
    following = asyncio.create_task(asyncio.to_thread(follow, f"{url}/wizards", count))
    got = await asyncio.gather(*(add(client, url) for client in CLIENTS))
    final = await names(f"{url}/wizards")
    answers = [answer for both in got for answer in both]
    prefixes = sum(answer == final[: len(answer)] for answer in answers)
    say(
        f"\nThe list holds {len(final)} names now, {len(set(final))} different ones: none lost, none doubled."
    )
    say(f"{prefixes} of {len(answers)} answers are the beginning of it, as far as the list had grown.")
    followed = await following
    order = "the same" if followed == final else "another"
    say(f"A sixth client follows the list: {len(followed)} events in {order} order, from one request.")
    page = await asyncio.to_thread(fetch, f"{url}/wizards", "text/html")
    say(
        f"A browser gets the list as HTML, with escaped names: …{page[page.index('<p>Hello Fred') :][:55]}…\n"
    )


async def main() -> None:
    """Serve on a free port, run the clients, and stop the server."""
    logging.getLogger("wizards").setLevel(logging.WARNING)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None  # Hypercorn would log its address a second time
    app = create_app({"DATABASE_URL": "sqlite://"})
    shown = asyncio.Event()
    server = asyncio.create_task(serve(app, config, shutdown_trigger=shown.wait))
    try:
        await show(url)
    finally:
        shown.set()
        await server
    say("The server has stopped. `make run` starts a server that keeps running; `make help` lists the rest.")


if __name__ == "__main__":
    asyncio.run(main())
