"""Cross-origin requests (CORS): which pages may call, and what browsers are told of that."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import Scope

from router.config.origins import Origins
from router.web.headers import headers_of

_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": (
        "Authorization, Content-Type, Idempotency-Key, X-Request-Id, traceparent, tracestate"
    ),
    "access-control-max-age": "86400",
}
EXPOSED = b"Allow, Date, Retry-After, WWW-Authenticate, X-Request-Id"
"""What answers carry beyond the fields that a page can always read (Fetch Standard, "CORS-safelisted response-header
name"). ``Date`` tells a page whose clock is wrong when its token ends."""


class Cors:
    """The origins of ``server.allowed_origins``."""

    def __init__(self, allowed_origins: Sequence[str]) -> None:
        self._origins = Origins(allowed_origins)

    def allows(self, origin: str) -> bool:
        """Whether a page of this origin may call."""
        return self._origins.allow(origin)

    def headers(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """The header fields of every answer, errors included; ``origin`` is the page that asks, if a browser names
        it."""
        headers = [(b"vary", b"Origin")]
        if origin is not None and self._origins.allow(origin):
            shown = origin.encode() if self._origins.name(origin) else b"*"
            headers.append((b"access-control-allow-origin", shown))
            headers.append((b"access-control-expose-headers", EXPOSED))
            if self._origins.trust(origin):
                headers.append((b"access-control-allow-credentials", b"true"))
        return headers


def is_preflight(scope: Scope) -> bool:
    """Whether this request is a preflight, in which a browser asks what it may send."""
    asks = scope["type"] == "http" and scope["method"] == "OPTIONS"
    return asks and "access-control-request-method" in headers_of(scope)


def preflight() -> Response:
    """The answer to a preflight, the same for all origins: ``Cors.headers`` say whether the origin is allowed."""
    return Response(status_code=204, headers=_PREFLIGHT)
