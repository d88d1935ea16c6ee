"""The application: wiring, start and stop."""

import asyncio
import logging
import string
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from hypercorn.typing import HTTPScope
from quart import Quart, Response, request
from quart.asgi import ASGIHTTPConnection
from sqlalchemy import URL

from . import answer, errors
from .config import DEFAULTS, PREFIX, Settings, StartError
from .read_cache import ReadCache
from .roster import Roster, in_one_line
from .routes import blueprint
from .sqlite import SQLiteStore
from .stop import Stop, leave
from .store import Store

SAFETY_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


class Connection(ASGIHTTPConnection):
    """A request whose target may be anything.

    Quart takes neither an empty path nor a query that is not ASCII (HTTP/2 lets one through), and fails
    at some absolute targets; RFC 9112, section 3.2, says what they mean.
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, {**scope, "path": _path(scope["path"]), "query_string": _ascii(scope)})


def create_app(config: Mapping[str, Any] | None = None) -> Quart:
    """Make an application of its own: a Quart app with its list, not yet opened.

    Settings come from `config`, then from WIZARDS_* environment variables, then from the defaults.
    Raises StartError where one cannot be used.
    """
    app = Quart("wizards")
    app.asgi_http_class = Connection
    app.json.compact = True  # type: ignore[attr-defined]  # in debug mode, too
    app.config.update(DEFAULTS)
    app.config.from_prefixed_env(PREFIX)
    app.config.update(config or {})
    settings = Settings.check(app.config)
    if app.logger.level == logging.NOTSET:
        app.logger.setLevel(logging.INFO)

    roster = Roster(
        _store(settings.database_url),
        max_wizards=settings.max_wizards,
        max_waiting=settings.max_waiting,
    )
    stop = Stop(app)
    app.extensions |= {"roster": roster, "stop": stop}
    app.register_blueprint(blueprint)
    errors.register(app)
    app.after_request(_add_headers)
    app.asgi_app = ReadCache(app.asgi_app, roster)  # type: ignore[method-assign]

    @app.while_serving
    async def serve_list() -> AsyncGenerator[None]:
        where = settings.database_url.set(query={}).render_as_string(hide_password=True)
        stop.prepare()
        try:
            snapshot = await roster.open()
        except Exception as error:  # noqa: BLE001  # drivers raise whatever they like
            leave(StartError(f"{PREFIX}_DATABASE_URL: {where} cannot be used: {in_one_line(error)}"))
            await asyncio.Event().wait()
        app.logger.info("The list at %s is open; wizards: %d.", where, snapshot.length)
        yield
        await roster.close()
        app.logger.info("The list at %s is closed.", where)

    return app


def _store(url: URL) -> Store:
    if url.drivername == "sqlite":
        return SQLiteStore(url)
    try:
        from .postgresql import PostgreSQLStore  # noqa: PLC0415  # an extra: not everyone has it
    except ImportError as error:
        raise StartError(f"PostgreSQL needs a driver: pip install 'wizards[postgresql]' ({error})") from None
    return PostgreSQLStore(url)


async def _add_headers(response: Response) -> Response:
    response.headers.update(SAFETY_HEADERS)
    if request.path == answer.PATH:
        response.vary.update(["Accept", "Accept-Encoding"])
    return response


def _path(target: str) -> str:
    if target.startswith("/"):
        return target
    try:
        return urlsplit(target).path or "/"
    except ValueError:  # it looks like a URL and is none
        return f"/{target}"


def _ascii(scope: HTTPScope) -> bytes:
    return quote(scope["query_string"], safe=string.punctuation).encode()
