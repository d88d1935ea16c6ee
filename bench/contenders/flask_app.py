"""The Flask tutorial application that the service replaces. Its list is lost when it stops."""

from flask import Flask, Response, jsonify, request

from bench.names import first_names

app = Flask(__name__)
wizards = first_names()


@app.route("/")
def hello() -> str:
    """Say hello."""
    return "<p>Hello World from Flask!</p>"


@app.route("/wizards")
def shared_list() -> str:
    """Show the list, after appending to it."""
    name = request.args.get("name")
    if name:
        wizards.append(name)
    return "".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in wizards)


@app.route("/api/wizards")
def gryffindors() -> Response:
    """Answer the fixed list."""
    return jsonify([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])
