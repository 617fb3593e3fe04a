"""What ``online.url`` and ``online.mode`` say: where the servers are, and how to talk to them."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from msgspec import Struct
from redis.asyncio.connection import SSLConnection, parse_url

from router.errors import ConfigError

_SENTINEL_USER = ("sentinel_username", "sentinel_password")
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}


class Address(Struct, frozen=True):
    """A parsed ``online.url``."""

    hosts: list[tuple[str, int]]
    """Servers, nodes of a cluster to begin with, or sentinels."""
    options: dict[str, Any]
    """What redis-py takes for each connection: user, password, database, TLS."""
    sentinel_options: dict[str, Any]
    """The same for a connection to a sentinel."""


def parse(url: str, mode: str) -> Address:
    """The address in ``url``: ``redis[s]://[user:password@]host[:port][,host[:port]…][/database][?option=…]``.

    The options are those of redis-py's connections, such as ``ssl_ca_certs``, and ``sentinel_username`` and
    ``sentinel_password``. Raises ``ConfigError``, whose message does not repeat the URL.
    """
    parts, sentinel = _without_sentinel_user(urlsplit(url))
    user, at, hosts = parts.netloc.rpartition("@")
    found = [_host(text, _PORTS[mode]) for text in hosts.split(",")]
    if mode == "single" and len(found) > 1:
        raise ConfigError('online.url names several hosts: set online.mode to "sentinel" or "cluster", or name one')
    try:
        options = dict(parse_url(urlunsplit(parts._replace(netloc=f"{user}{at}host"))))
    except ValueError as error:
        raise ConfigError(f"online.url has an option that is wrong: {error}") from error
    options.pop("host")
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    if mode == "cluster" and options.get("db"):
        raise ConfigError("online.url names a database, but a cluster has only one: leave out the path")
    tls = {key: value for key, value in options.items() if key.startswith("ssl")}
    return Address(found, options, {**tls, **sentinel})


def _without_sentinel_user(parts: SplitResult) -> tuple[SplitResult, dict[str, Any]]:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    sentinel = {key.removeprefix("sentinel_"): value for key, value in pairs if key in _SENTINEL_USER}
    return parts._replace(query=urlencode([pair for pair in pairs if pair[0] not in _SENTINEL_USER])), sentinel


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname or "", parts.port or port
    except ValueError as error:
        raise ConfigError(f"online.url has a host that is wrong: {error}") from error
    if not name:
        raise ConfigError("online.url names no host: write redis://host:port")
    return name, port
