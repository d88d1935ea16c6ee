"""The application: wiring, start and stop."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NoReturn

from quart import Quart
from sqlalchemy import URL

from . import errors
from .config import DEFAULTS, PREFIX, Settings, StartError
from .connection import Connection, complete_headers
from .read_cache import ReadCache
from .roster import Roster, in_one_line
from .routes import blueprint
from .sqlite import SQLiteStore
from .stop import Stop
from .store import Store


def create_app(config: Mapping[str, Any] | None = None) -> Quart:
    """Make an application of its own: a Quart app with its list, not yet opened.

    Settings come from `config`, then from WIZARDS_* environment variables, then from the defaults.
    Raises StartError where one cannot be used.
    """
    app = Quart("wizards", static_folder=None)
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
    app.after_request(complete_headers)
    app.asgi_app = ReadCache(app.asgi_app, roster)  # type: ignore[method-assign]

    @app.while_serving
    async def serve_list() -> AsyncGenerator[None]:
        where = settings.database_url.set(query={}).render_as_string(hide_password=True)
        stop.prepare()
        try:
            snapshot = await roster.open()
        except Exception as error:  # noqa: BLE001  # drivers raise whatever they like
            await _leave(StartError(f"{PREFIX}_DATABASE_URL: {where} cannot be used: {in_one_line(error)}"))
        app.logger.info("The list at %s is open; wizards: %d.", where, snapshot.length)
        yield
        await roster.close()
        app.logger.info("The list at %s is closed.", where)

    return app


async def _leave(error: StartError) -> NoReturn:
    # A callback that raises it ends the event loop, and with it the server, with nothing but its message.
    # A task that does leaves a traceback behind, and so does a failed lifespan under Hypercorn.
    def exit_now() -> NoReturn:
        raise error

    asyncio.get_running_loop().call_soon(exit_now)
    while True:
        await asyncio.Event().wait()


def _store(url: URL) -> Store:
    if url.drivername == "sqlite":
        return SQLiteStore(url)
    try:
        from .postgresql import PostgreSQLStore  # noqa: PLC0415  # an extra: not everyone has it
    except ImportError as error:
        raise StartError(f"PostgreSQL needs a driver: pip install 'wizards[postgresql]' ({error})") from None
    return PostgreSQLStore(url)
