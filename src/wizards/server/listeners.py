"""The sockets on which this process listens, as the operating system knows them.

A server does not tell its application, so they are looked up among its open files (/dev/fd, which Linux
and macOS have). A socket is named by the number of its file.
"""

import os
import select
import socket


def listeners() -> set[int]:
    """Return every socket on which this process listens."""
    return {fd for name in os.listdir("/dev/fd") if _listens(fd := int(name))}  # noqa: PTH208  # names do


def has_queue(listener: int) -> bool:
    """Whether connections wait to be accepted."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))


def refuse(listener: int) -> None:
    """Cease to listen, for every process that has the socket: connections are refused from now on."""
    with socket.socket(fileno=os.dup(listener)) as same:
        same.shutdown(socket.SHUT_RDWR)


def _listens(fd: int) -> bool:
    try:
        same = socket.socket(fileno=fd)
    except OSError:  # no socket, or closed since, such as the one that listed the folder
        return False
    try:
        return bool(same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    finally:
        same.detach()  # not ours to close
