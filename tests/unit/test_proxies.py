"""Proxies of the environment, in every shape that they are found in."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

import pytest

from router import proxies
from router.errors import ConfigError
from router.proxies import for_http, for_socket
from tests.support.edge import HOST

pytestmark = pytest.mark.anyio
REMOTE = "https://id.example.com/jwks"
PROXY = "http://proxy.example:3128"
HERE = (
    "http://127.0.0.1:8082",
    "https://localhost",
    "http://LOCALHOST.:8082",
    "http://router.localhost:8082",
    "http://[::1]:8082",
    "http://127.9.9.9",
    "http://0.0.0.0:8082",
    "http://[::]:8082",
    "http://[::ffff:127.0.0.1]:8082",
    "ws://127.0.0.1:8083/connect",
    "wss://[::1]/connect",
)
ODD = (
    "socks5://127.0.0.1:9",
    "socks://127.0.0.1:9",
    "socks4://x:1",
    "ftp://x",
    "http://",
    ":::",
    "http://x:99999",
    "[",
)


@pytest.mark.parametrize("url", HERE)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
def test_this_machine_is_reached_by_no_proxy(url: str, variable: str) -> None:
    """Whatever the variables hold, and whether or not NO_PROXY can be read."""
    for value in (PROXY, *ODD):
        for exceptions in ("", "localhost,127.0.0.1,::1,fd07:b51a:cc66:f0::/64", "[::1]", "%%%"):
            environ = {variable: value, "NO_PROXY": exceptions}
            assert for_http(url, environ) is for_socket(url, environ) is None


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        (REMOTE, {}, None),
        (REMOTE, {"HTTPS_PROXY": PROXY}, PROXY),
        (REMOTE, {"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, PROXY),
        (REMOTE, {"https_proxy": "", "HTTPS_PROXY": PROXY}, None),
        (REMOTE, {"HTTP_PROXY": PROXY}, None),
        (REMOTE, {"ALL_PROXY": PROXY}, PROXY),
        (REMOTE, {"HTTPS_PROXY": PROXY, "ALL_PROXY": "socks://x"}, PROXY),
        (REMOTE, {"HTTPS_PROXY": "proxy.example:3128"}, PROXY),
        ("http://a.example", {"HTTP_PROXY": PROXY}, PROXY),
        ("ws://a.example", {"HTTP_PROXY": PROXY}, PROXY),
        ("wss://a.example", {"HTTPS_PROXY": PROXY}, PROXY),
    ],
)
def test_another_machine_is_reached_as_the_environment_says(
    url: str, environ: dict[str, str], proxy: str | None
) -> None:
    assert for_http(url, environ) == for_socket(url, environ) == proxy


@pytest.mark.parametrize(
    ("exceptions", "url"),
    [
        ("*", REMOTE),
        ("id.example.com", REMOTE),
        ("example.com", REMOTE),
        (".example.com", REMOTE),
        ("*.example.com", REMOTE),
        ("ID.Example.COM", REMOTE),
        ("id.example.com:443", REMOTE),
        ("a.example, id.example.com", REMOTE),
        ("a.example id.example.com", REMOTE),
        ("10.0.0.0/8", "http://10.1.2.3"),
        ("10.1.2.3", "http://10.1.2.3:8082"),
        ("10.1.2.3:8082", "http://10.1.2.3:8082"),
        ("fd07:b51a:cc66:f0::/64", "http://[fd07:b51a:cc66:f0::1]"),
        ("[fd07:b51a:cc66:f0::]/64", "http://[fd07:b51a:cc66:f0::1]"),
        ("fd00::1", "http://[fd00::1]:8082"),
        ("[fd00::1]", "http://[fd00::1]:8082"),
        ("[fd00::1]:8082", "http://[fd00::1]:8082"),
        ("%%%,[,::::,10.0.0.0/99,a.example:x,id.example.com", REMOTE),
    ],
)
def test_exceptions(exceptions: str, url: str) -> None:
    assert for_http(url, {"ALL_PROXY": PROXY, "NO_PROXY": exceptions}) is None
    assert for_http(url, {"ALL_PROXY": PROXY, "no_proxy": exceptions}) is None


@pytest.mark.parametrize(
    "exceptions", ["", "other.example", "d.example.com", "id.example.com:8443", "::1", "10.0.0.0/8", "<local>", "."]
)
def test_exceptions_for_others(exceptions: str) -> None:
    assert for_http(REMOTE, {"HTTPS_PROXY": PROXY, "NO_PROXY": exceptions}) == PROXY


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "all_proxy"])
def test_what_is_no_proxy_says_which_variable(variable: str, value: str) -> None:
    if value.startswith("socks5") and find_spec("socksio") and find_spec("python_socks"):
        pytest.skip("SOCKS works here")
    for chosen in (for_http, for_socket):
        with pytest.raises(ConfigError) as caught:
            chosen(REMOTE, {variable: value})
        assert str(caught.value).startswith(f"{variable} is ")
        assert "NO_PROXY" in str(caught.value)


def test_a_password_is_not_told() -> None:
    with pytest.raises(ConfigError) as caught:
        for_http(REMOTE, {"ALL_PROXY": "socks9://me:hunter2@proxy.example"})
    assert "hunter2" not in str(caught.value)


async def test_requests_go_where_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client for both: to another machine through the proxy, to this one past it."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    for name in ("HTTP_PROXY", "http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "fd07:b51a:cc66:f0::/64")
    monkeypatch.setenv("HTTP_PROXY", f"http://{HOST}:{port}")
    async with server, proxies.client() as client:
        assert (await client.get("http://id.example.com/jwks")).status_code == 204
        assert (await client.get(f"http://{HOST}:{port}/here")).status_code == 204
    assert asked == [b"GET http://id.example.com/jwks HTTP/1.1\r\n", b"GET /here HTTP/1.1\r\n"]
