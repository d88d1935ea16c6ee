"""Refused requests: bad names, a full list, cross-site appends. No refused request changes the list."""

from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient

from support.clients import fresh_client

SECURITY_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
}


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    async with fresh_client(MAX_WIZARDS=5, MAX_NAME_LENGTH=20) as client:
        yield client


async def count_names(client: AsyncClient) -> int:
    return len((await client.get("/wizards", headers={"Accept": "application/json"})).json())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 21, "The name has 21 characters; it may have 20 at most."),
        ("🧙" * 21, "The name has 21 characters; it may have 20 at most."),
        ("a\0b", "The name holds a NUL character; it may hold any other."),
    ],
)
async def test_refuses_name(client: AsyncClient, name: str, words: str) -> None:
    """A name that is too long or contains a NUL gets a 400 that says so."""
    response = await client.get("/wizards", params={"name": name})
    assert response.status_code == 400
    assert words in response.text
    assert await count_names(client) == 3


@pytest.mark.parametrize("name", ["x" * 20, "🧙" * 20, "\x01\u202e\r\n", " "])
async def test_accepts_name(client: AsyncClient, name: str) -> None:
    """The limit counts characters, not bytes, and a name may contain any character but NUL."""
    response = await client.get("/wizards", params={"name": name}, headers={"Accept": "application/json"})
    assert response.json()[-1] == {"name": name}


async def test_full_list(client: AsyncClient) -> None:
    """An append to a full list gets a 507 that says so, and reads still succeed."""
    for name in ("Luna", "Ginny"):
        assert (await client.get("/wizards", params={"name": name})).status_code == 200
    response = await client.get("/wizards", params={"name": "Cho"})
    assert response.status_code == 507
    assert "The list is full; the name was not added." in response.text
    assert await count_names(client) == 5


CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    "headers",
    [
        CROSS_SITE,
        CROSS_SITE | {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        CROSS_SITE | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        CROSS_SITE | {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "document"},
        CROSS_SITE | NAVIGATION | {"Sec-Purpose": "prefetch;prerender"},
        {"Sec-Purpose": "prefetch"},
    ],
)
async def test_refuses_append_without_user_action(client: AsyncClient, headers: dict[str, str]) -> None:
    """Requests that a foreign page or a browser's prefetch starts may read but not append."""
    response = await client.get("/wizards", params={"name": "Luna"}, headers=headers)
    assert response.status_code == 403
    assert await count_names(client) == 3
    assert (await client.get("/wizards", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, CROSS_SITE | NAVIGATION, {"Sec-Fetch-Site": "none"} | NAVIGATION]
    + [{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"} for site in ("same-origin", "same-site")],
)
async def test_accepts_append_by_user_action(client: AsyncClient, headers: dict[str, str]) -> None:
    """Links, typed addresses, the site's own scripts and clients other than browsers may append."""
    assert (await client.get("/wizards", params={"name": "Luna"}, headers=headers)).status_code == 200
    assert await count_names(client) == 4


HOSTS = ["a..b", ".a", "a.", "x" * 64, "a b", "a@b", "[::1", "a:99999", "a:b", "<b>", "", "a_b"]


@pytest.mark.parametrize("name", ["Luna", "%4cuna", "Luna&x"])
@pytest.mark.parametrize("host", HOSTS)
async def test_refused_host_appends_nothing(client: AsyncClient, host: str, name: str) -> None:
    """A request with any host either gets a 200 and appends, or gets a 400 and does not append."""
    response = await client.get(f"/wizards?name={name}", headers={"Host": host})
    assert response.status_code in (200, 400)
    assert await count_names(client) == 3 + (response.status_code == 200)


@pytest.mark.filterwarnings("ignore:Current server name")
async def test_unknown_host_or_path_appends_nothing() -> None:
    """A request for a host other than WIZARDS_SERVER_NAME or outside the root path appends nothing."""
    async with fresh_client(SERVER_NAME="good.example") as client:
        for host, status in (("bad.example", 404), ("good.example", 200)):
            response = await client.get("/wizards?name=Luna", headers={"Host": host})
            assert response.status_code == status
        assert response.text.count("Luna") == 1
    async with fresh_client(root_path="/app") as client:
        assert (await client.get("/wizards?name=Luna")).status_code == 404
        assert "Luna" not in (await client.get("/app/wizards")).text


@pytest.mark.parametrize(
    "target", ["/", "/wizards", "/api/wizards", "/nowhere", "/api//wizards", "/wizards?name=%00"]
)
async def test_every_answer_has_the_security_headers(client: AsyncClient, target: str) -> None:
    """Every answer has the security headers, also errors and redirects."""
    for method in ("GET", "OPTIONS", "POST"):
        response = await client.request(method, target)
        assert SECURITY_HEADERS.items() <= response.headers.items()
