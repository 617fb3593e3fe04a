"""Opens listening sockets; an error says what is wrong and how to fix it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from enum import Enum
from typing import Any, NamedTuple

from router.errors import ConfigError

BACKLOG = 2048
HOSTS = "set it to an address of this machine, or to 0.0.0.0 or :: for all of them"
PORT_TRIES = 20
"""For a port that is free on several addresses."""
_LACKING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""This machine has no such address."""
_Place = tuple[socket.AddressFamily, tuple[Any, ...]]


class _Kind(Enum):
    OWN, SHARED, RESERVED = range(3)


class Keys(NamedTuple):
    """The configuration keys of an address to listen at, for errors."""

    host: str
    ports: str


PUBLIC = Keys("server.host", "server.api_port, server.ws_port, process.port or PORT")
ADMIN = Keys("server.admin_host", "server.admin_port")


def reserve(host: str, port: int, keys: Keys = PUBLIC) -> list[socket.socket]:
    """Sockets that hold a port for other processes, which ``listen`` to it with ``shared``. They take no connections.

    Raises ``ConfigError`` where ``listen`` does, also if processes of another service share the port already.
    """
    tried = listen(host, port, keys)
    chosen = tried[0].getsockname()[1]
    for listener in tried:
        listener.close()
    return _bound(host, chosen, keys, _Kind.RESERVED)


def listen(host: str, port: int, keys: Keys = PUBLIC, *, shared: bool = False) -> list[socket.socket]:
    """Sockets on all addresses of ``host``, with one port: ``localhost`` has two addresses on most machines.

    ``shared``: other processes of this user may listen there too. The kernel gives each new connection to one of them,
    by its addresses and ports, so that they get about as many each (``SO_REUSEPORT``, Linux).

    An address that this machine lacks is skipped if there is another: ``/etc/hosts`` may name ``::1`` although IPv6 is
    off. If the system chooses a port (0) that is taken on another address, it chooses again.
    """
    return _bound(host, port, keys, _Kind.SHARED if shared else _Kind.OWN)


def _bound(host: str, port: int, keys: Keys, kind: _Kind) -> list[socket.socket]:
    places = _resolved(host, port, keys)
    for tries_left in reversed(range(PORT_TRIES)):
        try:
            return _bind_all(places, kind)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE and tries_left:
                continue
            raise ConfigError(f"cannot listen on {host}:{port}: {_in_words(error, keys)}") from error
    raise AssertionError("the last try returns or raises")


def _bind_all(places: Sequence[_Place], kind: _Kind) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    with ExitStack() as opened:
        for family, (address, port, *scope) in places:
            chosen = port or (listeners[0].getsockname()[1] if listeners else 0)
            try:
                listener = _listener(family, (address, chosen, *scope), kind, alone=len(places) == 1)
            except OSError as error:
                if error.errno not in _LACKING:
                    raise
                missing = error
            else:
                listeners.append(opened.enter_context(listener))
        if missing is not None and not listeners:
            raise missing
        opened.pop_all()
    return listeners


def _listener(family: socket.AddressFamily, place: tuple[Any, ...], kind: _Kind, *, alone: bool) -> socket.socket:
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind is not _Kind.OWN:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and not alone:
            # Otherwise it would take the port on IPv4 addresses too.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        if kind is not _Kind.RESERVED:
            listener.listen(BACKLOG)
        listener.setblocking(False)
        opened.pop_all()
    return listener


def _resolved(host: str, port: int, keys: Keys) -> list[_Place]:
    """All that ``getaddrinfo`` finds, each once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it cannot be a name"
        raise ConfigError(f"{keys.host} is {host!r}, which does not resolve ({why}); {HOSTS}") from error
    return list(dict.fromkeys((family, place) for family, _, _, _, place in found))


def _in_words(error: OSError, keys: Keys) -> str:
    """What is wrong, and how to fix it."""
    if error.errno in _LACKING:
        return f"{keys.host} is not an address of this machine; {HOSTS}"
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use; is another router running? set another {keys.ports}"
    if error.errno == errno.EACCES:
        return f"this user may not use it; set one above 1023 ({keys.ports}) or give the process CAP_NET_BIND_SERVICE"
    return f"{error.strerror}; set another {keys.host}, or another {keys.ports}"
