"""The plain Quart port of the Flask application: the same handlers and a lock."""

import asyncio

from quart import Quart, Response, jsonify, request

from bench.names import first_names

app = Quart(__name__)
wizards = first_names()
lock = asyncio.Lock()


@app.route("/")
async def hello() -> str:
    """Return the greeting."""
    return "<p>Hello World from Flask!</p>"


@app.route("/wizards")
async def shared_list() -> str:
    """Append the name, if any, and return the list."""
    name = request.args.get("name")
    async with lock:
        if name:
            wizards.append(name)
        return "".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in wizards)


@app.route("/api/wizards")
async def gryffindors() -> Response:
    """Return the fixed list."""
    return jsonify([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])
