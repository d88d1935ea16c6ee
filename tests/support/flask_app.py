"""The oracle: the Flask tutorial's app that ours replaces, with its faults."""

from collections.abc import Callable

from flask import Flask, Response, jsonify, request


def create_app(show: Callable[[str], str] = str) -> Flask:
    """Make an app with a list of its own, `app.extensions["wizards"]`.

    The tutorial puts a name into the page unescaped; `show` returns what to put there instead.
    """
    app = Flask(__name__)
    wizards = app.extensions["wizards"] = ["Harry", "Ron", "Hermione"]

    @app.get("/")
    def hello() -> str:
        return "<p>Hello World from Flask!</p>"

    @app.get("/wizards")
    def shared_list() -> str:
        name = request.args.get("name")
        if name:
            wizards.append(name)
        return "".join(
            f"<p>Hello {show(name)} is a wizard of system design with Flask!</p>" for name in wizards
        )

    @app.get("/api/wizards")
    def gryffindors() -> Response:
        return jsonify([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])

    return app
