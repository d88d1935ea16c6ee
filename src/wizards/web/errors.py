"""Which error becomes which answer."""

from quart import Quart, has_request_context, json
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.wrappers import Response

from wizards.core.roster import RosterBusyError, RosterError, RosterFullError, RosterUnavailableError
from wizards.web import representation as answer

# In seconds, a guess that suits both a burst of requests and a database that restarts.
RETRY_AFTER = 1


class InsufficientStorage(HTTPException):
    """507, RFC 4918, section 11.5; Werkzeug has no class for it."""

    code = 507
    description = "The list is full, the name was not added."


ANSWERS: dict[type[RosterError], HTTPException] = {
    RosterFullError: InsufficientStorage(),
    RosterBusyError: ServiceUnavailable(
        "Too many requests are waiting, this one did nothing. Try again in a moment.",
        retry_after=RETRY_AFTER,
    ),
    RosterUnavailableError: ServiceUnavailable(
        "The list is out of reach. If you were adding a name, it may or may not have been added:"
        " look before you add it again.",
        retry_after=RETRY_AFTER,
    ),
}


def register(app: Quart) -> None:
    """Let `app` answer every HTTP error and every error of the roster."""
    app.register_error_handler(RosterError, _answer_roster_error)
    app.register_error_handler(HTTPException, _answer_http_error)


async def _answer_roster_error(error: RosterError) -> Response:
    return await _answer_http_error(ANSWERS[type(error)])


async def _answer_http_error(error: HTTPException) -> Response:
    response: Response = error.get_response()
    if has_request_context() and answer.prefers_json():  # a WebSocket handshake has none
        response.data = json.dumps({"error": error.description}) + "\n"
        response.mimetype = answer.JSON
    return response
