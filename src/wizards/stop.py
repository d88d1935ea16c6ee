"""A stop that harms nobody, on top of what the server does.

Hypercorn, told to stop, at once closes its listening sockets and every connection that it thinks idle.
Requests that have arrived but are not read yet are dropped then, and one that is read in the same moment
is carried out although its connection is gone. So:

- SIGTERM first drains: nobody new is let in, whoever is connected is served and told to close (RFC 9112,
  section 9.6), and only when no request has come for a moment is the server told to stop, by SIGINT.
- An append begins only while the server listens. One that gets no answer was not carried out.
- Whoever is still connected a while after the server has ceased to listen is cut off. Hypercorn would wait
  for some of them, such as one that has not ended its request, for ever.
- Under a Hypercorn master (`--workers 1` or more) the server hears of a stop in another way. SIGTERM is what
  the master sends to the other workers when the first one has ended; they ignore it and finish by
  themselves. A worker whose master was killed drains and ends.

A listening socket that came with the process (`fd://N`, or from a master) may have other processes behind it:
it is left as it is, and who waits in its queue is theirs. Whoever hands one out with `fd://N` has to listen
on it first, as systemd does; one that is merely bound is taken for the server's own and closed for all.
"""

import asyncio
import logging
import multiprocessing
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope, WWWScope
from quart import Quart

from .connection import closing
from .listeners import Listener, cut_off, listeners

logger = logging.getLogger(__name__)

# In seconds: for how long no request may have come before a drain is over, and how long it may take at
# most. The first is ample for what is on its way in a local network, the second short for who waits.
QUIET = 0.2
LONGEST = 3.0

# In seconds: how often one looks whether the server still listens, and how long after that whoever is
# connected may be. Together it is less than the graceful_timeout of hypercorn.toml, and more than an append
# may wait for its storage.
LOOK = 0.5
PARTING = 5.2


class Stop:
    """The stop of one application in one server process."""

    def __init__(self, app: Quart) -> None:
        self._app = app
        self._is_alone = multiprocessing.parent_process() is None
        self._shared: set[Listener] = set()
        self._by_port: dict[int, Listener | None] = {}
        self._drain: asyncio.Task[None] | None = None
        self._parting: asyncio.Task[None] | None = None
        self._requests = 0

    def prepare(self) -> None:
        """Look after the signals; to be called on the event loop, before the server listens."""
        loop = asyncio.get_running_loop()
        self._shared = set(listeners())
        master = multiprocessing.parent_process()
        if master is None and _server_has_one_handler():
            loop.add_signal_handler(signal.SIGTERM, self._drain_then, _stop_server)
        elif master is not None and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # Hypercorn's alone
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            loop.add_reader(master.sentinel, self._leave_master, master.sentinel)
        else:  # another server's workers: it stops them as it likes
            return
        self._parting = asyncio.create_task(_part())

    def has_begun(self, scope: WWWScope) -> bool:
        """Whether the server has ceased to listen where the request came; False where that cannot be told."""
        _, port = scope.get("server") or ("", None)
        if port is None:
            return False
        if port not in self._by_port:
            self._by_port[port] = next((found for found in listeners() if found.port == port), None)
        listener = self._by_port[port]
        if listener is None:  # closed before the first request, if this process listens at all
            return self._parting is not None
        return not listener.is_open()

    def _leave_master(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        logger.warning("The master is gone, so this worker ends.")
        self._drain_then(_die)

    def _drain_then(self, end: Callable[[], None]) -> None:
        if self._drain is not None:  # told twice: no more patience
            end()
            return
        self._drain = asyncio.create_task(self._serve_the_connected())
        self._drain.add_done_callback(lambda _: end())

    async def _serve_the_connected(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST
        self._app.asgi_app = partial(self._answer_and_close, self._app.asgi_app)  # type: ignore[method-assign]
        found = set(listeners())
        own = found - self._shared if self._is_alone else set()
        while loop.time() < latest and any(one.has_queue() for one in own):  # noqa: ASYNC110
            await asyncio.sleep(0)  # meanwhile the server accepts them
        for listener in found:
            loop.remove_reader(listener.fd)
            if listener in own:
                listener.refuse()
        seen = -1
        while seen != self._requests and loop.time() < latest:
            seen = self._requests
            await asyncio.sleep(QUIET)

    async def _answer_and_close(
        self, app: Any, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        self._requests += 1
        persistent = scope["type"] == "http" and scope["http_version"] == "1.1"
        await app(scope, receive, closing(send) if persistent else send)


async def _part() -> None:
    # A server does not tell its application that it ceases to listen, and a worker is not told by a signal.
    found = set(listeners())
    while not found or any(one.is_open() for one in found):
        await asyncio.sleep(LOOK)
        found = found or set(listeners())
    await asyncio.sleep(PARTING)
    cut_off({one.port for one in found} - {None})


def _die() -> None:
    # What the master would have done. No other way out of Hypercorn's worker is without tracebacks.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


def _stop_server() -> None:
    signal.raise_signal(signal.SIGINT)


def _server_has_one_handler() -> bool:
    # Only then does SIGINT do what SIGTERM would have done.
    handler = signal.getsignal(signal.SIGTERM)
    return callable(handler) and handler == signal.getsignal(signal.SIGINT)
