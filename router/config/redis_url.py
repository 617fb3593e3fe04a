"""What an ``online.url`` of a Redis says. Knows no library of Redis: the rules and ``router doctor`` read it too."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Literal
from urllib.parse import unquote

from msgspec import Struct

Mode = Literal["single", "sentinel", "cluster"]
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_LOGIN = ("username", "password", "db")
_SENTINEL = ("sentinel_username", "sentinel_password")
_CHOICES = {"ssl_cert_reqs": ("required", "optional", "none"), "ssl_check_hostname": ("true", "false")}
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", *_CHOICES)
OPTIONS = (*_TLS, *_LOGIN, *_SENTINEL)
"""All that may follow the ``?``; a library's other options are the router's to set, or would change what it reads."""
_KEYS = {
    "socket_timeout": "online.timeout_seconds",
    "socket_connect_timeout": "online.timeout_seconds",
    "timeout": "online.timeout_seconds",
    "max_connections": "online.pool_size",
}
"""Options of the library that are keys of the router."""
_FORM = re.compile(r"(?P<scheme>rediss?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?(#.*)?")


class RedisUrl(Struct, frozen=True):
    """A parsed ``online.url``."""

    tls: bool
    hosts: list[tuple[str, int]]
    """Servers, nodes of a cluster to begin with, or sentinels."""
    user: str | None
    password: str | None
    database: int
    tls_options: Mapping[str, str | bool]
    """By their names in the URL, which are those of redis-py."""
    sentinel_user: str | None
    sentinel_password: str | None


def parse(text: str, mode: Mode) -> RedisUrl:
    """``redis[s]://[user:password@]host[:port][,host[:port]…][/database][?option=…]``, an IPv6 address in brackets.

    Raises ``ValueError``; its message goes on after the name of the key, and does not repeat the URL.
    """
    parts = _FORM.fullmatch(text.strip())
    if parts is None:
        raise ValueError("must be a redis:// or rediss:// URL, since online.kind is redis")
    user, at, hosts = parts["authority"].rpartition("@")
    if not at and "@" in text:
        # Before the host is looked at: it is a piece of the password then.
        raise ValueError(
            "has an unescaped /, ?, # or @ in the user, the password or an option: write %2F, %3F, %23 and %40"
        )
    found = [_host(host, _PORTS[mode]) for host in hosts.split(",")]
    if mode == "single" and len(found) > 1:
        raise ValueError('names several hosts: set online.mode to "sentinel" or "cluster", or name one')
    tls, options = parts["scheme"] == "rediss", _options(parts["query"] or "")
    name, _, password = user.partition(":")
    _add(options, "username", unquote(name))
    _add(options, "password", unquote(password))
    _add(options, "db", parts["path"].removeprefix("/"))
    _fit(options, mode, tls=tls)
    return RedisUrl(
        tls=tls,
        hosts=found,
        user=options.get("username"),
        password=options.get("password"),
        database=_database(options.get("db", "0")),
        tls_options={key: _typed(key, value) for key, value in options.items() if key in _TLS},
        sentinel_user=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
    )


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in OPTIONS:
            raise ValueError(_no_option(name))
        if not value:
            raise ValueError(f"has an option {name} without a value: write {name}=…, or remove it")
        _add(options, name, unquote(value))
    return options


def _add(options: dict[str, str], name: str, value: str) -> None:
    if value and name in options:
        raise ValueError(f"sets {name} twice: remove one")
    if value:
        options[name] = value


def _no_option(name: str) -> str:
    if name in _KEYS:
        return f"has an option {name}, which the router has as a key: set {_KEYS[name]} instead"
    called = f" {name}" if re.fullmatch(r"[a-z_]{1,40}", name) else ""
    guesses = difflib.get_close_matches(name, [*OPTIONS, *_KEYS], n=1)
    meant = f"did you mean {_KEYS.get(guesses[0], guesses[0])}? " if guesses else ""
    return f"has an option{called} that the router does not know; {meant}(there are {', '.join(OPTIONS)})"


def _fit(options: Mapping[str, str], mode: Mode, *, tls: bool) -> None:
    """Refuse what would do nothing, as an option of TLS without TLS."""
    for name in options:
        if name in _TLS and not tls:
            raise ValueError(f"has the option {name}, which needs TLS: write rediss://, or remove it")
        if name in _SENTINEL and mode != "sentinel":
            raise ValueError(f'has the option {name}: set online.mode to "sentinel", or remove it')
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("has the option ssl_keyfile without ssl_certfile: a key needs its certificate")
    if mode == "cluster" and _database(options.get("db", "0")):
        raise ValueError("names a database, but a cluster has only one: remove it")


def _typed(name: str, value: str) -> str | bool:
    choices = _CHOICES.get(name, (value,))
    if value not in choices:
        raise ValueError(f"has an invalid option {name}: write {' or '.join(choices)}")
    return value == "true" if name == "ssl_check_hostname" else value


def _host(text: str, port: int) -> tuple[str, int]:
    parts = re.fullmatch(r"(\[(?P<address>[^\[\]]*)\]|(?P<name>[^\[\]:\s]*))(:(?P<port>[^:]*))?", text)
    if parts is None:
        raise ValueError("has an invalid host: write host:port, or [address]:port for an IPv6 address")
    if parts["port"]:
        port = int(parts["port"]) if re.fullmatch(r"[0-9]{1,5}", parts["port"]) else 0
        if not 0 < port <= 65535:
            raise ValueError("has an invalid host: its port is not a number from 1 to 65535")
    if parts["address"] is not None:
        try:
            IPv6Address(parts["address"])
        except ValueError:
            raise ValueError("has an invalid host: the text in brackets is not an IPv6 address") from None
    name = parts["address"] or parts["name"]
    if not name:
        raise ValueError("has no host, or a stray comma: write redis://host:port")
    return name.lower(), port


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("has a database that is not a number: write for example redis://host:port/0")
    return int(text)
