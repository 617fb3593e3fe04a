"""The header fields of a request, made to look up a few of them, once each."""

from __future__ import annotations

from starlette.types import Scope

_KEPT = "router.headers"


class Headers:
    """Names are lower case; of a field that is sent several times ``get`` gives the first.

    Every request looks up a handful, and Starlette's ``Headers`` goes through its list for each.
    """

    __slots__ = ("_list", "_raw")

    def __init__(self, scope: Scope) -> None:
        self._list: list[tuple[bytes, bytes]] = scope["headers"]
        self._raw = dict(reversed(self._list))

    def get(self, name: str) -> str | None:
        raw = self._raw.get(name.encode())
        return None if raw is None else raw.decode("latin-1")

    def every(self, name: str) -> list[str]:
        """All values of a field, in the order in which they were sent."""
        first = self.get(name)
        if first is None or len(self._raw) == len(self._list):
            return [] if first is None else [first]
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in self._list if key == wanted]

    def __contains__(self, name: str) -> bool:
        return name.encode() in self._raw


def headers_of(scope: Scope) -> Headers:
    """The header fields of this request; made once, and kept in its scope."""
    found: Headers | None = scope.get(_KEPT)
    if found is None:
        found = scope[_KEPT] = Headers(scope)
    return found


def forget_headers(scope: Scope) -> None:
    """Drop the header fields, which hold the token: a WebSocket outlives its handshake by hours."""
    scope.pop(_KEPT, None)
    scope["headers"] = []
    scope["subprotocols"] = []
