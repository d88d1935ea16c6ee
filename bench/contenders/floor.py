"""The floor: a bare ASGI callable that knows the bytes of every response beforehand.

The floor sends the same bytes as the service, headers included, so its cost is the server's own cost.
"""

from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any

from bench.names import first_names
from wizards.core.rendering import RenderedList as Page
from wizards.storage.base import READ_CHUNK as PORTION

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

SAFETY = [
    (b"cache-control", b"no-cache"),
    (
        b"content-security-policy",
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
]
VARY = (b"vary", b"Accept, Accept-Encoding")
HTML = (b"content-type", b"text/html; charset=utf-8")
JSON = (b"content-type", b"application/json")

HELLO = b"<p>Hello World from Flask!</p>"
GRYFFINDORS = b"[" + b",".join(
    b'{"house":"Gryffindor","name":"%s"}' % name for name in (b"Harry", b"Hermione", b"Ron")
)
GRYFFINDORS += b"]\n"


def answer(status: int, headers: Headers, body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two ASGI messages of a response."""
    return (
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    )


def whole(kind: tuple[bytes, bytes], body: bytes, *more: tuple[bytes, bytes]) -> Any:
    """Return the messages of a 200 with a Content-Length."""
    return answer(200, [kind, (b"content-length", b"%d" % len(body)), *more, *SAFETY], body)


def fixed(kind: tuple[bytes, bytes], body: bytes) -> Any:
    """Return the messages of a document that never changes."""
    return whole(kind, body, (b"etag", b'"%s"' % blake2b(body, digest_size=16).hexdigest().encode()))


page = Page()
names = first_names()
for start in range(0, len(names), PORTION):  # in the service's chunks, which the gzipped bytes depend on
    page.extend(names[start : start + PORTION])
document = page.snapshot.html
PLAIN, ZIPPED = (b"".join(text.slices(0, text.size)) for text in (document.plain, document.gzip))
ETAG = b'"%s"' % document.etag.encode()

ANSWERS = {"/": fixed(HTML, HELLO), "/api/wizards": fixed(JSON, GRYFFINDORS)}
LIST = whole(HTML, PLAIN, (b"etag", ETAG), VARY)
LIST_ZIPPED = whole(HTML, ZIPPED, (b"etag", b"W/" + ETAG), (b"content-encoding", b"gzip"), VARY)
LIST_UNCHANGED = answer(304, [(b"etag", ETAG), *SAFETY, VARY], b"")


def list_answer(headers: Headers) -> Any:
    """Return the messages of the requested representation of the list."""
    for header, value in headers:
        if header == b"accept-encoding" and value == b"gzip":
            return LIST_ZIPPED
        if header == b"if-none-match" and value == ETAG:
            return LIST_UNCHANGED
    return LIST


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    """Answer one request, or the server's lifespan."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    start, body = ANSWERS.get(scope["path"]) or list_answer(scope["headers"])
    await send(start)
    await send(body)
