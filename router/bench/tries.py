"""Carries the requests of a load, and counts failed attempts."""

from __future__ import annotations

import json
from collections import Counter

import httpx
from msgspec import Struct


class Failed(Struct, frozen=True):
    """A kind of failed attempt."""

    route: str
    status: int | None
    """``None`` if there was no answer."""
    reason: str
    """The last part of the problem's ``type``; if there is none, the phrase of the status or the error's name."""


class Counted(httpx.AsyncBaseTransport):
    """Passes requests on to ``inner``; counts refused and unanswered ones in ``failed``."""

    def __init__(self, inner: httpx.AsyncBaseTransport, failed: Counter[Failed]) -> None:
        self._inner = inner
        self._failed = failed

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        route = f"{request.method} {request.url.path}"
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.TransportError as error:
            self._failed[Failed(route, None, type(error).__name__)] += 1
            raise
        if not response.is_success:
            content = await response.aread()
            self._failed[Failed(route, response.status_code, _reason(response, content))] += 1
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def _reason(response: httpx.Response, content: bytes) -> str:
    try:
        problem = json.loads(content)
    except ValueError:
        problem = None
    type_ = problem.get("type") if isinstance(problem, dict) else None
    return type_.rpartition(":")[2] if isinstance(type_, str) else response.reason_phrase
