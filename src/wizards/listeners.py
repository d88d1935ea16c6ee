"""The sockets on which this process listens, as the operating system knows them.

A server does not tell its application, so they are looked up among its open files (/dev/fd, which Linux
and macOS have). A socket is named by the number of its file.
"""

import os
import select
import socket
import stat
from collections.abc import Iterator


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
