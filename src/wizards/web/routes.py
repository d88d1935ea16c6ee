"""The routes: parse, one call, respond."""

from quart import Blueprint, Response, current_app, jsonify, request
from werkzeug.exceptions import NotFound

from wizards.web.headers import LIST_PATH
from wizards.web.shared_list import ListRequest, SharedList, name_in

blueprint = Blueprint("wizards", __name__)


@blueprint.get("/")
async def hello() -> str:
    """Say hello."""
    return "<p>Hello World from Flask!</p>"


@blueprint.get(LIST_PATH)
async def shared_list() -> Response:
    """Show the shared list, after appending `?name=` to it."""
    wizards: SharedList = current_app.extensions["wizards"]
    answer = await wizards.answer(ListRequest.parse(request), name_in(request.query_string))
    return answer.to_response()


@blueprint.get("/api/wizards")
async def gryffindors() -> Response:
    """Return the tutorial's fixed list as JSON."""
    return jsonify([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])


@blueprint.get("/static/<path:filename>")
async def static(filename: str) -> Response:  # noqa: ARG001
    """Respond 404, as the Flask app does: Flask adds this route for a folder that does not exist."""
    raise NotFound
