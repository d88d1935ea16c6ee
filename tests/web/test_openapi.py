"""docs/openapi.yaml describes every answer of the service and no other."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import httpx
import pytest
import schemathesis
import yaml  # type: ignore[import-untyped]
from hypothesis import HealthCheck, settings
from jsonschema_rs import validator_for
from quart import Quart
from schemathesis.config import SchemathesisConfig

from support.clients import open_client
from support.events import parse_events
from support.http_lint import faults_of
from support.servers import ROOT, Server
from wizards import create_app
from wizards.config import DEFAULTS
from wizards.core.errors import RosterUnavailableError

FILE = ROOT / "docs" / "openapi.yaml"
DESCRIPTION: dict[str, Any] = yaml.safe_load(FILE.read_text())
METHODS = {"get", "head", "options"}
NOT_METHODS = {"description", "parameters", "x-other-methods"}

CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"deterministic": True},
        "checks": {
            # Conditions and ranges that cannot be met are valid input; they get 304, 412 and 416.
            "positive_data_acceptance": {"expected-statuses": ["2xx", 304, 403, 404, 412, 416]},
        },
    }
)
schema = schemathesis.openapi.from_path(FILE, config=CONFIG)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("openapi")) as server:
        yield server


@schema.parametrize()
@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_schemathesis(server: Server, case: schemathesis.Case[Any]) -> None:
    """Any request, described or not, gets a described answer (all of schemathesis's checks)."""
    case.call_and_validate(base_url=server.base_url)


# --- Every described answer is provoked, and every provoked answer is described. ---


class Case(NamedTuple):
    """A request and the status of its answer."""

    line: str
    status: int
    headers: Mapping[str, str] = {}

    def as_json(self) -> "Case":
        """Return the same request from a client that prefers JSON."""
        return self._replace(headers={**self.headers, "Accept": "application/json"})


BAD_HOST = {"Host": ".."}
APPEND = "/wizards?name=Luna"
FOUND = {"/": 200, "/wizards": 200, "/api/wizards": 200, "/static/a/b": 404}

EVERYWHERE = [
    Case(f"{method} {path}", status, headers)
    for path, found in FOUND.items()
    for method in ("GET", "HEAD", "OPTIONS")
    for status, headers in ((200 if method == "OPTIONS" else found, {}), (400, BAD_HOST))
]
ELSEWHERE = [
    Case("GET /nowhere", 404),
    Case("POST /wizards/", 404),
    Case("GET /api//wizards", 308),
    *[Case(f"{method} /static//x", 308) for method in ("GET", "HEAD", "OPTIONS")],
    Case("OPTIONS /static/a%0Ab", 404),
]
FIXED = [
    Case(f"{method} {path}", status, headers)
    for method in ("GET", "HEAD")
    for path in ("/", "/api/wizards")
    for status, headers in ((304, {"If-None-Match": "*"}), (412, {"If-Match": '"other"'}))
]
OTHER_METHODS = [
    Case(f"{method} {path}", 405)
    for path in FOUND
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW")
]
OF_THE_LIST = [
    Case(f"{method} {target}", status, headers)
    for method in ("GET", "HEAD")
    for target, status, headers in (
        ("/wizards", 200, {}),
        ("/wizards", 200, {"Accept-Encoding": "identity"}),
        (APPEND, 200, {}),
        ("/wizards", 304, {"If-None-Match": "*"}),
        ("/wizards", 412, {"If-Match": '"other"'}),
        ("/wizards?name=" + "x" * 256, 400, {}),
        (APPEND, 403, {"Sec-Fetch-Site": "cross-site"}),
        (APPEND, 403, {"Sec-Purpose": "prefetch"}),
    )
]
PARTS = [
    Case("GET /wizards", 206, {"Range": "bytes=0-9"}),
    Case(f"GET {APPEND}", 206, {"Range": "bytes=9-"}),
    Case("GET /wizards", 416, {"Range": "bytes=999999-"}),
]
FULL = [Case(f"{method} {APPEND}", 507) for method in ("GET", "HEAD")]
OUTAGE = [Case(f"{method} {path}", 503) for method in ("GET", "HEAD") for path in ("/wizards", APPEND)]
AS_JSON = [row.as_json() for row in (*OF_THE_LIST, *PARTS, *OTHER_METHODS) if row.line.startswith("GET")]
AS_JSON += [row.as_json() for row in OTHER_METHODS]
AS_JSON += [Case("OPTIONS /wizards", 400, BAD_HOST).as_json()]

Answer = tuple[str, str, str, str | None]


def resolve(part: Any) -> Any:
    """Follow the references of a part of the description."""
    found = part
    while "$ref" in found:
        keys = found["$ref"].removeprefix("#/").split("/")
        found = DESCRIPTION
        for key in keys:
            found = found[key]
    return found


def find_place(row: Case) -> tuple[str, str, str]:
    """Return the path, the method and the status that describe the answer to `row`."""
    method, target = row.line.lower().split()
    path = re.sub("^/static/.*", "/static/{filename}", target.partition("?")[0])
    if path not in DESCRIPTION["paths"]:
        return "x-other-paths", "", str(row.status)
    return path, method if method in METHODS else "x-other-methods", str(row.status)


def description_at(path: str, method: str, status: str) -> Any:
    if path == "x-other-paths":
        return resolve(DESCRIPTION[path][status])
    operation = DESCRIPTION["paths"][path][method]
    if method == "x-other-methods":
        assert status == "405"
        return resolve(operation)
    assert status in operation["responses"], f"{method} {path} has no {status}"
    return resolve(operation["responses"][status])


def all_described_answers() -> set[Answer]:
    """Return every described answer, with its media type if it has a body."""
    places = [("x-other-paths", "", status) for status in DESCRIPTION["x-other-paths"]]
    for path, item in DESCRIPTION["paths"].items():
        places.append((path, "x-other-methods", "405"))
        places += [(path, method, status) for method in METHODS for status in item[method]["responses"]]
    return {
        (*at, media_type)
        for at in places
        for media_type in description_at(*at).get("content", {None})
        if at[1] != "head" or media_type is None
    } | {(*at, None) for at in places if at[1] == "head"}


def check_headers(response: httpx.Response, description: Any) -> None:
    headers = {name.lower(): resolve(header) for name, header in description.get("headers", {}).items()}
    seen = dict(response.headers)
    seen.pop("content-type", None)  # check_answer compares it
    assert set(seen) <= set(headers)
    assert {name for name, header in headers.items() if header.get("required")} <= set(seen)
    for name, value in seen.items():
        whole = headers[name]["schema"].get("type") == "integer"
        validator_for(headers[name]["schema"]).validate(int(value) if whole else value)


def check_answer(row: Case, response: httpx.Response, sent: bytes) -> Answer:
    """Check an answer against its description and with httplint; return the place of the description."""
    assert response.status_code == row.status, row
    assert list(faults_of(response, sent)) == []
    at = find_place(row)
    description = description_at(*at)
    check_headers(response, description)
    if at[1] == "head" or "content" not in description:
        assert response.content == b""
        return *at, None
    media_type = response.headers["content-type"]
    is_json = media_type == "application/json" and row.status != 206
    body = resolve(description["content"][media_type]["schema"])
    validator_for(body).validate(response.json() if is_json else response.text)
    return *at, media_type


async def provoke(rows: list[Case], app: Quart) -> set[Answer]:
    """Send the requests to `app`, check the answers and return the places of their descriptions."""
    async with app.test_app(), open_client(app) as client:
        return {check_answer(row, *await ask(row, client)) for row in rows}


async def ask(row: Case, client: httpx.AsyncClient) -> tuple[httpx.Response, bytes]:
    """Return the response to a request, and its body as it was sent."""
    async with client.stream(*row.line.split(), headers=dict(row.headers)) as response:
        sent = b"".join([chunk async for chunk in response.aiter_raw()])
    decoded = httpx.Response(
        response.status_code, headers=response.headers, content=sent, request=response.request
    )
    return decoded, sent


def app_without_storage() -> Quart:
    app = create_app({"DATABASE_URL": "sqlite://"})

    async def fail(*_: object) -> NoReturn:
        raise RosterUnavailableError

    roster = app.extensions["wizards"].roster
    roster.read = roster.append = fail
    roster.current = lambda: None
    return app


async def test_answers_and_descriptions_match() -> None:
    """Every described answer can be provoked, and every provoked answer is described and passes httplint."""
    usual = [*EVERYWHERE, *ELSEWHERE, *FIXED, *OTHER_METHODS, *OF_THE_LIST, *PARTS, *AS_JSON]
    seen = await provoke(usual, create_app({"DATABASE_URL": "sqlite://"}))
    full = [*FULL, FULL[0].as_json()]
    seen |= await provoke(full, create_app({"DATABASE_URL": "sqlite://", "MAX_WIZARDS": 3}))
    seen |= await provoke([*OUTAGE, OUTAGE[0].as_json()], app_without_storage())
    assert seen == all_described_answers()


@pytest.mark.parametrize("method", ["get", "head"])
async def test_stream_is_described(method: str) -> None:
    """The stream that a follower gets has the described headers and events, and passes httplint."""
    app = create_app({"DATABASE_URL": "sqlite://"})
    wizards = app.extensions["wizards"]
    row = Case(f"{method.upper()} {APPEND}", 200, {"Accept": "text/event-stream"})
    async with app.test_app(), open_client(app) as client, asyncio.TaskGroup() as group:
        asking = group.create_task(ask(row, client))
        while not (wizards.feed._waiting or asking.done()):  # noqa: ASYNC110  # it has got what there is
            await asyncio.sleep(0)
        wizards.roster.refuses = True  # which ends the stream
        response, sent = await asking
    response.headers.pop("content-length", None)  # from `ask`; test_follow shows that there is none
    description = resolve(DESCRIPTION["paths"]["/wizards"][method]["x-event-stream"])
    assert (response.status_code, {response.headers["content-type"]}) == (200, {*description["content"]})
    assert list(faults_of(response, sent)) == []
    check_headers(response, description)
    assert len(parse_events(sent)) == (4 if method == "get" else 0)
    if method == "get":
        events = resolve(description["content"]["text/event-stream"]["schema"])
        for text in (sent.decode(), *events["examples"]):
            validator_for(events).validate(text)


def test_every_route_is_described() -> None:
    """The description has every route of the application with its methods."""
    routes = {
        re.sub("<path:(.*?)>", r"{\1}", rule.rule): {method.lower() for method in rule.methods or ()}
        for rule in create_app({"DATABASE_URL": "sqlite://"}).url_map.iter_rules()
    }
    paths = DESCRIPTION["paths"].items()
    assert routes == {path: set(item) - NOT_METHODS for path, item in paths}


def test_limits_are_described() -> None:
    """The described limits and version are the default settings and the version of the package."""
    components = DESCRIPTION["components"]
    assert components["parameters"]["name"]["schema"]["maxLength"] == DEFAULTS["MAX_NAME_LENGTH"]
    assert components["schemas"]["JSONList"]["maxItems"] == DEFAULTS["MAX_WIZARDS"]
    version = re.search('version = "(.*)"', (ROOT / "pyproject.toml").read_text())
    assert version is not None
    assert DESCRIPTION["info"]["version"] == version[1]
