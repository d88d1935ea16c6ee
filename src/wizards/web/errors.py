"""Responses to errors."""

from quart import Quart, Request, has_request_context, json, request
from werkzeug.exceptions import HTTPException, ServiceUnavailable
from werkzeug.wrappers import Response

from wizards.core.errors import RosterBusyError, RosterError, RosterFullError, RosterUnavailableError
from wizards.web.headers import LIST_PATH
from wizards.web.list_request import JSON, preferred_type

# In seconds, a guess that suits both a burst of requests and a database that restarts.
RETRY_AFTER = 1


class InsufficientStorage(HTTPException):
    """507 (RFC 4918, section 11.5), for which Werkzeug has no class."""

    code = 507
    description = "The list is full; the name was not added."


RESPONSES: dict[type[RosterError], HTTPException] = {
    RosterFullError: InsufficientStorage(),
    RosterBusyError: ServiceUnavailable(
        "Too many requests are waiting; this one did nothing. Try again in a moment.",
        retry_after=RETRY_AFTER,
    ),
    RosterUnavailableError: ServiceUnavailable(
        "The list is out of reach. If you were adding a name, it may or may not have been added:"
        " look before you add it again.",
        retry_after=RETRY_AFTER,
    ),
}


def register_error_handlers(app: Quart) -> None:
    """Let `app` respond to each HTTP error and each error of the roster."""
    app.register_error_handler(RosterError, _handle_roster_error)
    app.register_error_handler(HTTPException, _handle_http_error)


def error_response(error: HTTPException, request: Request | None) -> Response:
    """Return the response to `error`: Werkzeug's page, or JSON for a client that prefers the list as JSON."""
    response: Response = error.get_response()
    if request is not None and request.path == LIST_PATH and preferred_type(request) == JSON:
        response.data = json.dumps({"error": error.description}) + "\n"
        response.mimetype = JSON
    return response


async def _handle_roster_error(error: RosterError) -> Response:
    return await _handle_http_error(RESPONSES[type(error)])


async def _handle_http_error(error: HTTPException) -> Response:
    # A WebSocket handshake has no request.
    return error_response(error, request._get_current_object() if has_request_context() else None)  # type: ignore[attr-defined]  # noqa: SLF001
