"""HTTP clients that use the proxies of the environment for other machines, and none for this one.

All such clients are made here. httpx and websockets read the same variables by themselves, but raise unclear errors for
one that they cannot parse, even if no request uses it; and they would send a token for 127.0.0.1 to a proxy.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx
from msgspec import Struct

from router.config.combinations import is_loopback
from router.config.sources import masked_url
from router.errors import ConfigError

_SCHEMES = {"ws": "http", "wss": "https"}
_OWN_PORTS = {"http": 80, "https": 443}
_PLAIN = ("http", "https")
_SOCKS = ("socks5", "socks5h")


class Proxy(Struct, frozen=True):
    """A proxy, and the variable that names it."""

    url: str
    variable: str


def client(**options: Any) -> httpx.AsyncClient:
    """``httpx.AsyncClient`` with these ``options``. A request whose proxy cannot be used raises ``ConfigError``."""
    return httpx.AsyncClient(trust_env=False, transport=_ByUrl(), **options)


def for_http(url: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The proxy for a request to ``url``, if any; raises ``ConfigError`` if it cannot be used."""
    return _usable(url, environ, "socksio", "httpx[socks]")


def for_socket(url: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The proxy for a WebSocket to ``url``, if any; raises ``ConfigError`` if it cannot be used."""
    return _usable(url, environ, "python_socks", "python-socks[asyncio]")


def named(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy that ``environ`` names for ``url``, valid or not."""
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    if _is_here(parts.hostname or "") or _is_excepted(parts, scheme, _first(environ, "no_proxy")[1]):
        return None
    for name in (f"{scheme}_proxy", "all_proxy"):
        variable, value = _first(environ, name)
        if value:
            return Proxy(value if "://" in value else f"http://{value}", variable)
    return None


class _ByUrl(httpx.AsyncBaseTransport):
    """Sends each request directly or by a proxy, as its URL and the environment say."""

    def __init__(self) -> None:
        self._kept: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = for_http(str(request.url))
        if proxy not in self._kept:
            self._kept[proxy] = httpx.AsyncHTTPTransport(proxy=proxy)
        return await self._kept[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._kept.values():
            await transport.aclose()


def _usable(url: str, environ: Mapping[str, str], library: str, package: str) -> str | None:
    proxy = named(url, environ)
    if proxy is None:
        return None
    try:
        parts = urlsplit(proxy.url)
        able = bool(parts.hostname) and parts.port != 0 and parts.scheme in (*_PLAIN, *_SOCKS)
    except ValueError:
        able = False
    whose = f"{proxy.variable} is {masked_url(proxy.url)!r}"
    advice = f"unset it, or add {urlsplit(url).hostname} to NO_PROXY"
    if not able:
        raise ConfigError(f"{whose}, which is not a usable proxy; write http://host:port, {advice}")
    if parts.scheme in _SOCKS and find_spec(library) is None:
        raise ConfigError(f"{whose}, and SOCKS needs a library that is missing: pip install '{package}', {advice}")
    return proxy.url


def _first(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable ``name`` and its value. Lower case has precedence, as with curl; an empty value means no proxy."""
    variable = name if name in environ else name.upper()
    return variable, environ.get(variable, "").strip()


def _is_here(host: str) -> bool:
    """Whether ``host`` is this machine, which no proxy is used for (RFC 6761, section 6.3)."""
    host = host.removesuffix(".")
    if is_loopback(host) or host.endswith(".localhost"):
        return True
    address = _address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return address is not None and (address.is_unspecified or (mapped is not None and mapped.is_loopback))


def _is_excepted(url: SplitResult, scheme: str, exceptions: str) -> bool:
    """Whether ``exceptions``, the value of NO_PROXY, names the host; entries that cannot be parsed are ignored."""
    host = (url.hostname or "").removesuffix(".")
    port = url.port or _OWN_PORTS.get(scheme)
    return any(_names(entry, host, port) for entry in exceptions.lower().replace(",", " ").split())


def _names(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    entry, own_port = _without_port(entry.partition("://")[2] or entry)
    if own_port not in ("", str(port)):
        return False
    address, network = _address(host), _network(entry)
    if address is not None:
        return network is not None and address in network
    domain = entry.removeprefix("*").removeprefix(".").removesuffix(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _without_port(entry: str) -> tuple[str, str]:
    """Host and port of an entry; an IPv6 address may stand in brackets, or without them and without a port."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        # People also write [fd00::]/8.
        return (host + rest, "") if rest.startswith("/") else (host, rest.removeprefix(":"))
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
