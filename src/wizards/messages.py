"""Request bodies, which no route wants: read to their end and thrown away before the request is answered.

Hypercorn hands a body on through a queue of ten messages. If nobody empties it, the connection's reader waits
for ever, and so does whoever would tell it that the answer is complete. To answer first and close is no way
out either: the client may still be sending, and lose the answer (RFC 9112, section 9.6).

A request that announces its body in both ways may end elsewhere than a proxy thinks. It is answered, but
what follows on the connection is not believed to be one more request (section 6.1).

After its body the application is told nothing more of a request, not even that its client has left.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, HTTPDisconnectEvent

ANNOUNCING = frozenset({b"content-length", b"transfer-encoding"})


def may_follow(http_version: str, headers: Sequence[bytes]) -> bool:
    """Whether a request may have a body. HTTP/1 announces it in `headers` (RFC 9112, section 6.3)."""
    return http_version not in ("1.1", "1.0") or not ANNOUNCING.isdisjoint(headers)


def are_ambiguous(headers: Sequence[bytes]) -> bool:
    """Whether a request announces its body in both ways; `headers` has its names and values in turn."""
    return ANNOUNCING.issubset(headers[::2])


async def nothing_more() -> HTTPDisconnectEvent:
    """Receive nothing, ever: what the application is given once there is no body left to be read.

    Quart gives a request up when it hears that its client has left. But who has only ended its own side of
    the connection (`nc -N`) waits for the answer.
    """
    event: HTTPDisconnectEvent = await asyncio.get_running_loop().create_future()
    return event


async def is_complete(receive: ASGIReceiveCallable) -> bool:
    """Read a body to its end; return False where its sender has left before that."""
    message: Any = {"more_body": True}
    while message.get("more_body", False):
        message = await receive()
    return bool(message["type"] == "http.request")
