"""The Flask application with the service's durability: every append is committed to SQLite.

The settings of the database are the service's own: WAL, and an fsync for every commit. Each thread keeps one
connection, every response is read from the table, and names are escaped, because they are stored permanently.
"""

import os
import sqlite3
import threading

from flask import Flask, Response, jsonify, request
from markupsafe import escape

app = Flask(__name__)
local = threading.local()


def database() -> sqlite3.Connection:
    """Return this thread's connection."""
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect(os.environ["BENCH_DATABASE"])
        local.connection.execute("PRAGMA journal_mode=WAL")
        local.connection.execute("PRAGMA synchronous=FULL")
    connection: sqlite3.Connection = local.connection
    return connection


with database() as creating:
    creating.execute("CREATE TABLE wizards (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    creating.executemany("INSERT INTO wizards (name) VALUES (?)", [("Harry",), ("Ron",), ("Hermione",)])


@app.route("/")
def hello() -> str:
    """Return the greeting."""
    return "<p>Hello World from Flask!</p>"


@app.route("/wizards")
def shared_list() -> str:
    """Append the name, if any, and return the list."""
    name = request.args.get("name")
    if name:
        with database() as appending:
            appending.execute("INSERT INTO wizards (name) VALUES (?)", (name,))
    rows = database().execute("SELECT name FROM wizards ORDER BY id")
    return "".join(
        f"<p>Hello {escape(name)} is a wizard of system design with Flask!</p>" for (name,) in rows
    )


@app.route("/api/wizards")
def gryffindors() -> Response:
    """Return the fixed list."""
    return jsonify([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])
