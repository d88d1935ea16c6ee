"""Request bodies, which no route of ours reads.

Hypercorn passes a request body on through a queue of ten messages. If the application leaves messages in
that queue, the connection's read loop blocks, and so does the task that would send the response. Responding
first and closing is no alternative: the client may still be sending, and loses the response (RFC 9112,
section 9.6). So a body is read to its end and discarded before the request is answered.
"""

import asyncio
from typing import Any

from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPDisconnectEvent,
    HTTPRequestEvent,
)


async def drain_body(receive: ASGIReceiveCallable) -> bool:
    """Discard a request body; return False if the client left before its end."""
    message: Any = {"more_body": True}
    while message.get("more_body", False):
        message = await receive()
    return bool(message["type"] == "http.request")


def without_body(receive: ASGIReceiveCallable) -> ASGIReceiveCallable:
    """Return the `receive` of a request whose body has been drained: an empty body, then the disconnect."""
    messages = iter([HTTPRequestEvent(type="http.request", body=b"", more_body=False)])

    async def receive_rest() -> ASGIReceiveEvent:
        return next(messages, None) or await receive()

    return receive_rest


async def never_receive() -> HTTPDisconnectEvent:
    """Never return: the `receive` of a request whose body has been drained.

    Quart abandons a request when the client disconnects, but a client that has only closed its sending side
    (`nc -N`) waits for the response.
    """
    event: HTTPDisconnectEvent = await asyncio.get_running_loop().create_future()
    return event


def close_after_response(send: ASGISendCallable) -> ASGISendCallable:
    """Return a `send` whose response is the last one of its HTTP/1.1 connection (RFC 9112, section 9.6)."""

    async def send_and_close(message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_and_close
