"""`server.allowed_origins`: what browsers and apps send, and what no page has for an origin."""

from __future__ import annotations

import json

import pytest

from router.config import InvalidConfig, load_with_origins
from router.config.origins import Origins, comparable, same_host

EXTENSION = "chrome-extension://abcdefghijklmnopabcdefghijklmnop"
APPS = (
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    EXTENSION,
    "moz-extension://b7c1a6a2-0000-4000-8000-000000000000",
    "app://obsidian.md",
    "file://",
)


def refusal(origin: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load_with_origins(None, {"ROUTER_SERVER__ALLOWED_ORIGINS": json.dumps([origin])})
    return str(caught.value)


@pytest.mark.parametrize(
    "origin",
    [
        *APPS,
        "https://a.example",
        "HTTPS://A.Example",
        "https://a.example:443",
        "https://a.example:8443",
        "http://[::1]:8080",
        "https://xn--bcher-kva.example",
        "http://my_host",
        "*",
    ],
)
def test_what_is_listed_is_allowed(origin: str) -> None:
    loaded = load_with_origins(None, {"ROUTER_SERVER__ALLOWED_ORIGINS": json.dumps([origin])})
    assert loaded.config.server.allowed_origins == [origin]
    assert loaded.warnings == []
    assert Origins([origin]).allow("https://a.example" if origin == "*" else origin)


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        ("https://a.example/", "write https://a.example"),
        ("capacitor://localhost/", "write capacitor://localhost"),
        ("https://a.example/chat", "write https://a.example"),
        ("https://a.example:8443?x", "write https://a.example:8443"),
        ("https://a.example#", "write https://a.example"),
        ("https://a.example:", "write https://a.example"),
        ("https://ann@a.example", "write https://a.example"),
        ("https://[::1]:443/", "write https://[::1]"),
        ("https://bücher.example", "write https://xn--bcher-kva.example"),
        ("https://straße.example", "write the host in ASCII, as browsers do (xn--…)"),
        ("https://*.example", "list each host"),
        ("*.example", "list each host"),
        ("https://a.example:99999", "for example https://example.com"),
        ("https://a.example:0", "for example https://example.com"),
        ("https://", "for example https://example.com"),
        ("capacitor://", "for example https://example.com"),
        ("a.example", "for example https://example.com"),
        ("wss://a.example", "write https://a.example"),
        ("NULL", "for example https://example.com"),
        ("", "for example https://example.com"),
    ],
)
def test_what_no_page_has_for_an_origin_is_refused(origin: str, hint: str) -> None:
    """It would be taken, and never match."""
    assert hint in refusal(origin)


def test_null_is_allowed_where_it_is_named_and_warned_of() -> None:
    """Any sandboxed frame has it, whatever page it is in."""
    loaded = load_with_origins(None, {"ROUTER_SERVER__ALLOWED_ORIGINS": "null"})
    (warning,) = loaded.warnings
    assert warning.key == "server.allowed_origins"
    assert "any page" in warning.message
    assert Origins(["null"]).allow("null")
    assert not Origins(list(APPS)).allow("null")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://a.example", "https://a.example:443"),
        ("http://a.example", "http://a.example:80"),
        ("https://a.example", "HTTPS://A.EXAMPLE"),
        ("https://a.example:8443", "https://a.example:08443"),
    ],
)
def test_two_spellings_of_one_origin(one: str, other: str) -> None:
    """React Native sends the port of the scheme."""
    assert comparable(one) == comparable(other)
    assert Origins([one]).allow(other)
    assert Origins([other]).allow(one)


@pytest.mark.parametrize(
    "other",
    [
        "http://a.example",
        "https://a.example:80",
        "https://a.example:8443",
        "https://a.example.evil.example",
        "https://evil.example",
        "https://a.example/",
        "null",
        "*",
        "",
        "https://a.example https://evil.example",
        "capacitor://a.example",
    ],
)
def test_another_origin_is_not_allowed(other: str) -> None:
    assert not Origins(["https://a.example"]).allow(other)


def test_who_may_send_credentials() -> None:
    """Whoever is named; not anybody, and not a page that has no origin."""
    origins = Origins(["*", "https://a.example", "null"])
    assert [origins.trust(origin) for origin in ("https://a.example:443", "https://b.example", "null")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("https://router.example", "router.example", True),
        ("https://router.example:443", "router.example", True),
        ("https://router.example", "router.example:443", True),
        ("https://Router.example", "router.Example", True),
        ("http://127.0.0.1:8082", "127.0.0.1:8082", True),
        ("http://[::1]:8082", "[::1]:8082", True),
        ("http://router.example", "router.example:80", True),
        ("https://router.example:8443", "router.example", False),
        ("https://router.example", "router.example:8443", False),
        ("https://evil.example", "router.example", False),
        ("capacitor://localhost", "localhost", False),
        ("null", "null", False),
        ("https://router.example", "", False),
        ("https://router.example", None, False),
    ],
)
def test_the_routers_own_origin(origin: str, host: str | None, same: bool) -> None:
    """What a page of the router's own host has; a proxy in front may leave out the port of the scheme, or add it."""
    assert same_host(origin, host) == same
