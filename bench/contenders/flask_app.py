"""The Flask tutorial application that the service replaces; its list ends with the process."""

from flask import Flask, Response, jsonify, request

from bench.names import first_names

app = Flask(__name__)
wizards = first_names()


@app.route("/")
def hello() -> str:
    """Return the greeting."""
    return "<p>Hello World from Flask!</p>"


@app.route("/wizards")
def shared_list() -> str:
    """Append the name, if any, and return the list."""
    name = request.args.get("name")
    if name:
        wizards.append(name)
    return "".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in wizards)


@app.route("/api/wizards")
def gryffindors() -> Response:
    """Return the fixed list."""
    return jsonify([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])
