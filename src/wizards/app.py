"""The application: wiring, start and stop."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

from quart import Quart
from sqlalchemy import URL

from wizards.config import DEFAULTS, PREFIX, StartError, check
from wizards.core.roster import Roster
from wizards.server import connections as hypercorn_mends
from wizards.server.shutdown import Stop
from wizards.storage.base import Store
from wizards.storage.sqlite import SQLiteStore
from wizards.web import errors
from wizards.web.middleware import Front
from wizards.web.quart_workarounds import Connection, Handshake, complete_headers
from wizards.web.routes import blueprint

logger = logging.getLogger(__name__)

HINTS = {
    "sqlite": "Its folder has to exist and be writable.",
    "postgresql": "The server has to run there, and the database to exist.",
}


def create_app(config: Mapping[str, Any] | None = None) -> Quart:
    """Make an application of its own: a Quart app with its list, not yet opened.

    Settings come from `config`, then from WIZARDS_* environment variables, then from the defaults.
    Raises StartError where one cannot be used.
    """
    app = Quart("wizards", static_folder=None)
    url = _configure(app, config or {})
    settings = app.config
    roster = Roster(_store(url), max_wizards=settings["MAX_WIZARDS"], max_waiting=settings["MAX_WAITING"])
    stop = Stop(app)
    app.extensions |= {"roster": roster, "stop": stop}
    app.asgi_http_class, app.asgi_websocket_class = Connection, Handshake
    # A server name makes Quart answer that host alone, so Quart has to see every append.
    longest = 0 if settings["SERVER_NAME"] else settings["MAX_NAME_LENGTH"]
    app.asgi_app = Front(app.asgi_app, roster, stop, max_plain_length=longest)  # type: ignore[method-assign]
    app.register_blueprint(blueprint)
    app.after_request(complete_headers)
    errors.register(app)
    app.while_serving(partial(_serve, roster, stop, url))
    return app


def _configure(app: Quart, config: Mapping[str, Any]) -> URL:
    app.config.update(DEFAULTS)
    app.config.from_prefixed_env(PREFIX)
    app.config.update(config)
    app.config["RESPONSE_TIMEOUT"] = None  # a slow reader may take its time, whoever answers
    app.json.compact = True  # type: ignore[attr-defined]  # in debug mode, too
    if app.logger.level == logging.NOTSET:
        app.logger.setLevel(logging.INFO)
    return check(app.config)


async def _serve(roster: Roster, stop: Stop, url: URL) -> AsyncGenerator[None]:
    hypercorn_mends.install()
    stop.prepare()
    await _open(roster, url)
    gc.freeze()  # what is there now will stay; to go through it again and again costs 2 % of the reads
    yield
    gc.unfreeze()
    await roster.close()
    logger.info("The list is closed.")
    stop.finish()


async def _open(roster: Roster, url: URL) -> None:
    where = url.set(query={}).render_as_string(hide_password=True)
    try:
        snapshot = await roster.open()
    except Exception as error:  # noqa: BLE001  # drivers raise whatever they like
        why = f"{Store.explain(error)}. {HINTS[url.drivername]}"
        # A callback that exits ends the event loop, and with it the server, with nothing but its message.
        # A task that does leaves a traceback behind, and so does a failed lifespan under Hypercorn.
        loop = asyncio.get_running_loop()
        loop.call_soon(sys.exit, f"{PREFIX}_DATABASE_URL: {where} cannot be used: {why}")
        await loop.create_future()
    else:
        logger.info("The list at %s is open; wizards: %d.", where, snapshot.length)


def _store(url: URL) -> Store:
    if url.drivername == "sqlite":
        return SQLiteStore(url)
    try:
        from wizards.storage.postgresql import PostgreSQLStore  # noqa: PLC0415  # an extra: not everyone has it
    except ImportError as error:
        raise StartError(
            f"PostgreSQL needs the extra 'postgresql': pip install '.[postgresql]' ({error})"
        ) from None
    return PostgreSQLStore(url)
