"""The page of the admin port: what it says, to whom, and what a browser lets it do."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from router.core.readiness import FRESH_SECONDS
from router.web.operator_page import FILES
from tests.web.conftest import Web
from tests.web.test_ports import Thing

pytestmark = pytest.mark.anyio
ROUTES = ("/", "/page.css", "/page.js", "/status.json")


class Page(HTMLParser):
    """What a page loads, and what it has within itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._within = tag
        for name, value in attrs:
            if name in ("src", "href") and value and not value.startswith("data:"):
                self.links.append(urljoin("/", value))
            if name == "style" or name.startswith("on"):
                self.inline.append(name)
            if name == "id" and value:
                self.ids.append(value)

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)


async def test_it_loads_only_what_the_admin_port_serves(web: Web) -> None:
    page = Page((await web.admin.get("/")).text)
    assert page.inline == []
    assert {*page.links} >= {"/page.css", "/page.js"}
    for link in page.links:
        assert (await web.admin.get(link)).is_success, link
    script = (await web.admin.get("/page.js")).text
    for name in page.ids:
        assert f'part("{name}")' in script or name.endswith("-title"), name
    for word in ("innerHTML", "eval(", "http:", "https:", "localStorage", "cookie"):
        assert word not in script


@pytest.mark.parametrize("path", ROUTES)
async def test_a_browser_may_do_no_more_with_it(web: Web, path: str) -> None:
    answer = await web.admin.get(path, headers={"origin": "https://chat.example"})
    assert answer.status_code == 200
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    kinds = {name: kind for name, (_, kind) in FILES.items()} | {"/status.json": "application/json"}
    assert answer.headers["content-type"].split(";")[0] == kinds[path]


@pytest.mark.parametrize("path", ROUTES)
async def test_it_is_on_no_public_port(web: Web, path: str) -> None:
    answer = await web.http.get(path, headers=web.bearer("bob"))
    assert answer.status_code == 404
    assert (await web.admin.post(path)).status_code == 405


async def test_it_tells_what_the_metrics_tell_and_no_name(web: Web) -> None:
    letter = {"recipientId": "bob", "encryptedData": "c2VhbGVk"}
    assert (await web.http.post("/api/send", json=letter, headers=web.bearer("alice"))).status_code == 202
    told = await web.admin.get("/status.json")
    status = told.json()
    assert (status["ready"], status["draining"], status["failed"]) == (True, False, [])
    assert status["counts"]["accepted"] == 1
    for name in ("alice", "bob", "urn:"):
        assert name not in told.text


async def test_it_answers_also_while_the_service_is_not_ready(web: Web) -> None:
    thing = Thing(web)
    thing.works = False
    web.clock.advance(FRESH_SECONDS)
    told = await web.admin.get("/status.json")
    assert (told.status_code, told.json()["ready"]) == (200, False)
    assert told.json()["failed"] == [{"dependency": "thing", "kind": "embedded"}]
    web.readiness.draining = True
    assert (await web.admin.get("/status.json")).json()["draining"]
