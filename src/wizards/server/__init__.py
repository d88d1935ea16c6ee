"""Hypercorn: graceful shutdown, and patches for its bugs, behind one interface.

An application makes one `HypercornLink` and enters `attached` for the length of each lifespan. If Hypercorn
runs that lifespan, its classes are replaced while it lasts (see `patches`), and for this one server: each
server's state is in its `ServerContext`, and every other server in the process gets Hypercorn's own classes.
Under another ASGI server only Hypercorn's `WorkerContext` is replaced, which that server never calls.

If Hypercorn's command line started the process, the process's signals and log are set up as well (see
`worker_process`). The bugs, the patches and their tests are listed in docs/hypercorn.md.
"""

from wizards.server.lifespans import HypercornLink

__all__ = ["HypercornLink"]
