"""The sockets on which this process listens, and their connections, as the operating system knows them.

A server does not tell its application, so they are looked up among its open files (/dev/fd, which Linux
and macOS have). A socket is named by the number of its file, where it is bound by its port or its path.
"""

import os
import select
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

Place = int | str | bytes


def listeners() -> set[int]:
    """Return every socket on which this process listens."""
    return {fd for fd, same in _sockets() if same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)}


def has_queue(listener: int) -> bool:
    """Whether connections wait to be accepted."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


def refuse(listener: int) -> None:
    """Cease to listen, for every process that has the socket: connections are refused from now on."""
    with socket.socket(fileno=os.dup(listener)) as same:
        same.shutdown(socket.SHUT_RDWR)


def bound_places() -> set[Place]:
    """Return where this process may listen: where its sockets are bound that have no peer."""
    return {_place(same) for _, same in _sockets() if not _has_peer(same)} - {0, ""}


def cut_off(places: set[Place]) -> None:
    """End every connection that came in at one of the places; whoever serves it finds its client gone."""
    for _, same in _sockets():
        if _place(same) in places and _has_peer(same):
            with suppress(OSError):  # it has ended by itself
                same.shutdown(socket.SHUT_RDWR)


def _sockets() -> Iterator[tuple[int, socket.socket]]:
    # Each with a duplicate that lives until the next one.
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # names are all we want
        fd = int(name)
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            duplicate = socket.socket(fileno=os.dup(fd))
        except OSError:  # closed since, such as the one that listed the folder
            continue
        with duplicate:
            yield fd, duplicate


def _place(of: socket.socket) -> Place:
    address: Any = of.getsockname()
    place: Place = address[1] if isinstance(address, tuple) else address
    return place


def _has_peer(of: socket.socket) -> bool:
    try:
        of.getpeername()
    except OSError:
        return False
    return True
