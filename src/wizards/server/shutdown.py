"""Graceful shutdown, on top of Hypercorn's own, for each trigger of a stop.

Told to stop, Hypercorn at once closes its listening sockets and every idle connection. Requests that have
arrived but are not read yet are dropped then. So the server first drains, inside the function in which
Hypercorn waits to be told:

1. Connections in the listening sockets' queues are accepted, then the sockets are shut down.
2. Connected clients are served and told to close (RFC 9112, section 9.6), until no handshake is under way and
   no request has come for DRAIN_IDLE_SECONDS, at most for DRAIN_TIMEOUT.
3. Hypercorn ends: `terminated` is set, from which moment no append begins. Idle connections are closed,
   requests under way are answered.
4. Connections still open ABORT_TIMEOUT seconds later are aborted. On Python 3.12 and later, Hypercorn would
   wait for some of them indefinitely, such as one that never ends its request.

A socket from `fd://N` may be shared with other processes: the server closes the socket without a shutdown,
and leaves queued connections to those processes. The workers of one master share a socket, and all of them
are told to stop within 0.1 seconds. So a worker goes on accepting until they are, and then shuts the socket
down for all. A worker that stops alone, at `max_requests`, leaves the socket to the others.
"""

import asyncio
import multiprocessing
import select
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from hypercorn.utils import ShutdownError, check_multiprocess_shutdown_event

from wizards.server.context import ServerContext

# For how long no request may have come before a drain is over, and how long it may take at most. The first is
# ample for what is on its way in a local network, the second short for the person who waits.
DRAIN_IDLE_SECONDS = 0.2
DRAIN_TIMEOUT = 3.0


async def drain_then_raise(trigger: Callable[[], Any], local: Mapping[str, Any]) -> None:
    """Wait for `trigger`, drain the server, and raise ShutdownError.

    `local` holds the local variables of Hypercorn's `worker_serve`.
    """
    context: ServerContext = local["context"]
    try:
        await trigger()
        if context.is_draining:  # the other trigger came first, and ends this
            await asyncio.Event().wait()
        told = local["shutdown_trigger"]
        is_worker = isinstance(told, partial) and told.func is check_multiprocess_shutdown_event
        master = multiprocessing.parent_process()
        stops_alone = is_worker and trigger is not told and master is not None and master.is_alive()
        own = [] if stops_alone else _own_listeners(local)
        await drain(context, local["servers"], own, is_worker=is_worker)
        raise ShutdownError
    finally:
        await context.end_connections()


async def drain(
    context: ServerContext, servers: list[asyncio.Server], own: list[socket.socket], *, is_worker: bool
) -> None:
    """Stop listening, and serve the connected clients. A cancellation undoes nothing."""
    loop = asyncio.get_running_loop()
    latest = loop.time() + DRAIN_TIMEOUT
    context.is_draining = True
    if is_worker:
        await _until_all_workers_are_told(own)
    while loop.time() < latest and any(map(_has_pending_connections, own)):  # noqa: ASYNC110
        await asyncio.sleep(0)  # meanwhile the server accepts them
    _stop_listening(servers, own)
    arrivals = -1
    while (arrivals != context.arrivals or _shaking_hands(context, servers)) and loop.time() < latest:
        arrivals = context.arrivals
        await asyncio.sleep(DRAIN_IDLE_SECONDS)
        for server in servers:  # uvloop has no readers, and accepts until then
            server.close()


def _shaking_hands(context: ServerContext, servers: list[asyncio.Server]) -> bool:
    # Whether TLS clients are still on their way to a connection. asyncio has no public way to tell: up to
    # Python 3.12 it counts its transports, later it keeps them.
    transports = sum(
        getattr(server, "_active_count", 0) + len(getattr(server, "_clients", ())) for server in servers
    )
    connections = sum(not isinstance(one, asyncio.DatagramProtocol) for one in context.connections)
    return transports > connections


def _own_listeners(local: Mapping[str, Any]) -> list[socket.socket]:
    config, sockets = local["config"], local["sockets"]
    binds = [*config.bind, *config.insecure_bind]  # Hypercorn makes its sockets in this order
    listeners = [*sockets.secure_sockets, *sockets.insecure_sockets]
    return [
        listener for bind, listener in zip(binds, listeners, strict=False) if not bind.startswith("fd://")
    ]


async def _until_all_workers_are_told(shared: list[socket.socket]) -> None:
    # Unless one of them has shut a shared socket down already, which ends accepting for all.
    end = asyncio.get_running_loop().time() + DRAIN_IDLE_SECONDS
    while asyncio.get_running_loop().time() < end and all(map(_is_listening, shared)):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def _stop_listening(servers: list[asyncio.Server], own: list[socket.socket]) -> None:
    for server in servers:
        for listener in server.sockets:  # if it were closed now, connections just accepted would fail
            asyncio.get_running_loop().remove_reader(listener)
    for listener in own:
        with suppress(OSError):  # another worker has done so
            listener.shutdown(socket.SHUT_RDWR)


def _is_listening(listener: socket.socket) -> bool:
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _has_pending_connections(listener: socket.socket) -> bool:
    if not _is_listening(listener):  # once two workers have shut it down, Linux calls it readable
        return False
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))
