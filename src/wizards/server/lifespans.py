"""The lifespans that run in this process, and the Hypercorn servers that run them.

Hypercorn tells an application nothing of its server. It makes a `state` for each lifespan, and a context for
each server, in the same function. So two functions that it calls there are replaced, and look at its local
variables: one finds the lifespan by its state and makes a `ServerContext`, the other drains the server.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hypercorn.asyncio.worker_context import WorkerContext

from wizards.server import logs, patches, worker_process
from wizards.server.context import ServerContext
from wizards.server.metrics import send_gauges
from wizards.server.shutdown import drain_then_raise


class HypercornLink:
    """The link of an application to the Hypercorn servers that run it: none, one or several.

    `log_format` ("text" or "json") is that of Hypercorn's log, if its command line started the process.
    `gauges` returns the figures that are sent to statsd, if Hypercorn is told to send its own.
    """

    def __init__(self, log_format: str = "text") -> None:
        self.log_format = log_format
        self.gauges: Callable[[], Mapping[str, int]] = dict
        self.contexts: set[ServerContext] = set()

    def must_end_streams(self) -> bool:
        """Return whether the drain of a server is over; False under another server than Hypercorn."""
        return any(context.terminated.is_set() for context in self.contexts)

    def must_refuse_appends(self) -> bool:
        """Return whether the drains of all servers are over; False under another server than Hypercorn."""
        return bool(self.contexts) and all(context.terminated.is_set() for context in self.contexts)

    @contextmanager
    def attached(self, scope: Mapping[str, Any]) -> Iterator[None]:
        """Patch the server of this lifespan scope if it is Hypercorn, and clean up at the end."""
        if "state" not in scope:
            yield
            return
        lifespan = RunningLifespan(scope["state"], self)
        with patches.lock:
            patches.apply([patches.HOOK])
            _running.append(lifespan)
        try:
            yield
        finally:
            with patches.lock:
                _running.remove(lifespan)
                if not _running:
                    patches.restore()
            if lifespan.context is not None:
                self._detach(lifespan.context)

    def _detach(self, context: ServerContext) -> None:
        self.contexts.discard(context)
        log = context.config.log
        if all(other.context is None or other.context.config.log is not log for other in _running):
            logs.release_access_log(log)
        if context.owns_process:
            worker_process.finish()


@dataclass(eq=False)
class RunningLifespan:
    """A lifespan of an application; `context` is that of its server, if the server is Hypercorn."""

    state: Mapping[str, Any]
    link: HypercornLink
    context: ServerContext | None = None


_running: list[RunningLifespan] = []


def make_context(expected: type[WorkerContext]) -> Callable[[int | None], WorkerContext]:
    """Return what makes a ServerContext for a server whose lifespan is known, and Hypercorn's for others."""

    def worker_context(max_requests: int | None) -> WorkerContext:
        # Hypercorn gives the state only to connections, later. The server is needed before the first of them.
        local = sys._getframe(1).f_locals  # noqa: SLF001  # of worker_serve, see the digest
        lifespans = [lifespan for lifespan in _running if lifespan.state is local["lifespan_state"]]
        if not lifespans:
            return expected(max_requests)
        context = ServerContext(max_requests, local["config"])
        for lifespan in lifespans:
            lifespan.context = context
            lifespan.link.contexts.add(context)
            context.tasks.add(asyncio.create_task(send_gauges(context, lifespan.link.gauges)))
        with patches.lock:
            patches.apply(patches.PATCHES)
            patches.apply(patches.QUIC_PATCHES if local["sockets"].quic_sockets else ())
        logs.protect_access_log(context.config.log)
        if worker_process.is_command_line():
            worker_process.take_over(context, lifespans[0].link.log_format)
        return context

    return worker_context


def make_raise_shutdown(expected: Callable[..., Any]) -> Callable[..., Any]:
    """Return what drains a server of ours before it raises, and Hypercorn's function for others."""

    def raise_shutdown(trigger: Callable[..., Any]) -> Any:
        local = dict(sys._getframe(1).f_locals)  # noqa: SLF001  # of worker_serve, see the digest
        context = local.get("context")
        if isinstance(context, ServerContext):
            if context.owns_process and trigger is local["shutdown_trigger"]:  # the sockets listen by now
                worker_process.notify_ready()
            return drain_then_raise(trigger, local)
        return expected(trigger)

    return raise_shutdown
