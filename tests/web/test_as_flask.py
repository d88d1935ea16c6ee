"""Our app answers like the Flask tutorial's app, except for the differences listed here."""

import asyncio
import json
import logging
import string
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from urllib.parse import quote, unquote_to_bytes

import pytest
import waitress  # type: ignore[import-untyped]
import waitress.wasyncore  # type: ignore[import-untyped]
from flask import Flask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.flask_app import create_app as create_flask_app
from support.pages import GREETING, render_page
from support.raw_requests import COMPARED_HEADERS, HOST, Answer, Request, ask_asgi, ask_server, ask_wsgi
from support.servers import Server
from wizards import create_app
from wizards.storage.base import FIRST_WIZARDS

# --- The deliberate differences, the same as in the README's table. ---

# Our app escapes names. The oracle escapes them too, so that both pages and their lengths are equal.
ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})

EXTRA_HEADERS = {"cache-control", "content-security-policy", "etag", "vary", "x-content-type-options"}

# Not needed here, because no request below causes them: JSON, events, gzip, 304 and 206 on /wizards, and 503.


def refusal_status(request: Request, name: str, length: int, max_wizards: int) -> int | None:
    """Return the status if we refuse to append `name`, which Flask appended to a list of `length` names."""
    header = dict(request.headers).get
    is_navigation = header("Sec-Fetch-Mode") == "navigate" and header("Sec-Fetch-Dest") == "document"
    if header("Sec-Fetch-Site") == "cross-site" and not is_navigation:
        return 403
    if header("Sec-Purpose") == "prefetch":
        return 403
    if len(name) > 255 or "\0" in name:
        return 400
    return 507 if length >= max_wizards else None


def escape_invalid_utf8(request: Request) -> Request:
    """Escape bytes that are not UTF-8, as our app does; Flask answers 500 or loses them in a redirect."""
    return request._replace(target=request.target.decode(errors="werkzeug.url_quote").encode())


# --- The requests that both apps get. ---

METHODS = ["GET"] * 16 + ["HEAD"] * 4 + ["OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"]
METHODS += ["get", "Head", "post", "brew"]

ROUTES = [
    "/",
    "/wizards",
    "/wizards",
    "/api/wizards",
    "/api//wizards",
    "/api//wizards",
    "/static/",
    "/static/wizards.css",
]
ROUTES += ["/static/" + "a" * 5000]  # longer than a path may be on Linux
PATH_INSERTIONS = [
    "/",
    "//",
    "/.",
    "./",
    "/../",
    "..",
    "%2f",
    "%2F/",
    "%00",
    "%ff",
    "%zz",
    "%",
    ";",
    ":",
    "\\",
    "s",
]
PATH_INSERTIONS += ["%C3%A9", "%20", "+", "@", "=", "&", "#", "[", "http://h/"]

KEYS = ["name"] * 6 + ["", "Name", "NAME", "name[]", "n%61me", "%6eame", "+name", "name%00", "x", "%zz", "é"]
VALUES = [
    "",
    "Luna",
    "Luna+Lovegood",
    "Luna%20%2b",
    "a=b",
    "a;name=b",
    "%",
    "%f",
    "%zz",
    "%ff%C3%A9",
    "%C3%A9",
]
VALUES += ["%C3", "%ed%a0%80", "%00", "a%00b", "%26amp;%3Cb%3E%22%27", "<b>", "'\"", "%0d%0aSet-Cookie:a=b"]
VALUES += [escape * length for escape in ("a", "%C3%A9", "%F0%9F%A7%99") for length in (255, 256)]
VALUES += ["é", "🧙", "\udcff", "é\udce9"]  # raw UTF-8 and raw bytes that are not UTF-8

HOSTS = ["localhost", "EXAMPLE.org", "example.org:80", "example.org:443", "[::1]:8000", "a_b", "a.b.c:65535"]
BAD_HOSTS = ["", "a b", "a,b", "a/b", "a:b", "a:0", "a:99999", "[::1", "é", "user@host", "\x7f", "*"]
BAD_HOSTS += ["..", ".a", "a" * 64]  # invalid for IDNA: 400

