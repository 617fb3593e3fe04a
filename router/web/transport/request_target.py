"""Which host and path a request is for: its Host field and its target (RFC 9112, sections 3.2 and 3.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
"""RFC 3986, section 3.2, without a user name. An empty host is not valid here."""
_ABSOLUTE = re.compile(rb"https?://[^/?#]+(?P<rest>.*)", re.IGNORECASE | re.DOTALL)


def host_problem(version: str, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """What is wrong with the Host field, or ``None``: a proxy in front may have used another one."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) == 1:
        return (
            None
            if _HOST.fullmatch(hosts[0])
            else "the Host header has no host: send a name or an address, with an optional port"
        )
    if hosts:
        return "there is more than one Host header: send one"
    return "an HTTP/1.1 request needs a Host header" if version == "1.1" else None


def in_origin_form(target: bytes) -> bytes:
    """``target`` as a path: the absolute form without its host. The asterisk of OPTIONS becomes a path without a
    route."""
    if target == b"*":
        return b"/*"
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return target
    rest = absolute["rest"]
    return rest if rest.startswith(b"/") else b"/" + rest
