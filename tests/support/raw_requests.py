"""One request, sent unchanged to a WSGI application, an ASGI application or a server's port.

Clients and test clients normalize requests: httpx resolves dot segments, Werkzeug's client encodes a raw
query. Two frameworks differ on exactly the requests that are not normalized. So this module makes the environ
and the scope from the raw target, as waitress and Hypercorn do.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

import h11

HOST = "localhost:8000"
ADDRESS = ("127.0.0.1", 8000)

# The headers that two answers have to agree on, beside status, reason and body; their case is the server's.
COMPARED_HEADERS = ("content-type", "content-length", "location", "allow")

# Headers that a server adds to the answers of any application.
SERVER_HEADERS = frozenset({"connection", "date", "server"})


class Request(NamedTuple):
    """A request without a body. It has only the given headers, not even a Host of its own."""

    method: str
    target: bytes
    headers: tuple[tuple[str, str], ...] = (("Host", HOST),)


class Answer(NamedTuple):
    """An answer, with header names in lower case and without the server's own headers."""

    status: int
    headers: dict[str, str]
    body: bytes
    reason: str = ""  # only of servers, as ASGI has none

    @property
    def compared(self) -> tuple[int, str, dict[str, object], bytes]:
        """The parts that two answers have to agree on; the order of allowed methods is free."""
        headers: dict[str, object] = {name: self.headers.get(name) for name in COMPARED_HEADERS}
        if "allow" in self.headers:
            headers["allow"] = set(self.headers["allow"].split(", "))
        return self.status, self.reason, headers, self.body


def ask_wsgi(app: Callable[..., Iterable[bytes]], request: Request) -> Answer:
    """Call a WSGI application by PEP 3333: bytes as Latin-1, the path unquoted."""
    path, _, query = request.target.partition(b"?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": ADDRESS[0],
        "SERVER_PORT": str(ADDRESS[1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
    }
    environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers}
    started: list[tuple[int, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> None:
        started.append((int(status[:3]), headers))

    chunks: Any = app(environ, start_response)
    with closing(chunks):
        body = b"".join(chunks)
    return _answer(request, *started[-1], body)


async def ask_asgi(app: Callable[..., Awaitable[None]], request: Request) -> Answer:
    """Call an ASGI application.

    Raises what the application raises, and LocalProtocolError for an answer that h11 would not send.
    """
    path, _, query = request.target.partition(b"?")
    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers],
        "client": ("127.0.0.1", 50000),
        "server": ADDRESS,
        "state": {},
        "extensions": {},
    }
    requests = [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return requests.pop() if requests else await asyncio.Future()  # the client stays connected

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *bodies = sent
    assert [message.get("more_body", False) for message in bodies] == [True] * (len(bodies) - 1) + [False]
    response = h11.Response(status_code=start["status"], headers=start["headers"])
    headers = [(name.decode(), value.decode("latin-1")) for name, value in response.headers]
    return _answer(request, start["status"], headers, b"".join(message["body"] for message in bodies))


def ask_server(connection: HTTPConnection, request: Request) -> Answer:
    """Send the request to a server through http.client, which leaves the target unchanged."""
    connection.putrequest(
        request.method, request.target.decode("ascii"), skip_host=True, skip_accept_encoding=True
    )
    for name, value in request.headers:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    answer = _answer(request, response.status, response.getheaders(), response.read())
    return answer._replace(reason=response.reason)


def _answer(request: Request, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
    merged: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        if key not in SERVER_HEADERS:
            merged[key] = f"{merged[key]}, {value}" if key in merged else value
    # A server drops the body of these answers. The length of any other answer has to be true.
    bodiless = request.method == "HEAD" or status in {204, 304}
    assert bodiless or int(merged.get("content-length", len(body))) == len(body)
    return Answer(status, merged, b"" if bodiless else body)
