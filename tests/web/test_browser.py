"""A real browser shows names as text, follows the list, and pages of other sites cannot append."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from support.browser import LOG_OPTIONS, PageRecorder, open_chromium, serve_page, stop_and_list_requests
from support.pages import GRYFFINDORS, PARAGRAPH
from support.servers import Server
from wizards.storage.base import FIRST_WIZARDS

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page, Route

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one event loop for the browser

# As markup, each would run `ran = 1`, load something from another site or break the page.
# The last ones would swallow the rest of the page.
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

# Ways of a page to make its visitor's browser request an address without an action of the visitor.
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
    with Server(tmp_path, options=LOG_OPTIONS) as server:
        yield server


def greeting(name: str) -> str:
    """Return the text of a name's paragraph."""
    return PARAGRAPH.format(name).removeprefix("<p>").removesuffix("</p>")


async def append(page: Page, server: Server, names: list[str]) -> None:
    """Append with plain requests instead of navigating the page."""
    for name in names:
        response = await page.request.get(f"{server.base_url}/wizards", params={"name": name})
        assert response.status == 200


async def read_names(page: Page, server: Server) -> list[str]:
    """Return the shared list without navigating the page."""
    response = await page.request.get(f"{server.base_url}/wizards", headers={"Accept": "application/json"})
    return [wizard["name"] for wizard in await response.json()]


async def test_hostile_names_are_text(page: Page, server: Server) -> None:
    """A name that is markup is shown as text; it runs, loads and logs nothing."""
    await append(page, server, HOSTILE)
    recorder = PageRecorder(page.context)
    await page.goto(f"{server.base_url}/wizards")
    names = [*FIRST_WIZARDS, *HOSTILE]
    assert await page.locator("p").all_text_contents() == [greeting(name) for name in names]
    assert await page.evaluate(NODES) == ["HTML", "HEAD", "BODY", *["P", "#text"] * len(names)]
    assert await page.evaluate("typeof ran") == "undefined"
    assert [request.url for request in recorder.requests] == [f"{server.base_url}/wizards"]
    assert recorder.events == []
    assert [logged.target for logged in stop_and_list_requests(server)] == ["/wizards"]  # no favicon


async def test_policy_blocks_markup(page: Page, server: Server) -> None:
    """The page's Content Security Policy blocks scripts and loads even if names are unescaped."""
    url = f"{server.base_url}/wizards"

    async def unescape(route: Route) -> None:
        await route.fulfill(response=await route.fetch(), body="".join(map(greeting, HOSTILE)))

    await page.route(url, unescape)
    recorder = PageRecorder(page.context)
    await page.goto(url)
    assert await page.locator("script, img, svg, iframe, object, link, input, base").count() > 10
    assert await page.evaluate("typeof ran") == "undefined"
    assert {request.failure for request in recorder.requests[1:]} == {"csp"}
    assert all("Content Security Policy" in event for event in recorder.events)
    assert all(logged.target == "/wizards" for logged in stop_and_list_requests(server))


@pytest.mark.parametrize("host", ["evil.example", "localhost"])
async def test_other_sites_cannot_append(page: Page, server: Server, tmp_path: Path, host: str) -> None:
    """Requests that a page of another site makes by itself get a 403 and append nothing."""
    targets = {kind: f"/wizards?name={kind}" for kind in FORGERIES}
    forgeries = [html.format(server.base_url + targets[kind]) for kind, html in FORGERIES.items()]
    recorder = PageRecorder(page.context)
    with serve_page(tmp_path, "".join(forgeries)) as port:
        await page.goto(f"http://{host}:{port}/", wait_until="commit")
        await recorder.wait_until_ended({server.base_url + target for target in targets.values()})
    assert await read_names(page, server) == [*FIRST_WIZARDS]
    answers = {logged.target: (logged.status, logged.fetch_site) for logged in stop_and_list_requests(server)}
    assert answers == dict.fromkeys(targets.values(), ("403", "cross-site"))


@pytest.mark.parametrize("action", ["prefetch", "prerender"])
async def test_speculation_cannot_append(page: Page, server: Server, tmp_path: Path, action: str) -> None:
    """Prefetches and prerenders get a 403, although Sec-Fetch-Site is that of a typed address."""
    url = f"{server.base_url}/wizards?name=Luna"
    rules = {action: [{"urls": [url], "eagerness": "immediate"}]}
    recorder = PageRecorder(page.context)
    with serve_page(tmp_path, f"<script type=speculationrules>{json.dumps(rules)}</script>") as port:
        await page.goto(f"http://localhost:{port}/")
        await recorder.wait_until_ended({url})
    assert await read_names(page, server) == [*FIRST_WIZARDS]
    (logged,) = stop_and_list_requests(server)
    assert (logged.status, logged.fetch_site) == ("403", "none")
    assert logged.purpose.startswith("prefetch")


