"""Whether anything that is not ours is registered on the app, and so has to see every request.

That is a hook, a receiver of a request signal, a view, a session interface, another connection class, or any
method or class that the app has got in place of Quart's.
"""

from copy import deepcopy
from typing import Any

from quart import Quart, signals

from wizards.web.quart_workarounds import TolerantHTTPConnection

SIGNALS = [signal for name, signal in vars(signals).items() if name.startswith(("request_", "appcontext_"))]
SIGNALS.append(signals.got_request_exception)
RECEIVERS = [signal.receivers for signal in SIGNALS]


class Extensions:
    """What is registered on `app` beside what is there now."""

    def __init__(self, app: Quart) -> None:
        self.views = dict(app.view_functions)  # ours
        self._app = app
        # Quart adds these empty lists at its first request; here, so that they are there from the start.
        self._no_hooks: dict[str | None, list[Any]] = {name: [] for name in (None, *app.blueprints)}
        app.before_request_funcs.update(deepcopy(self._no_hooks))
        app.after_request_funcs.update(deepcopy(self._no_hooks))
        app.teardown_request_funcs.update(deepcopy(self._no_hooks))
        app.url_value_preprocessors.update(deepcopy(self._no_hooks))
        self._attributes = {*vars(app), "asgi_app"}

    def exist(self) -> bool:
        """Return whether there are any."""
        # Without loops in Python, as each request pays for it (0.3 µs).
        app = self._app
        return bool(
            app.before_request_funcs != self._no_hooks
            or app.after_request_funcs != self._no_hooks
            or app.teardown_request_funcs != self._no_hooks
            or app.url_value_preprocessors != self._no_hooks
            or app.teardown_appcontext_funcs
            or (len(vars(app)) != len(self._attributes) and self._override())
            or app.view_functions != self.views
            or app.asgi_http_class is not TolerantHTTPConnection
            or (any(RECEIVERS) and any(signal.has_receivers_for(app) for signal in SIGNALS))
        )

    def _override(self) -> bool:
        # Whether the app has got a method or a class of its own since, in place of Quart's.
        new = vars(self._app).keys() - self._attributes
        is_overridden = any(
            hasattr(Quart, name) and not isinstance(getattr(Quart, name), property) for name in new
        )
        if not is_overridden:
            self._attributes |= new
        return is_overridden
