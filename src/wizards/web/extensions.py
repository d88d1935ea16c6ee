"""Whether anything that is not ours is registered on the app, and so has to see every request.

That is a hook, a receiver of a request signal, a view, a session interface, another connection class, or any
method or class that the app has got in place of Quart's.
"""

from copy import deepcopy
from operator import itemgetter

from quart import Quart, signals

# Where hooks, views and the connection's class are registered.
REGISTERED = itemgetter(
    "before_request_funcs",
    "after_request_funcs",
    "teardown_request_funcs",
    "url_value_preprocessors",
    "teardown_appcontext_funcs",
    "view_functions",
    "asgi_http_class",
)

SIGNALS = [signal for name, signal in vars(signals).items() if name.startswith(("request_", "appcontext_"))]
SIGNALS.append(signals.got_request_exception)
# What can be replaced on an app: all but what Quart itself keeps there later, such as its Jinja environment.
REPLACEABLE = {name for name in dir(Quart) if not isinstance(getattr(Quart, name), property)}

RECEIVERS = [signal.receivers for signal in SIGNALS]


class Extensions:
    """What is registered on `app` beside what is there now."""

    def __init__(self, app: Quart) -> None:
        # Quart adds these empty lists at its first request; here, so that they are there from the start.
        for hooks in REGISTERED(vars(app))[:4]:
            hooks.update({name: [] for name in (None, *app.blueprints)})
        self.views = dict(app.view_functions)  # ours
        self._app = app
        self._ours = deepcopy(REGISTERED(vars(app)))
        self._attributes = {*vars(app), "asgi_app"}

    def exist(self) -> bool:
        """Return whether there are any."""
        # Without loops in Python, as each request pays for it (0.35 µs).
        attributes = vars(self._app)
        return bool(
            REGISTERED(attributes) != self._ours
            or (len(attributes) != len(self._attributes) and self._override())
            or (any(RECEIVERS) and any(signal.has_receivers_for(self._app) for signal in SIGNALS))
        )

    def _override(self) -> bool:
        # Whether the app has got a method or a class of its own since, in place of Quart's.
        new = vars(self._app).keys() - self._attributes
        self._attributes |= new - REPLACEABLE
        return not new.isdisjoint(REPLACEABLE)
