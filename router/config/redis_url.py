"""What an ``online.url`` of a Redis says. Knows no library of Redis: the rules and ``router doctor`` read it too."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Literal
from urllib.parse import unquote

from msgspec import Struct

Mode = Literal["single", "sentinel", "cluster"]
_PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_FORM = re.compile(r"(?P<scheme>rediss?)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(\?(?P<query>[^#]*))?(#.*)?")


class RedisUrl(Struct, frozen=True):
    """A parsed ``online.url``."""

    tls: bool
    hosts: list[tuple[str, int]]
    """Servers, nodes of a cluster to begin with, or sentinels."""
    user: str | None
    password: str | None
    database: int
    query: str
    """The options, as they stand there."""


def parse(text: str, mode: Mode) -> RedisUrl:
    """``redis[s]://[user:password@]host[:port][,host[:port]…][/database][?option=…]``, an IPv6 address in brackets.

    Raises ``ValueError``; its message goes on after the name of the key, and does not repeat the URL.
    """
    parts = _FORM.fullmatch(text.strip())
    if parts is None:
        raise ValueError("must be a redis:// or rediss:// URL where online.kind is redis")
    user, at, hosts = parts["authority"].rpartition("@")
    if not at and "@" in text:
        # Before the host is looked at: it is a piece of the password then.
        raise ValueError("has an @ after a /, ? or #: in a user, a password or an option write %2F, %3F, %23 and %40")
    found = [_host(host, _PORTS[mode]) for host in hosts.split(",")]
    if mode == "single" and len(found) > 1:
        raise ValueError('names several hosts: set online.mode to "sentinel" or "cluster", or name one')
    database = _database(parts["path"])
    if mode == "cluster" and database:
        raise ValueError("names a database, but a cluster has only one: leave out the path")
    name, _, password = user.partition(":")
    tls = parts["scheme"] == "rediss"
    return RedisUrl(tls, found, unquote(name) or None, unquote(password) or None, database, parts["query"] or "")


def _host(text: str, port: int) -> tuple[str, int]:
    parts = re.fullmatch(r"(\[(?P<address>[^\[\]]*)\]|(?P<name>[^\[\]:\s]*))(:(?P<port>[^:]*))?", text)
    if parts is None:
        raise ValueError("has a host that is wrong: write host:port, or [address]:port for an IPv6 address")
    if parts["port"]:
        port = int(parts["port"]) if re.fullmatch(r"[0-9]{1,5}", parts["port"]) else 0
        if not 0 < port <= 65535:
            raise ValueError("has a host that is wrong: its port is no number from 1 to 65535")
    if parts["address"] is not None:
        try:
            IPv6Address(parts["address"])
        except ValueError:
            raise ValueError("has a host that is wrong: between brackets is no IPv6 address") from None
    name = parts["address"] or parts["name"]
    if not name:
        raise ValueError("names no host: write redis://host:port, and no comma too many")
    return name.lower(), port


def _database(path: str) -> int:
    parts = re.fullmatch(r"/?([0-9]{0,9})", path)
    if parts is None:
        raise ValueError("has a path that is no database: write its number, as in redis://host:port/0")
    return int(parts[1] or 0)
