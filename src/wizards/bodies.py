"""Request bodies, which no route wants: read to their end and thrown away before the request is answered.

Hypercorn hands a body on through a queue of ten messages. If nobody empties it, the connection's reader waits
for ever, and so does whoever would tell it that the answer is complete. To answer first and close is no way
out either: the client may still be sending, and lose the answer (RFC 9112, section 9.6).

A request that announces its body in both ways may end elsewhere than a proxy thinks. It is answered, but
what follows on the connection is not believed to be one more request (section 6.1).
"""

from typing import Any

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from .connection import closing

ANNOUNCING = frozenset({b"content-length", b"transfer-encoding"})


class DiscardBodies:
    """An ASGI application that gives `app` every request without its body."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request; one whose client leaves before its body is complete is not carried out."""
        announced = _announced(scope) if scope["type"] == "http" else 0
        if announced and not await _is_complete(receive):
            return
        await self._app(scope, receive, closing(send) if announced > 1 else send)


def _announced(scope: HTTPScope) -> int:
    # In how many ways: HTTP/1 announces a body (RFC 9112, section 6.3), HTTP/2 need not.
    if scope["http_version"] not in ("1.0", "1.1"):
        return 1
    names = [name for name, _ in scope["headers"]]
    return 0 if ANNOUNCING.isdisjoint(names) else len(ANNOUNCING.intersection(names))


async def _is_complete(receive: ASGIReceiveCallable) -> bool:
    message: Any = {"more_body": True}
    while message.get("more_body", False):
        message = await receive()
    return bool(message["type"] == "http.request")
