"""What ``online.url`` and ``online.mode`` say: where the servers are, and how to talk to them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from router.config import redis_url
from router.config.redis_url import Mode
from router.errors import ConfigError


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

    Raises ``ConfigError``, whose message does not repeat the URL.
    """
    try:
        found = redis_url.parse(url, mode)
    except ValueError as error:
        raise ConfigError(f"online.url {error}") from error
    tls = {"ssl": found.tls, **found.tls_options}
    options = {"username": found.user, "password": found.password, "db": found.database}
    asking = {"username": found.sentinel_user, "password": found.sentinel_password}
    return Address(found.hosts, {**tls, **_given(options)}, {**tls, **_given(asking)})


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value}
