"""Which attributes of Hypercorn are replaced, and when: only while a server of ours runs, and only for it.

A patch is written for the source of one class or function, whose digest it names. If Hypercorn differs (a
newer version, another patch), that patch is left out, one line in the log says so, and the rest applies.
What each patch is for: docs/hypercorn.md.
"""

import hashlib
import inspect
import logging
import threading
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, NamedTuple

from wizards.server.context import ServerContext, ServerEvent

logger = logging.getLogger(__name__)

lock = threading.Lock()
_replaced: list[tuple[Any, str, Any, Any]] = []


class Patch(NamedTuple):
    """What to replace in Hypercorn and by what, and the digest of the source it was written for."""

    module: str
    name: str
    ours: str
    digest: str
    with_source_of: tuple[str, ...] = ()  # other names in the module that it relies on


# Applied for each lifespan, under any server. The other patches are applied when Hypercorn makes its context.
HOOK = Patch("asyncio.run", "WorkerContext", "lifespans.make_context", "f9d4125ec118", ("worker_serve",))

PATCHES = (
    Patch(
        "asyncio.run", "raise_shutdown", "lifespans.make_raise_shutdown", "f2355944a6d5", ("worker_serve",)
    ),
    Patch("asyncio.run", "TCPServer", "connections.Connection", "3bfa72b31950"),
    Patch(
        "protocol", "H11Protocol", "http1_short_cut.ShortCutProtocol", "8c439a4dfcf0", ("h11", "http_stream")
    ),
    Patch("protocol", "H2Protocol", "http2.HTTP2Protocol", "7257f8bafcca"),
    Patch("protocol.h2", "StreamBuffer", "http2.StreamBuffer", "bc347b7c7806"),
    Patch("protocol.h11", "HTTPStream", "streams.HTTPStream", "e0f656feb55a"),
    Patch("protocol.h11", "WSStream", "streams.WSStream", "67434c428a1a"),
    Patch("protocol.h2", "HTTPStream", "streams.HTTPStream", "e0f656feb55a"),
    Patch("protocol.h2", "WSStream", "streams.WSStream", "67434c428a1a"),
)

# These need aioquic, so they are applied for a server that has a QUIC socket.
QUIC_PATCHES = (
    Patch("asyncio.run", "UDPServer", "quic.UDPServer", "358d61d54078"),
    Patch("protocol.quic", "QuicProtocol", "quic.QUICProtocol", "6e4df3977582"),
    Patch("protocol.quic", "H3Protocol", "http3.HTTP3Protocol", "76c850ad58b0"),
    Patch("protocol.h3", "HTTPStream", "streams.HTTPStream", "e0f656feb55a"),
    Patch("protocol.h3", "WSStream", "streams.WSStream", "67434c428a1a"),
)


def digest(*objects: Any) -> str:
    """Return a digest of the sources of classes and functions. Raises OSError if there are none."""
    return hashlib.sha256("".join(map(inspect.getsource, objects)).encode()).hexdigest()[:12]


def apply(patches: Iterable[Patch]) -> None:
    """Apply the patches that are not applied yet; hold `lock` meanwhile."""
    applied = {(module.__name__, name) for module, name, _, _ in _replaced}
    for patch in patches:
        if (f"hypercorn.{patch.module}", patch.name) not in applied:
            replace(patch)


def replace(patch: Patch) -> bool:
    """Apply a patch if the attribute is what it was written for; otherwise say in the log that it is not."""
    try:
        module = import_module(f"hypercorn.{patch.module}")
        expected = getattr(module, patch.name)
        if digest(expected, *(getattr(module, name) for name in patch.with_source_of)) != patch.digest:
            raise LookupError("it has changed")  # noqa: TRY301
        file, _, name = patch.ours.partition(".")
        ours = getattr(import_module(f"wizards.server.{file}"), name)
    except (ImportError, AttributeError, LookupError, OSError, TypeError) as error:
        where = f"hypercorn.{patch.module}.{patch.name}"
        logger.warning(
            "Not patched, as this Hypercorn differs: %s (%s); see docs/hypercorn.md.", where, error
        )
        return False
    replacement = _only_ours(expected, ours) if isinstance(ours, type) else ours(expected)
    setattr(module, patch.name, replacement)
    _replaced.append((module, patch.name, expected, replacement))
    return True


def restore() -> None:
    """Give Hypercorn its own back; hold `lock` meanwhile."""
    for module, name, expected, replacement in _replaced:
        if getattr(module, name) is replacement:
            setattr(module, name, expected)
    _replaced.clear()


def _only_ours(expected: type, ours: type) -> Callable[..., Any]:
    def make(*args: Any, **options: Any) -> Any:
        is_ours = any(isinstance(arg, ServerContext) or arg is ServerEvent for arg in args)
        return (ours if is_ours else expected)(*args, **options)

    return make
