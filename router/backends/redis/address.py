"""What ``online.url`` and ``online.mode`` say: where the servers are, and how to talk to them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct
from redis.asyncio.connection import parse_url

from router.config import redis_url
from router.config.redis_url import Mode
from router.errors import ConfigError

_SENTINEL_USER = ("sentinel_username", "sentinel_password")


class Address(Struct, frozen=True):
    """A parsed ``online.url``."""

    hosts: list[tuple[str, int]]
    """Servers, nodes of a cluster to begin with, or sentinels."""
    options: dict[str, Any]
    """What redis-py takes for each connection: user, password, database, TLS."""
    sentinel_options: dict[str, Any]
    """The same for a connection to a sentinel."""


def parse(url: str, mode: Mode) -> Address:
    """The address in ``url``, whose form is that of ``router.config.redis_url``.

    The options are those of redis-py's connections, such as ``ssl_ca_certs``, and ``sentinel_username`` and
    ``sentinel_password``. Raises ``ConfigError``, whose message does not repeat the URL.
    """
    try:
        found = redis_url.parse(url, mode)
    except ValueError as error:
        raise ConfigError(f"online.url {error}") from error
    pairs = parse_qsl(found.query, keep_blank_values=True)
    sentinel = {key.removeprefix("sentinel_"): value for key, value in pairs if key in _SENTINEL_USER}
    try:
        options = dict(parse_url(f"redis://?{urlencode([pair for pair in pairs if pair[0] not in _SENTINEL_USER])}"))
    except ValueError as error:
        raise ConfigError(f"online.url has an option that is wrong: {error}") from error
    said = {"username": found.user, "password": found.password, "db": found.database}
    options.update({key: value for key, value in said.items() if value})
    options["ssl"] = found.tls
    tls = {key: value for key, value in options.items() if key.startswith("ssl")}
    return Address(found.hosts, options, {**tls, **sentinel})
