"""The application: wiring, start and stop."""

import encodings.idna  # noqa: F401  # Werkzeug's first request imports it, when no file may be free
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, LifespanScope
from hypercorn.utils import LifespanFailureError
from quart import Quart
from quart.asgi import ASGILifespan

from wizards.config import PREFIX, StartError, check, read_settings
from wizards.core.feed import Feed
from wizards.core.roster import Roster
from wizards.server import HypercornLink, logs
from wizards.storage.base import Store, first_line
from wizards.web.errors import register_error_handlers
from wizards.web.list_resource import ListResource
from wizards.web.middleware import FastPathMiddleware
from wizards.web.quart_workarounds import TolerantHTTPConnection, TolerantWebsocketConnection
from wizards.web.routes import blueprint

logger = logging.getLogger(__name__)


def create_app(config: Mapping[str, Any] | None = None) -> Quart:
    """Create a Quart application with a shared list of its own, which its start opens.

    `config` takes precedence over WIZARDS_* environment variables, and these over the defaults; its keys are
    names of settings without the prefix, or Quart's. Raises StartError if a setting cannot be used.
    The application's start raises StartError if the storage cannot be used.
    """
    app = Quart("wizards", static_folder=None)
    read_settings(app.config, config or {})
    app.config["RESPONSE_TIMEOUT"] = None  # no response timeout: slow readers are allowed
    store = check(app.config)
    logs.configure(app.name, app.config["LOG_FORMAT"])
    if app.logger.level == logging.NOTSET:
        app.logger.setLevel(logging.INFO)
    app.logger.addFilter(_is_no_start_error)
    roster = Roster(store, max_wizards=app.config["MAX_WIZARDS"], max_waiting=app.config["MAX_WAITING"])
    hypercorn = HypercornLink(app.config["LOG_FORMAT"])
    feed = Feed(roster, poll_seconds=store.poll_seconds, must_end=hypercorn.must_end_streams)
    hypercorn.gauges = feed.gauges
    app.extensions["wizards"] = ListResource(
        roster,
        feed,
        max_name_length=app.config["MAX_NAME_LENGTH"],
        must_refuse_appends=hypercorn.must_refuse_appends,
    )
    _add_lifespan(app, roster, hypercorn, store)
    _add_web(app)
    return app


def _add_web(app: Quart) -> None:
    app.asgi_http_class = TolerantHTTPConnection
    app.asgi_websocket_class = TolerantWebsocketConnection
    app.register_blueprint(blueprint)
    register_error_handlers(app)
    app.asgi_app = FastPathMiddleware(app, app.extensions["wizards"])  # type: ignore[method-assign]


def _add_lifespan(app: Quart, roster: Roster, hypercorn: HypercornLink, store: Store) -> None:
    async def start() -> None:
        try:
            snapshot = await roster.open()
        except Exception as error:
            why = f"{store.where} cannot be used: {first_line(error)}"
            raise StartError(f"{PREFIX}_DATABASE_URL: {why}") from error
        logger.info("The list at %s is open; wizards: %d.", store.where, snapshot.length)

    async def close() -> None:
        await roster.close()
        logger.info("The list is closed.")

    app.asgi_lifespan_class = lambda *of: partial(_run_lifespan, hypercorn, *of)  # type: ignore[assignment]
    app.before_serving(start)
    app.after_serving(close)


async def _run_lifespan(
    hypercorn: HypercornLink,
    app: Quart,
    scope: LifespanScope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
) -> None:
    # As Quart does, and raise the StartError of a failed start once the server has been told.
    try:
        with hypercorn.attached(scope):
            await ASGILifespan(app, scope)(receive, send)
    except LifespanFailureError:  # Hypercorn takes any other exception for a lack of lifespan support
        raise
    except Exception as error:
        if isinstance(error.__context__, StartError):
            raise error.__context__ from None
        raise


def _is_no_start_error(record: logging.LogRecord) -> bool:
    # Quart logs it with a traceback; the server, or the code that started the application, reports it.
    return not (record.exc_info and isinstance(record.exc_info[1], StartError))
