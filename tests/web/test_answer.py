"""The shared list over HTTP: representations, encodings, conditions and ranges."""

import gzip
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient, Response

from support.clients import fresh_client
from support.pages import render_page
from wizards.storage.base import FIRST_WIZARDS

PAGE = render_page(FIRST_WIZARDS)
JSON = '[{"name":"Harry"},{"name":"Ron"},{"name":"Hermione"}]\n'


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    async with fresh_client() as client:
        del client.headers["Accept-Encoding"]
        yield client


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "text/html"),
        ("*/*", "text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", "text/html"),
        ("application/json, text/html", "text/html"),
        ("application/json;q=0.5, text/html", "text/html"),
        ("image/png", "text/html"),
        ("nonsense;;q=,", "text/html"),
        ("application/json", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html;q=0.1, application/json", "application/json"),
    ],
)
async def test_negotiates_type(client: AsyncClient, accept: str | None, media_type: str) -> None:
    """A client that prefers JSON to HTML gets JSON; every other client gets HTML."""
    del client.headers["Accept"]
    response = await client.get("/wizards", headers={"Accept": accept} if accept else {})
    assert response.headers["Content-Type"].split(";")[0] == media_type
    assert response.text == (JSON if media_type == "application/json" else PAGE)
    assert response.headers["Vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip;q=0", None),
        ("gzip;q=0.5, identity", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip"),
        ("*", "gzip"),
    ],
)
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_negotiates_encoding(
    client: AsyncClient, accepted: str | None, encoding: str | None, accept: str
) -> None:
    """A client that accepts gzip gets the gzipped list; every other client gets it plain."""
    headers = {"Accept": accept} | ({} if accepted is None else {"Accept-Encoding": accepted})
    async with client.stream("GET", "/wizards", headers=headers) as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert response.headers.get("Content-Encoding") == encoding
    assert int(response.headers["Content-Length"]) == len(raw)
    assert (gzip.decompress(raw) if encoding else raw).decode() == (PAGE if accept == "text/html" else JSON)
    assert response.headers["ETag"].startswith('W/"' if encoding else '"')


@pytest.mark.parametrize("headers", [{}, {"Accept-Encoding": "gzip"}, {"Accept": "application/json"}])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_unchanged_list_is_304(client: AsyncClient, method: str, headers: dict[str, str]) -> None:
    """A client with the current ETag gets a 304 until the list grows, and then the new list."""
    etag = (await client.get("/wizards", headers=headers)).headers["ETag"]
    for condition in (etag, etag.removeprefix("W/"), f"W/{etag.removeprefix('W/')}", f'"x", {etag}', "*"):
        same = await client.request(method, "/wizards", headers={**headers, "If-None-Match": condition})
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["ETag"] == etag
        assert {"Vary", "Cache-Control", "Content-Security-Policy"} <= set(map(str.title, same.headers))
    await client.get("/wizards", params={"name": "Luna"})
    grown = await client.request(method, "/wizards", headers={**headers, "If-None-Match": etag})
    assert grown.status_code == 200
    assert grown.headers["ETag"] != etag


async def test_304_has_no_encoding(client: AsyncClient) -> None:
    """A 304 has no Content-Encoding, because the client's copy may be plain."""
    etag = (await client.get("/wizards")).headers["ETag"]
    response = await client.get("/wizards", headers={"If-None-Match": etag, "Accept-Encoding": "gzip"})
    assert response.status_code == 304
    assert "Content-Encoding" not in response.headers


async def test_if_match(client: AsyncClient) -> None:
    """If-Match with `*` or the list's ETag succeeds; another ETag gets a 412."""
    etag = (await client.get("/wizards")).headers["ETag"]
    for value, status in (("*", 200), (etag, 200), ('"other"', 412)):
        assert (await client.get("/wizards", headers={"If-Match": value})).status_code == status
    both = {"If-Match": etag, "If-None-Match": etag}  # evaluated in this order: RFC 9110, 13.2.2
    assert (await client.get("/wizards", headers=both)).status_code == 304


async def test_types_have_their_own_etags(client: AsyncClient) -> None:
    """The ETag of the HTML page does not give a 304 for the JSON."""
    etag = (await client.get("/wizards")).headers["ETag"]
    response = await client.get("/wizards", headers={"Accept": "application/json", "If-None-Match": etag})
    assert response.status_code == 200


async def test_append_is_never_304(client: AsyncClient) -> None:
    """An append is answered with the whole list under any condition."""
    for condition in ("*", (await client.get("/wizards")).headers["ETag"]):
        for header in ("If-None-Match", "If-Match", "If-Range"):
            headers = (
                {header: condition, "Range": "bytes=0-3"} if header == "If-Range" else {header: condition}
            )
            response = await client.get("/wizards", params={"name": "Luna"}, headers=headers)
            assert response.status_code == 200
            assert response.text.endswith(render_page(["Luna"]))


