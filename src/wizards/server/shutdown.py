"""A stop that harms nobody, on top of what the server does.

Hypercorn, told to stop, at once closes its listening sockets and every connection that it thinks idle.
Requests that have arrived but are not read yet are dropped then, and one that is read in the same moment
is carried out although its connection is gone. So:

- SIGTERM first drains: nobody new is let in, whoever is connected is served and told to close (RFC 9112,
  section 9.6), and only when no request has come for a moment is the server told to stop.
- An append begins only while the server listens. So one that gets no answer was not carried out.
- Whoever is still connected a while after the server has ceased to listen is cut off. Hypercorn would wait
  for some of them, such as one that has not ended its request, for ever.
- Under a Hypercorn master (`--workers 1` or more) the server hears of a stop in another way. SIGTERM is what
  the master sends to the other workers when the first one has ended; they ignore it and finish by
  themselves. A worker whose master was killed drains and ends.

Hypercorn tells its application nothing of this, but has it in its worker's context: `terminate` to be told to
stop, `terminated` to tell that it has ceased to listen. Other servers stop as they like.

A listening socket that came with the process (`fd://N`, or from a master) may have other processes behind it:
it is left as it is, and who waits in its queue is theirs. Whoever hands one out with `fd://N` has to listen
on it first, as systemd does; one that is merely bound is taken for the server's own and closed for all.
"""

import asyncio
import logging
import multiprocessing
import signal
from functools import partial
from typing import Any

from hypercorn.asyncio import run
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Quart

from wizards.messages import close_after_response
from wizards.server.connections import abort_connections, close_idle_connections
from wizards.server.listeners import has_queue, listeners, refuse

logger = logging.getLogger(__name__)

# In seconds: for how long no request may have come before a drain is over, and how long it may take at
# most. The first is ample for what is on its way in a local network, the second short for who waits.
QUIET = 0.2
LONGEST = 3.0

# In seconds: how long after the server has ceased to listen whoever is connected may be: less than the
# graceful_timeout of hypercorn.toml, and more than an append may wait for its storage.
PARTING = 5.5


class Stop:
    """The stop of one application in one server process."""

    def __init__(self, app: Quart) -> None:
        self._app = app
        self._context = WorkerContext(None)  # Hypercorn's own, once there is one
        self._shared: set[int] = set()
        self._draining: asyncio.Task[None] | None = None
        self._parting: asyncio.Task[None] | None = None
        self._latest = 0.0  # until when a drain may take, by the event loop's clock
        self._requests = 0

    def prepare(self) -> None:
        """Look after the stop of the server that is about to listen, if it is Hypercorn."""
        run.WorkerContext = self._watch  # type: ignore[assignment,attr-defined]

    def finish(self) -> None:
        """Let one more signal do no harm, now that nothing is left to be done but to end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            if loop.remove_signal_handler(number):
                signal.signal(number, signal.SIG_IGN)

    def has_begun(self) -> bool:
        """Whether the server has ceased to listen; False where that cannot be told."""
        return self._context.terminated.is_set()

    def _watch(self, max_requests: int | None) -> WorkerContext:
        # Hypercorn makes a context when its sockets are bound, before it listens.
        self._context = WorkerContext(max_requests)
        self._shared = listeners()
        self._parting = asyncio.create_task(_part(self._context))
        loop = asyncio.get_running_loop()
        master = multiprocessing.parent_process()
        if master is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            loop.add_reader(master.sentinel, self._leave_master, master.sentinel)
        elif _server_has_one_handler():
            loop.add_signal_handler(signal.SIGTERM, self._stop)
        return self._context

    def _leave_master(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        logger.warning("The master is gone, so this worker ends.")
        self._stop()

    def _stop(self) -> None:
        if self._draining is None:
            self._latest = asyncio.get_running_loop().time() + LONGEST
            self._draining = asyncio.create_task(self._drain())
        else:  # told twice: no more patience
            self._latest = 0.0

    async def _drain(self) -> None:
        try:
            await self._serve_the_connected()
        finally:
            await self._context.terminate.set()

    async def _serve_the_connected(self) -> None:
        loop = asyncio.get_running_loop()
        self._app.asgi_app = partial(self._answer_and_close, self._app.asgi_app)  # type: ignore[method-assign]
        found = listeners()
        own = found - self._shared if multiprocessing.parent_process() is None else set()
        while loop.time() < self._latest and any(map(has_queue, own)):  # noqa: ASYNC110
            await asyncio.sleep(0)  # meanwhile the server accepts them
        for listener in found:
            loop.remove_reader(listener)
            if listener in own:
                refuse(listener)
        seen = -1
        while seen != self._requests and loop.time() < self._latest:
            seen = self._requests
            await asyncio.sleep(QUIET)

    async def _answer_and_close(
        self, app: Any, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        self._requests += 1
        persistent = scope["type"] == "http" and scope["http_version"] == "1.1"
        await app(scope, receive, close_after_response(send) if persistent else send)


async def _part(context: WorkerContext) -> None:
    await context.terminated.wait()
    close_idle_connections(context)
    await asyncio.sleep(PARTING)
    abort_connections(context)


def _server_has_one_handler() -> bool:
    # Else somebody else looks after the signals.
    handler = signal.getsignal(signal.SIGTERM)
    return callable(handler) and handler == signal.getsignal(signal.SIGINT)
