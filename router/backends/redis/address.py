"""The Redis servers that ``online.url`` and ``online.mode`` name, and the options of connections to them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from router.config import redis_url
from router.config.redis_url import Mode
from router.errors import ConfigError


class Address(Struct, frozen=True):
    """A parsed ``online.url``."""

    hosts: list[tuple[str, int]]
    """The server, the first nodes to ask of a cluster, or the sentinels."""
    options: dict[str, Any]
    """redis-py's options for each connection: user, password, database, TLS."""
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


def check_files(options: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` for a TLS file that cannot be used; redis-py would report it as a server that is down."""
    context = ssl.create_default_context()
    if authorities := options.get("ssl_ca_certs"):
        with _naming("ssl_ca_certs"):
            context.load_verify_locations(authorities)
    if certificate := options.get("ssl_certfile"):
        with _naming("ssl_certfile, or its ssl_keyfile,"):
            # Refuse a key that needs a password: OpenSSL would ask for it at the terminal, for each connection.
            context.load_cert_chain(certificate, options.get("ssl_keyfile"), password="")


@contextmanager
def _naming(option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"online.url: the file of {option} cannot be used: {reason or error}") from error


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value}
