"""The lifespans that run in this process, and the Hypercorn servers that run them.

Hypercorn tells an application nothing of its server. It makes a `state` for each lifespan, and a context for
each server, in the same function. So two functions that it calls there are replaced, and look at its local
variables: one finds the lifespan by its state and makes a `ServerContext`, the other drains the server.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hypercorn.asyncio.worker_context import WorkerContext

from wizards.server import HypercornServer, logs, patches, worker_process
from wizards.server.context import ServerContext
from wizards.server.metrics import send_gauges
from wizards.server.shutdown import drain_then_raise


class RunningLifespan:
    """A lifespan of an application; `context` is that of its server, if the server is Hypercorn."""

    def __init__(self, state: Mapping[str, Any], server: HypercornServer) -> None:
        self.state = state
        self.server = server
        self.context: ServerContext | None = None


_running: list[RunningLifespan] = []


@contextmanager
def running(state: Mapping[str, Any], server: HypercornServer) -> Iterator[None]:
    """Patch the Hypercorn server whose lifespan has that `state`, and tell `server` its context."""
    lifespan = RunningLifespan(state, server)
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
            _detach(lifespan.context, server)


def _detach(context: ServerContext, server: HypercornServer) -> None:
    server.contexts.discard(context)
    log = context.config.log
    if all(other.context is None or other.context.config.log is not log for other in _running):
        logs.release_access_log(log)
    if context.owns_process:
        worker_process.finish()


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
            lifespan.server.contexts.add(context)
            context.tasks.add(asyncio.create_task(send_gauges(context, lifespan.server.gauges)))
        with patches.lock:
            patches.apply(patches.PATCHES)
            patches.apply(patches.QUIC_PATCHES if local["sockets"].quic_sockets else ())
        logs.protect_access_log(context.config.log)
        if worker_process.is_command_line():
            worker_process.take_over(context, lifespans[0].server.log_format)
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
