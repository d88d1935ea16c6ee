"""The plain Quart port of the Flask application: its handlers and a lock, no more."""

import asyncio

from quart import Quart, Response, jsonify, request

from bench.names import first_names

app = Quart(__name__)
wizards = first_names()
lock = asyncio.Lock()


@app.route("/")
async def hello() -> str:
    """Say hello."""
    return "<p>Hello World from Flask!</p>"


@app.route("/wizards")
async def shared_list() -> str:
    """Show the list, after appending to it."""
    name = request.args.get("name")
    async with lock:
        if name:
            wizards.append(name)
        return "".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in wizards)


@app.route("/api/wizards")
async def gryffindors() -> Response:
    """Answer the fixed list."""
    return jsonify([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])