CROSS_SITE = ("Sec-Fetch-Site", "cross-site")
OTHER_HEADERS: list[tuple[tuple[str, str], ...]] = [
    *[()] * 8,
    (("Accept", "text/html"), ("Accept-Encoding", "identity")),
    (("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),),
    (("Accept", "application/json;q=0.5, text/html"), ("Cookie", "session=x")),
    (("X-Forwarded-Host", "evil"), ("X-HTTP-Method-Override", "POST"), ("Origin", "https://evil")),
    (("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")),
    (CROSS_SITE,),
    (CROSS_SITE, ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")),
    (CROSS_SITE, ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")),
    (("Sec-Purpose", "prefetch"), ("Sec-Fetch-Site", "none")),
]

VISIBLE = st.text(st.sampled_from(string.ascii_letters + string.digits + string.punctuation), max_size=8)


NAMES = st.sampled_from(VALUES) | st.text(max_size=6).map(quote) | st.binary(max_size=4).map(quote)
PAIRS = st.builds("{}={}".format, st.sampled_from(KEYS), NAMES)
SEPARATORS = st.sampled_from(["&", "&", "&", ";", "&&"])
QUERIES = PAIRS | st.builds("{1}{0}{2}".format, SEPARATORS, PAIRS, PAIRS) | st.sampled_from(KEYS) | VISIBLE


# One request for every kind of answer, so that no kind depends on chance.
EVERY_KIND = [
    Request("GET", b"/api//wizards?a=<b>"),
    Request("GET", b"/wizards?name=Luna", (("Host", HOST), CROSS_SITE)),
    Request("GET", b"/wizards?name=" + b"a" * 256),
    Request("GET", b"/nowhere"),
    Request("POST", b"/wizards"),
    *[Request("GET", b"/wizards?name=<Luna>")] * 5,
    Request("GET", b"/wizards"),
    Request("GET", b"/wizards", (("Host", ".."),)),
]


@st.composite
def paths(draw: st.DrawFn) -> str:
    """Draw a route with at most three small changes."""
    path = draw(st.sampled_from(ROUTES))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(1, len(path)))
        before, letter, after = path[:at], path[at : at + 1], path[at + 1 :]
        escaped = "".join(f"%{ord(character):02x}" for character in letter)
        inserted = draw(st.sampled_from(PATH_INSERTIONS) | VISIBLE) + letter
        path = before + draw(st.sampled_from([inserted, escaped, letter.swapcase()])) + after
    return path.replace("?", "")


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Draw a request that a client, a proxy or an attacker may send."""
    target = draw(st.just("/wizards") | paths()) + draw(st.just("") | QUERIES.map("?{}".format))
    host = draw(st.sampled_from([*[HOST] * 8, *HOSTS, *BAD_HOSTS, None]))
    return Request(
        draw(st.sampled_from(METHODS)),
        target.encode("utf-8", "surrogateescape"),
        (() if host is None else (("Host", host),)) + draw(st.sampled_from(OTHER_HEADERS)),
    )


def repeat_with_other_headers(sequence: list[Request]) -> list[Request]:
    pairs = zip(sequence, reversed(sequence), strict=True)
    return sequence + [request._replace(headers=other.headers) for request, other in pairs]


def passes_both_servers(request: Request) -> bool:
    """Return whether both servers pass the request to their application unchanged."""
    path = unquote_to_bytes(request.target.partition(b"?")[0])
    host = dict(request.headers).get("Host")
    return (
        request.target.isascii()  # h11 answers 400 to others
        and not path.startswith(b"//")  # waitress merges leading slashes
        and b"#" not in request.target  # waitress removes a fragment
        and request.method.isupper()  # waitress answers 400 to others
        and host is not None  # HTTP/1.1 requires one: h11 answers 400
        and host.isascii()  # http.client sends only printable ASCII
        and host.isprintable()
    )


# --- The tests. ---


@pytest.fixture(autouse=True)
def _no_start_and_stop_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "wizards")  # there would be a thousand of them


def expect(
    flask: Flask, max_wizards: int, ask: Callable[[Request], Answer], request: Request
) -> Answer | int:
    """Return Flask's answer, or only the status of ours if Flask appended a name that we refuse."""
    wizards = flask.extensions["wizards"]
    length = len(wizards)
    answer = ask(escape_invalid_utf8(request))
    if len(wizards) > length:
        status = refusal_status(request, wizards[-1], length, max_wizards)
        if status is not None:
            wizards.pop()
            return status
    return answer


def assert_same(ours: Answer, expected: Answer | int) -> None:
    if isinstance(expected, int):
        assert ours.status == expected
    else:
        assert ours.compared == expected.compared
    assert set(ours.headers) <= {*COMPARED_HEADERS, *EXTRA_HEADERS}


def listed_names(answer: Answer) -> list[str]:
    return [wizard["name"] for wizard in json.loads(answer.body)]


THE_LIST = Request("GET", b"/wizards", (("Host", HOST), ("Accept", "application/json")))


async def compare_in_process(sequence: list[Request], seen: Counter[int]) -> None:
    max_wizards = 5  # low, so that many sequences reach it
    flask = create_flask_app(show=lambda name: name.translate(ESCAPES))
    ours = create_app({"DATABASE_URL": "sqlite://", "MAX_WIZARDS": max_wizards})
    async with ours.test_app():
        for request in sequence:
            expected = expect(flask, max_wizards, lambda request: ask_wsgi(flask, request), request)
            answer = await ask_asgi(ours, request)
            assert_same(answer, expected)
            seen[answer.status] += 1
        assert listed_names(await ask_asgi(ours, THE_LIST)) == flask.extensions["wizards"]


def test_same_in_process() -> None:
    """Both apps answer any sequence of requests alike and end with the same list."""
    seen: Counter[int] = Counter()

    # Each sequence is sent twice, the second time with its headers in reverse order, so that our read cache
    # can answer requests that were new in the first round.
    @settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(requests(), min_size=1, max_size=8).map(repeat_with_other_headers))
    @example(EVERY_KIND)
    def compare(sequence: list[Request]) -> None:
        asyncio.run(compare_in_process(sequence, seen))

    compare()
    assert set(seen) == {200, 308, 400, 403, 404, 405, 507}, seen  # every kind of answer was compared


@contextmanager
def serve_flask(flask: Flask) -> Iterator[int]:
    """Serve `flask` on waitress and yield the port."""
    channels: dict[int, object] = {}
    server = waitress.create_server(flask, map=channels, host="127.0.0.1", port=0, threads=1)
    thread = Thread(target=server.run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        # The server's own thread closes its channels and then ends, because no channel is left.
        server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(channels))
        thread.join()
        server.task_dispatcher.shutdown()


def test_same_through_real_servers(tmp_path: Path) -> None:
    """Flask on waitress and our app on Hypercorn answer alike over sockets, each with a single list."""
    seen: Counter[int] = Counter()
    flask = create_flask_app(show=lambda name: name.translate(ESCAPES))

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(requests().filter(passes_both_servers), min_size=4, max_size=8))
    @example(EVERY_KIND)
    def compare(sequence: list[Request]) -> None:
        for request in sequence:
            expected = expect(flask, 100_000, lambda request: ask_server(to_flask, request), request)
            answer = ask_server(to_ours, request)
            assert_same(answer, expected)
            seen[answer.status] += 1
        assert listed_names(ask_server(to_ours, THE_LIST)) == flask.extensions["wizards"]

    with (
        serve_flask(flask) as port,
        Server(tmp_path) as server,
        closing(HTTPConnection("127.0.0.1", port, timeout=30)) as to_flask,
        closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as to_ours,
    ):
        compare()
    assert set(seen) == {200, 308, 400, 403, 404, 405}, seen
    assert seen.total() >= 200


def error(title: str, text: str) -> str:
    name = title[4:]
    return f"<!doctype html>\n<html lang=en>\n<title>{title}</title>\n<h1>{name}</h1>\n<p>{text}</p>\n"


FIXED_ARRAY = (
    '[{"house":"Gryffindor","name":"Harry"},{"house":"Gryffindor","name":"Hermione"},'
    '{"house":"Gryffindor","name":"Ron"}]\n'
)
NOT_FOUND = error(
    "404 Not Found",
    "The requested URL was not found on the server."
    " If you entered the URL manually please check your spelling and try again.",
)
NOT_ALLOWED = error("405 Method Not Allowed", "The method is not allowed for the requested URL.")
MOVED_TO = f"http://{HOST}/api/wizards?a=%C3%A9"
MOVED = (
    "<!doctype html>\n<html lang=en>\n<title>Redirecting...</title>\n<h1>Redirecting...</h1>\n"
    "<p>You should be redirected automatically to the target URL: "
    f'<a href="{MOVED_TO}">{MOVED_TO}</a>. If not, click the link.\n'
)

HTML = {"content-type": "text/html; charset=utf-8"}
JSON = {"content-type": "application/json"}
ALLOW = {"allow": "GET, HEAD, OPTIONS"}

CONTRACT = [
    ("GET /", 200, HTML, GREETING),
    ("GET /?name=Luna", 200, HTML, GREETING),
    ("HEAD /", 200, HTML, GREETING),
    ("OPTIONS /", 200, HTML | ALLOW, ""),
    ("POST /", 405, HTML | ALLOW, NOT_ALLOWED),
    ("GET /wizards", 200, HTML, render_page(FIRST_WIZARDS)),
    ("GET /wizards?name=Luna", 200, HTML, render_page([*FIRST_WIZARDS, "Luna"])),
    ("HEAD /wizards?name=Luna", 200, HTML, render_page([*FIRST_WIZARDS, "Luna"])),
    ("get /wizards?name=Luna", 200, HTML, render_page([*FIRST_WIZARDS, "Luna"])),
    ("GET //wizards?name=Luna", 200, HTML, render_page([*FIRST_WIZARDS, "Luna"])),
    ("GET /%77izards?n%61me=L%75na", 200, HTML, render_page([*FIRST_WIZARDS, "Luna"])),
    ("GET /wizards?name=", 200, HTML, render_page(FIRST_WIZARDS)),
    ("GET /wizards?name", 200, HTML, render_page(FIRST_WIZARDS)),
    ("GET /wizards?Name=Luna&name[]=Luna", 200, HTML, render_page(FIRST_WIZARDS)),
    ("GET /wizards?name=Luna&name=Ginny", 200, HTML, render_page([*FIRST_WIZARDS, "Luna"])),
    ("GET /wizards?name=&name=Ginny", 200, HTML, render_page(FIRST_WIZARDS)),
    ("GET /wizards?name=Luna+L%2B;x=1", 200, HTML, render_page([*FIRST_WIZARDS, "Luna L+;x=1"])),
    ("GET /wizards?name=+", 200, HTML, render_page([*FIRST_WIZARDS, " "])),
    ("GET /wizards?name=%C3%A9%F0%9F%A7%99", 200, HTML, render_page([*FIRST_WIZARDS, "é🧙"])),
    ("GET /wizards?name=%zz%ff%", 200, HTML, render_page([*FIRST_WIZARDS, "%zz%FF%"])),
    ("OPTIONS /wizards?name=Luna", 200, HTML | ALLOW, ""),
    ("POST /wizards?name=Luna", 405, HTML | ALLOW, NOT_ALLOWED),
    ("BREW /wizards", 405, HTML | ALLOW, NOT_ALLOWED),
    ("GET /wizards/", 404, HTML, NOT_FOUND),
    ("GET /Wizards", 404, HTML, NOT_FOUND),
    ("GET /wizards/../wizards", 404, HTML, NOT_FOUND),
    ("GET /api/wizards", 200, JSON, FIXED_ARRAY),
    ("HEAD /api/wizards", 200, JSON, FIXED_ARRAY),
    ("DELETE /api/wizards", 405, HTML | ALLOW, NOT_ALLOWED),
    ("GET /api//wizards?a=%C3%A9", 308, HTML | {"location": MOVED_TO}, MOVED),
    ("GET /api", 404, HTML, NOT_FOUND),
    ("GET /static/wizards.css", 404, HTML, NOT_FOUND),
    ("GET /static/" + "a" * 5000, 404, HTML, NOT_FOUND),
    ("POST /static/wizards.css", 405, HTML | ALLOW, NOT_ALLOWED),
    ("PUT /nowhere", 404, HTML, NOT_FOUND),
]


@pytest.mark.parametrize(
    ("line", "status", "headers", "text"), CONTRACT, ids=[row[0][:40] for row in CONTRACT]
)
async def test_contract(line: str, status: int, headers: dict[str, str], text: str) -> None:
    """Both apps give the answers of the contract."""
    method, target = line.split()
    request = Request(method, target.encode())
    body = text.encode()
    promised = Answer(status, headers | {"content-length": str(len(body))}, b"" if method == "HEAD" else body)
    assert ask_wsgi(create_flask_app(), request).compared == promised.compared
    ours = create_app({"DATABASE_URL": "sqlite://"})
    async with ours.test_app():
        assert_same(await ask_asgi(ours, request), promised)


LIST_HEADERS = [("Accept", "application/json"), ("Accept-Encoding", "gzip"), ("Range", "bytes=0-1")]


@pytest.mark.parametrize("header", [*LIST_HEADERS, CROSS_SITE])
@pytest.mark.parametrize("target", [b"/", b"/api/wizards", b"/nowhere"])
async def test_our_additions_apply_to_the_list_only(target: bytes, header: tuple[str, str]) -> None:
    """Headers that our app supports and Flask ignores have an effect on /wizards only."""
    request = Request("GET", target, (("Host", HOST), header))
    ours = create_app({"DATABASE_URL": "sqlite://"})
    async with ours.test_app():
        assert_same(await ask_asgi(ours, request), ask_wsgi(create_flask_app(), request))