async def test_other_sites_cannot_frame_the_list(page: Page, server: Server, tmp_path: Path) -> None:
    """A page of another site cannot show the list in a frame."""
    url = f"{server.base_url}/wizards"
    recorder = PageRecorder(page.context)
    with serve_page(tmp_path, f'<iframe src="{url}"></iframe>') as port:
        await page.goto(f"http://evil.example:{port}/", wait_until="commit")
        await recorder.wait_until_ended({url})
    framed = [request.failure for request in recorder.requests if request.url == url]
    assert framed == ["net::ERR_BLOCKED_BY_RESPONSE"]


async def test_user_may_append_from_anywhere(page: Page, server: Server, tmp_path: Path) -> None:
    """A clicked link on another site appends, and so does a typed address."""
    url = f"{server.base_url}/wizards?name="
    with serve_page(tmp_path, f'<a href="{url}Luna">a link</a>') as port:
        await page.goto(f"http://evil.example:{port}/")
        await page.get_by_text("a link").click()
        await page.wait_for_url(f"{url}Luna")
    await page.goto(f"{url}Ginny")
    assert await page.locator("p").all_text_contents() == [
        greeting(name) for name in [*FIRST_WIZARDS, "Luna", "Ginny"]
    ]
    assert [(logged.status, logged.fetch_site) for logged in stop_and_list_requests(server)] == [
        ("200", "cross-site"),
        ("200", "none"),
    ]


async def test_reload_does_not_append_again(page: Page, server: Server) -> None:
    """Merlin, appended by address, is last in the list, and reloading the list does not append him again."""
    await page.goto(f"{server.base_url}/wizards?name=Merlin")
    line = page.locator("p").last
    assert await line.inner_text() == greeting("Merlin")
    await page.goto(f"{server.base_url}/wizards")
    await page.reload()
    assert await page.locator("p").all_inner_texts() == [
        greeting(name) for name in [*FIRST_WIZARDS, "Merlin"]
    ]


async def test_browser_cache_is_never_stale(page: Page, server: Server) -> None:
    """The browser's cache neither hides a new name nor swallows a repeated append."""
    await page.goto(f"{server.base_url}/wizards")
    await append(page, server, ["Luna"])
    await page.goto(f"{server.base_url}/wizards")
    assert await page.locator("p").all_inner_texts() == [greeting(name) for name in [*FIRST_WIZARDS, "Luna"]]
    for _ in range(2):
        await page.goto(f"{server.base_url}/wizards?name=Ginny")
    names = [*FIRST_WIZARDS, "Luna", "Ginny", "Ginny"]
    assert await page.locator("p").all_inner_texts() == [greeting(name) for name in names]


async def test_other_routes(page: Page, server: Server) -> None:
    """The greeting and the fixed JSON array are shown unchanged and log nothing."""
    recorder = PageRecorder(page.context)
    await page.goto(f"{server.base_url}/")
    assert await page.inner_text("body") == "Hello World from Flask!"
    await page.goto(f"{server.base_url}/api/wizards")
    assert json.loads(await page.inner_text("body")) == GRYFFINDORS
    assert recorder.events == []


COLLECT = """url => {
    window.got = [];
    window.source = new EventSource(url);
    source.onmessage = event => got.push([event.lastEventId, JSON.parse(event.data).name]);
}"""


async def test_follower_comes_back(page: Page, tmp_path: Path) -> None:
    """An EventSource reconnects after a stop and a kill of the server, and misses and doubles nothing."""
    await page.route("**/page", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    with Server(tmp_path, f"sqlite:///{tmp_path}/w.db") as server:
        await page.goto(f"{server.base_url}/page")
        await page.evaluate(COLLECT, "/wizards?name=Luna")
        await page.wait_for_function("got.length == 4")
        for name, end in (("Ginny", server.stop), ("Cho", server.kill)):
            await append(page, server, [name])
            await page.wait_for_function("name => got.at(-1)[1] == name", arg=name)
            end()
            server.start()
            await append(page, server, [f"after {name}"])
            await page.wait_for_function("name => got.at(-1)[1] == name", arg=f"after {name}")
        names = [*FIRST_WIZARDS, "Luna", "Ginny", "after Ginny", "Cho", "after Cho"]
        assert await page.evaluate("got") == [[str(at), name] for at, name in enumerate(names, 1)]
        await page.evaluate("source.close()")
