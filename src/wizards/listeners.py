"""The sockets on which this process listens, and their connections, as the operating system knows them.

A server does not tell its application, so they are looked up among its open files (/dev/fd, which Linux
and macOS have).
"""

import os
import select
import socket
import stat
from collections.abc import Container, Iterator
from contextlib import suppress
from typing import NamedTuple


class Listener(NamedTuple):
    """A listening socket. `inode` tells it from a later one with the same number."""

    fd: int
    inode: int
    port: int | None

    def is_open(self) -> bool:
        """Whether the socket has not been closed since."""
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False

    def has_queue(self) -> bool:
        """Whether connections wait to be accepted."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(0))

    def refuse(self) -> None:
        """Cease to listen, for every process that has the socket: connections are refused from now on."""
        with socket.socket(fileno=os.dup(self.fd)) as same:
            same.shutdown(socket.SHUT_RDWR)


def listeners() -> Iterator[Listener]:
    """Yield every socket on which this process listens; `port` is None for one without."""
    for fd, inode, same in _sockets():
        if same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield Listener(fd, inode, _port(same))


def cut_off(ports: Container[int | None]) -> None:
    """End every connection that came in on one of the ports; whoever serves it finds its client gone."""
    for _, _, same in _sockets():
        if _port(same) in ports and not same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            with suppress(OSError):  # it has ended by itself
                same.shutdown(socket.SHUT_RDWR)


def _sockets() -> Iterator[tuple[int, int, socket.socket]]:
    # Each with its number, its inode, and a duplicate that lives until the next one.
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # names are all we want
        fd = int(name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            duplicate = socket.socket(fileno=os.dup(fd))
        except OSError:  # closed since, such as the one that listed the folder
            continue
        with duplicate:
            yield fd, status.st_ino, duplicate


def _port(of: socket.socket) -> int | None:
    address = of.getsockname()
    return address[1] if isinstance(address, tuple) else None