def check_range(response: Response, expected: str, start: int, size: int) -> None:
    assert response.status_code == 206
    assert response.text == expected
    assert response.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{size}"
    assert response.headers["Content-Length"] == str(len(expected))
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize(
    ("byte_range", "start", "end"),
    [
        ("0-0", 0, 1),
        ("5-9", 5, 10),
        ("50-", 50, None),
        ("-7", -7, None),
        ("10-99999", 10, None),
        ("-99999", 0, None),
    ],
)
async def test_single_range(client: AsyncClient, byte_range: str, start: int, end: int | None) -> None:
    """A single range is answered with exactly those bytes, not gzipped even if the client accepts gzip."""
    headers = {"Range": f"bytes={byte_range}", "Accept-Encoding": "gzip"}
    response = await client.get("/wizards", headers=headers)
    check_range(response, PAGE[start:end], start % len(PAGE), len(PAGE))


async def test_range_of_new_bytes(client: AsyncClient) -> None:
    """A client that holds N bytes can request only the bytes after them, also with its own append."""
    held = len(PAGE)
    new = render_page(["Luna"])
    headers = {"Range": f"bytes={held}-"}
    nothing_new = await client.get("/wizards", headers=headers)
    assert nothing_new.status_code == 416
    assert nothing_new.headers["Content-Range"] == f"bytes */{held}"
    appended = await client.get("/wizards", params={"name": "Luna"}, headers=headers)
    check_range(appended, new, held, held + len(new))
    check_range(await client.get("/wizards", headers=headers), new, held, held + len(new))


@pytest.mark.parametrize("ignored", ["lines=0-3", "bytes=0-1,5-6", "bytes=9-3", "bytes=", "bytes=a-b", "x"])
async def test_other_ranges_are_ignored(client: AsyncClient, ignored: str) -> None:
    """Unknown units, several ranges and malformed ranges get the whole list (RFC 9110, 14.2)."""
    response = await client.get("/wizards", headers={"Range": ignored})
    assert (response.status_code, response.text) == (200, PAGE)


async def test_head_ignores_range(client: AsyncClient) -> None:
    """HEAD with a range returns the length of the whole list (RFC 9110, 14.2)."""
    response = await client.head("/wizards", headers={"Range": "bytes=0-3"})
    assert (response.status_code, response.headers["Content-Length"]) == (200, str(len(PAGE)))


async def test_append_ignores_range_after_the_end(client: AsyncClient) -> None:
    """An append whose range starts after the end gets the whole list, not an error."""
    response = await client.get("/wizards", params={"name": "Luna"}, headers={"Range": "bytes=9999-"})
    assert response.status_code == 200
    assert "Hello Luna" in response.text


async def test_if_range(client: AsyncClient) -> None:
    """A client whose strong ETag is current gets the range; every other client gets the whole list."""
    etag = (await client.get("/wizards")).headers["ETag"]
    current = await client.get("/wizards", headers={"Range": "bytes=0-3", "If-Range": etag})
    check_range(current, PAGE[:4], 0, len(PAGE))
    for other in ('"other"', f"W/{etag}"):
        whole = await client.get("/wizards", headers={"Range": "bytes=0-3", "If-Range": other})
        assert (whole.status_code, whole.text) == (200, PAGE)


async def test_condition_precedes_range(client: AsyncClient) -> None:
    """A client whose copy is current gets a 304 even if it requests a range (RFC 9110, 13.2.2)."""
    etag = (await client.get("/wizards")).headers["ETag"]
    response = await client.get("/wizards", headers={"Range": "bytes=0-3", "If-None-Match": etag})
    assert response.status_code == 304


async def test_appends_and_errors_in_json(client: AsyncClient) -> None:
    """A client that prefers JSON gets it for an append and for an error of the list."""
    client.headers["Accept"] = "application/json"
    appended = await client.get("/wizards", params={"name": 'Luna "L"'})
    assert appended.json()[-1] == {"name": 'Luna "L"'}
    for refused, status in (
        (await client.get("/wizards", params={"name": "x" * 256}), 400),
        (await client.post("/wizards"), 405),
        (await client.get("/wizards", headers={"Range": "bytes=9999-"}), 416),
    ):
        assert refused.status_code == status
        assert refused.headers["Content-Type"] == "application/json"
        assert list(refused.json()) == ["error"]
    assert (await client.get("/nowhere")).headers["Content-Type"] == "text/html; charset=utf-8"
