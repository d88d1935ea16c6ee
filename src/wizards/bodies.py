"""Request bodies, which no route wants: read to their end and thrown away before the request is answered.

Hypercorn hands a body on through a queue of ten messages. If nobody empties it, the connection's reader waits
for ever, and so does whoever would tell it that the answer is complete. To answer first and close is no way
out either: the client may still be sending, and lose the answer (RFC 9112, section 9.6).

A request that announces its body in both ways may end elsewhere than a proxy thinks. It is answered, but
what follows on the connection is not believed to be one more request (section 6.1).
"""

from collections.abc import Sequence
from typing import Any

from hypercorn.typing import ASGIReceiveCallable

ANNOUNCING = frozenset({b"content-length", b"transfer-encoding"})


def announced(http_version: str, headers: Sequence[bytes]) -> int:
    """Return in how many ways a request with these `headers` may announce a body.

    HTTP/1 announces one by header (RFC 9112, section 6.3), HTTP/2 need not.
    """
    if http_version not in ("1.1", "1.0"):
        return 1
    return 0 if ANNOUNCING.isdisjoint(headers) else len(ANNOUNCING.intersection(headers))


async def is_complete(receive: ASGIReceiveCallable) -> bool:
    """Read a body to its end; return False where its sender has left before that."""
    message: Any = {"more_body": True}
    while message.get("more_body", False):
        message = await receive()
    return bool(message["type"] == "http.request")
