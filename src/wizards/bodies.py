"""Request bodies, which no route wants: read to their end and thrown away before the request is answered.

Hypercorn hands a body on through a queue of ten messages. If nobody empties it, the connection's reader waits
for ever, and so does whoever would tell it that the answer is complete. To answer first and close is no way
out either: the client may still be sending, and lose the answer (RFC 9112, section 9.6).
"""

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

ANNOUNCING = frozenset({b"content-length", b"transfer-encoding"})


class DiscardBodies:
    """An ASGI application that gives `app` every request without its body."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request; one whose client leaves before its body is complete is not carried out."""
        if scope["type"] == "http" and _may_have_body(scope):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return
                if not message.get("more_body", False):
                    break
        await self._app(scope, receive, send)


def _may_have_body(scope: HTTPScope) -> bool:
    # HTTP/1 announces a body (RFC 9112, section 6.3), HTTP/2 need not.
    return scope["http_version"] not in ("1.0", "1.1") or not ANNOUNCING.isdisjoint(
        [name for name, _ in scope["headers"]]
    )
