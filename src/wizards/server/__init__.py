"""Hypercorn: graceful shutdown, and patches for its bugs, behind one interface.

An application makes one `HypercornServer` and enters `attached` for the length of each lifespan. If Hypercorn
runs that lifespan, its classes are replaced while it lasts (see `patches`), and for this one server: each
server's state is in its `ServerContext`, and every other server in the process gets Hypercorn's own classes.
Under another ASGI server only Hypercorn's `WorkerContext` is replaced, which that server never calls.

If Hypercorn's command line started the process, the process's signals and log are set up as well (see
`worker_process`). The bugs, the patches and their tests are listed in docs/hypercorn.md.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wizards.server.context import ServerContext


class HypercornServer:
    """The Hypercorn server of an application, if it is one, or several of them.

    `log_format` ("text" or "json") is that of Hypercorn's log, if its command line started the process.
    `gauges` returns the figures that are sent to statsd, if Hypercorn is told to send its own.
    """

    def __init__(self, log_format: str = "text", gauges: Callable[[], Mapping[str, int]] = dict) -> None:
        self.log_format = log_format
        self.gauges = gauges
        self.contexts: set[ServerContext] = set()

    def is_shutting_down(self) -> bool:
        """Return whether a drain is over, so that streams end; False under another server."""
        return any(context.terminated.is_set() for context in self.contexts)

    def has_shut_down(self) -> bool:
        """Return whether every drain is over, so that no append begins; False under another server."""
        return bool(self.contexts) and all(context.terminated.is_set() for context in self.contexts)

    @contextmanager
    def attached(self, scope: Mapping[str, Any]) -> Iterator[None]:
        """Patch the server of this lifespan scope if it is Hypercorn, and clean up at the end."""
        if "state" not in scope:
            yield
            return
        from wizards.server import lifespans  # noqa: PLC0415  # which imports this module

        with lifespans.running(scope["state"], self):
            yield
