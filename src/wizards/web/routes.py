"""The three routes: parse, one call, respond.

A read of the list, and an append that surely passes the checks below, has been to the roster before it comes
here, if it comes at all (see `front`, whose NOT_PLAIN names the headers that the checks look at).
"""

from quart import Blueprint, Response, current_app, jsonify, request
from werkzeug.exceptions import BadRequest, Forbidden, NotFound, ServiceUnavailable

from wizards.core.roster import Roster
from wizards.server.shutdown import Stop
from wizards.web import errors
from wizards.web import representation as answer

blueprint = Blueprint("wizards", __name__)


@blueprint.get("/")
async def hello() -> str:
    """Say hello."""
    return "<p>Hello World from Flask!</p>"


@blueprint.get(answer.PATH)
async def shared_list() -> Response:
    """Show the shared list, after appending `?name=` to it."""
    if (snapshot := answer.known_snapshot()) is not None:
        return answer.to_read(snapshot)
    roster: Roster = current_app.extensions["roster"]
    name = request.args.get("name")
    if not name:
        return answer.to_read(await roster.read())
    _check_intent()
    _check_name(name)
    _check_stop()
    return answer.to_append(await roster.append(name))


@blueprint.get("/api/wizards")
async def gryffindors() -> Response:
    """Answer the tutorial's fixed list as JSON."""
    return jsonify([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])


@blueprint.get("/static/<path:filename>")
async def static(filename: str) -> Response:  # noqa: ARG001
    """Find nothing. The Flask app has this route, too: Flask adds it, for a folder that is not there."""
    raise NotFound


def _check_intent() -> None:
    # Fetch Metadata: browsers send these headers, and no script of theirs can forge them.
    headers = request.headers
    foreign = headers.get("Sec-Fetch-Site") == "cross-site"
    followed = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    if foreign and not followed:
        raise Forbidden("A page of another site may link to this address, but not append on its own.")
    if "prefetch" in headers.get("Sec-Purpose", ""):
        raise Forbidden("Fetching ahead of need does not append. Open the address itself.")


def _check_name(name: str) -> None:
    longest = current_app.config["MAX_NAME_LENGTH"]
    if len(name) > longest:
        raise BadRequest(f"The name has {len(name)} characters; it may have {longest} at most.")
    if "\0" in name:
        raise BadRequest("The name holds a NUL character; it may hold any other.")


def _check_stop() -> None:
    stop: Stop = current_app.extensions["stop"]
    if stop.has_begun():
        raise ServiceUnavailable(
            "This server is stopping and did nothing. Try again.", retry_after=errors.RETRY_AFTER
        )
