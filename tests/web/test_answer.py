"""The shared list over HTTP: representations, encodings, conditions and ranges."""

import gzip
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient, Response

from support.clients import fresh_client

PAGE = "".join(
    f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in ("Harry", "Ron", "Hermione")
)
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
    """JSON goes to those who prefer it to HTML, HTML to everybody else."""
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
    """The gzipped list goes to those who accept it, the plain one to everybody else."""
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
    """Whoever has the list gets a 304 with its ETag until it grows, then the new one."""
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
    """A 304 says nothing of an encoding: what the client holds may be the plain bytes."""
    etag = (await client.get("/wizards")).headers["ETag"]
    response = await client.get("/wizards", headers={"If-None-Match": etag, "Accept-Encoding": "gzip"})
    assert response.status_code == 304
    assert "Content-Encoding" not in response.headers


async def test_if_match(client: AsyncClient) -> None:
    """`*` matches, and so does the list's ETag; another one is answered 412."""
    etag = (await client.get("/wizards")).headers["ETag"]
    for value, status in (("*", 200), (etag, 200), ('"other"', 412)):
        assert (await client.get("/wizards", headers={"If-Match": value})).status_code == status
    both = {"If-Match": etag, "If-None-Match": etag}  # one after the other: RFC 9110, 13.2.2
    assert (await client.get("/wizards", headers=both)).status_code == 304


async def test_types_have_their_own_etags(client: AsyncClient) -> None:
    """A copy of the HTML is no reason to withhold the JSON."""
    etag = (await client.get("/wizards")).headers["ETag"]
    response = await client.get("/wizards", headers={"Accept": "application/json", "If-None-Match": etag})
    assert response.status_code == 200


async def test_append_is_never_304(client: AsyncClient) -> None:
    """The answer to an append is the list, whatever condition came with it."""
    for condition in ("*", (await client.get("/wizards")).headers["ETag"]):
        for header in ("If-None-Match", "If-Match", "If-Range"):
            headers = (
                {header: condition, "Range": "bytes=0-3"} if header == "If-Range" else {header: condition}
            )
            response = await client.get("/wizards", params={"name": "Luna"}, headers=headers)
            assert response.status_code == 200
            assert response.text.endswith("<p>Hello Luna is a wizard of system design with Flask!</p>")


def check_part(response: Response, expected: str, start: int, size: int) -> None:
    assert response.status_code == 206
    assert response.text == expected
    assert response.headers["Content-Range"] == f"bytes {start}-{start + len(expected) - 1}/{size}"
    assert response.headers["Content-Length"] == str(len(expected))
    assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("0-0", 0, 1),
        ("5-9", 5, 10),
        ("50-", 50, None),
        ("-7", -7, None),
        ("10-99999", 10, None),
        ("-99999", 0, None),
    ],
)
async def test_part(client: AsyncClient, wanted: str, start: int, end: int | None) -> None:
    """One range of bytes is answered with those bytes, unzipped even for those who accept gzip."""
    headers = {"Range": f"bytes={wanted}", "Accept-Encoding": "gzip"}
    response = await client.get("/wizards", headers=headers)
    check_part(response, PAGE[start:end], start % len(PAGE), len(PAGE))


async def test_only_what_is_new(client: AsyncClient) -> None:
    """A client that holds N bytes gets just the rest, also as the answer to its own append."""
    held = len(PAGE)
    new = "<p>Hello Luna is a wizard of system design with Flask!</p>"
    headers = {"Range": f"bytes={held}-"}
    nothing_new = await client.get("/wizards", headers=headers)
    assert nothing_new.status_code == 416
    assert nothing_new.headers["Content-Range"] == f"bytes */{held}"
    appended = await client.get("/wizards", params={"name": "Luna"}, headers=headers)
    check_part(appended, new, held, held + len(new))
    check_part(await client.get("/wizards", headers=headers), new, held, held + len(new))


@pytest.mark.parametrize("ignored", ["lines=0-3", "bytes=0-1,5-6", "bytes=9-3", "bytes=", "bytes=a-b", "x"])
async def test_other_ranges_are_ignored(client: AsyncClient, ignored: str) -> None:
    """Units we do not know, several ranges and broken ones get the whole list (RFC 9110, 14.2)."""
    response = await client.get("/wizards", headers={"Range": ignored})
    assert (response.status_code, response.text) == (200, PAGE)


async def test_range_is_for_get(client: AsyncClient) -> None:
    """HEAD says how large the whole list is, whatever range it names (RFC 9110, 14.2)."""
    response = await client.head("/wizards", headers={"Range": "bytes=0-3"})
    assert (response.status_code, response.headers["Content-Length"]) == (200, str(len(PAGE)))


async def test_append_ignores_range_behind_the_end(client: AsyncClient) -> None:
    """An append that was carried out is not answered with an error, wherever its range begins."""
    response = await client.get("/wizards", params={"name": "Luna"}, headers={"Range": "bytes=9999-"})
    assert response.status_code == 200
    assert "Hello Luna" in response.text


async def test_if_range(client: AsyncClient) -> None:
    """A part goes to those whose copy is current, by its strong ETag; the whole list to others."""
    etag = (await client.get("/wizards")).headers["ETag"]
    current = await client.get("/wizards", headers={"Range": "bytes=0-3", "If-Range": etag})
    check_part(current, PAGE[:4], 0, len(PAGE))
    for other in ('"other"', f"W/{etag}"):
        whole = await client.get("/wizards", headers={"Range": "bytes=0-3", "If-Range": other})
        assert (whole.status_code, whole.text) == (200, PAGE)


async def test_condition_goes_before_range(client: AsyncClient) -> None:
    """A client whose copy is current gets a 304 even if it asks for a part (RFC 9110, 13.2.2)."""
    etag = (await client.get("/wizards")).headers["ETag"]
    response = await client.get("/wizards", headers={"Range": "bytes=0-3", "If-None-Match": etag})
    assert response.status_code == 304


async def test_append_answers_json(client: AsyncClient) -> None:
    """Who prefers JSON gets it as the answer to an append, and as the words of an error."""
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
