"""Origins of pages and apps (RFC 6454): which are one, and how a browser writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

ANY = "*"
NULL = "null"
"""What a browser sends for a page that has no origin: a sandboxed frame, a data: URL, often a file."""
OWN_PORTS = {"http": 80, "https": 443}
WEB_SCHEME_OF = {"ws": "http", "wss": "https"}
HOSTLESS = ("file",)

_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])?(?::0*(?P<port>[1-9][0-9]{0,4}))?"
)
"""In lower case. Nothing stands for several hosts, and other alphabets are written in ASCII (xn--…)."""
_HOST = re.compile(r"(?P<host>[^:\[\]]+|\[[^\[\]]+\])(?::0*(?P<port>[0-9]{1,5}))?")
_READ_OTHERWISE = frozenset("ßς\u200c\u200d")
"""Letters of which browsers make other ASCII than Python's codec, which is older."""


class Origins:
    """The origins of ``server.allowed_origins``."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = ANY in allowed
        self._listed = frozenset(filter(None, map(comparable, allowed)))

    def allow(self, origin: str) -> bool:
        """Whether a page of ``origin`` may call."""
        return self._any or self.name(origin)

    def name(self, origin: str) -> bool:
        """Whether ``origin`` itself is listed."""
        return comparable(origin) in self._listed

    def trust(self, origin: str) -> bool:
        """Whether a page of it may also send what the browser keeps for this host: listed, and no ``null``."""
        return origin != NULL and self.name(origin)


def comparable(origin: str) -> str | None:
    """The same text for all spellings of one origin; ``None`` where it is none.

    Scheme and host are in lower case, and the port is left out where it is the scheme's own.
    """
    if origin == NULL:
        return NULL
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None or found["scheme"] in WEB_SCHEME_OF:
        return None
    scheme, host, port = found["scheme"], found["host"] or "", int(found["port"] or 0)
    if port > 65535 or (not host and (port or scheme not in HOSTLESS)):
        return None
    return f"{scheme}://{host}" if port in (0, OWN_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def same_host(origin: str, host: str | None) -> bool:
    """Whether ``origin`` is that of a page at ``host``, the header field of a request; its scheme is the page's."""
    scheme, _, place = (comparable(origin) or "").partition("://")
    return scheme in OWN_PORTS and host is not None and comparable(f"{scheme}://{host}") == f"{scheme}://{place}"


def advice(text: str) -> str:
    """How to write what ``text``, which is not an origin, may mean."""
    if "*" in text:
        return f'list each host, or write "{ANY}" for any origin'
    try:
        parts = urlsplit(text)
        host = _in_ascii(parts.hostname or "")
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        host = port = ""
    else:
        if host is None:
            return "write the host in ASCII, as browsers do (xn--…)"
    scheme = WEB_SCHEME_OF.get(parts.scheme, parts.scheme) if host else ""
    meant = comparable(f"{scheme}://{f'[{host}]' if ':' in host else host}{port}")
    return f"write {meant}" if meant else f'write for example https://example.com, or "{ANY}" for any origin'


def _in_ascii(host: str) -> str | None:
    """``host`` as browsers write it, ``None`` where that is not known; raises ``UnicodeError``."""
    return None if _READ_OTHERWISE.intersection(host) else host.encode("idna").decode()
