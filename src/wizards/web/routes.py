"""The routes: parse, one call, respond."""

from quart import Blueprint, Response, current_app, request
from werkzeug.exceptions import NotFound

from wizards.web.headers import EVENT_HEADERS, LIST_PATH
from wizards.web.list_request import EVENTS, HTML_UTF8, JSON, ListRequest, preferred_type
from wizards.web.list_resource import ListResource, name_in
from wizards.web.representation import FixedDocument

blueprint = Blueprint("wizards", __name__)

HELLO = FixedDocument("<p>Hello World from Flask!</p>", HTML_UTF8)
GRYFFINDORS = FixedDocument(
    '[{"house":"Gryffindor","name":"Harry"},{"house":"Gryffindor","name":"Hermione"},'
    '{"house":"Gryffindor","name":"Ron"}]\n',
    JSON,
)

# By endpoint, for the fast path.
FIXED = {"wizards.hello": HELLO, "wizards.gryffindors": GRYFFINDORS}
LIST = "wizards.shared_list"


@blueprint.get("/")
async def hello() -> Response:
    """Say hello."""
    return HELLO.answer(request).to_response()


@blueprint.get(LIST_PATH)
async def shared_list() -> Response:
    """Show the shared list, or let the client follow it, after appending `?name=` to it."""
    resource: ListResource = current_app.extensions["wizards"]
    asked, name = ListRequest.parse(request), name_in(request.query_string)
    if preferred_type(request) == EVENTS:
        events = await resource.follow(asked, name, request.headers.get("Last-Event-ID", ""))
        return Response(
            events if request.method == "GET" else None, headers=EVENT_HEADERS, content_type=EVENTS
        )
    answer = await resource.answer(asked, name)
    return answer.to_response()


@blueprint.get("/api/wizards")
async def gryffindors() -> Response:
    """Return the tutorial's fixed list as JSON."""
    return GRYFFINDORS.answer(request).to_response()


@blueprint.get("/static/<path:filename>")
async def static(filename: str) -> Response:  # noqa: ARG001
    """Respond 404, as the Flask app does: Flask adds this route for a folder that does not exist."""
    raise NotFound
