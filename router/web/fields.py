"""The header fields of a request, made for looking up a few of them once."""

from __future__ import annotations

from starlette.types import Scope


class Fields:
    """Names are lower case; of a field that is sent several times the first counts.

    Every request looks up a handful, and Starlette's ``Headers`` goes through its list for each.
    """

    __slots__ = ("_raw",)

    def __init__(self, scope: Scope) -> None:
        self._raw: dict[bytes, bytes] = dict(reversed(scope["headers"]))

    def get(self, name: str) -> str | None:
        raw = self._raw.get(name.encode())
        return None if raw is None else raw.decode("latin-1")

    def __contains__(self, name: str) -> bool:
        return name.encode() in self._raw
