"""Errors as RFC 9457 problem details: one table from the router's errors to what a client sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.responses import Response

from router import errors

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:sealed-router:problem:"
RETRY_SECONDS = 2
"""Seconds of ``Retry-After`` if nothing better is known."""


class Kind(Struct, frozen=True):
    """What one kind of error is to a client."""

    status: int
    slug: str
    """The stable end of ``type``, and the reason in the metric."""
    title: str


class MalformedRequest(errors.RouterError):
    """The bytes are not an HTTP request."""


class HeadersTooLarge(errors.RouterError):
    """Request line and headers are longer than any acceptable ones."""


class HeadersTooSlow(errors.RouterError):
    """The headers did not arrive in time."""


class BodyTooLarge(errors.RouterError):
    """The body is longer than any acceptable one."""


class BodyTooSlow(errors.RouterError):
    """The body did not arrive in time."""


class UnsupportedMediaType(errors.RouterError):
    """The body is not what the route takes."""


class Forbidden(errors.RouterError):
    """The browser origin is not allowed."""


class UpgradeRequired(errors.RouterError):
    """The route speaks WebSocket only."""


_BAD_ENVELOPE = Kind(400, "invalid-envelope", "Invalid envelope")
KINDS: dict[type[errors.RouterError], Kind] = {
    errors.EnvelopeTooLarge: Kind(413, "envelope-too-large", "Envelope too large"),
    errors.InvalidUrn: _BAD_ENVELOPE,
    errors.InvalidEnvelope: _BAD_ENVELOPE,
    errors.InvalidIdempotencyKey: Kind(400, "invalid-idempotency-key", "Invalid Idempotency-Key"),
    errors.InvalidRequest: Kind(400, "invalid-request", "Invalid request"),
    MalformedRequest: Kind(400, "malformed-request", "Malformed request"),
    errors.Unauthorized: Kind(401, "unauthorized", "Unauthorized"),
    Forbidden: Kind(403, "origin-not-allowed", "Origin not allowed"),
    HeadersTooSlow: Kind(408, "headers-too-slow", "Headers too slow"),
    BodyTooSlow: Kind(408, "body-too-slow", "Body too slow"),
    BodyTooLarge: Kind(413, "body-too-large", "Body too large"),
    UnsupportedMediaType: Kind(415, "unsupported-media-type", "Unsupported media type"),
    UpgradeRequired: Kind(426, "upgrade-required", "Upgrade required"),
    HeadersTooLarge: Kind(431, "headers-too-large", "Headers too large"),
    errors.RateLimited: Kind(429, "rate-limited", "Too many messages"),
    errors.TooMuchWork: Kind(429, "too-much-work", "Too much work"),
    errors.TooManyConnections: Kind(429, "too-many-connections", "Too many connections"),
    errors.Draining: Kind(503, "draining", "Going away"),
    errors.Unavailable: Kind(503, "unavailable", "Temporarily unavailable"),
    errors.RouterError: Kind(503, "unavailable", "Temporarily unavailable"),
}


_OF_NO_ERROR = {(404, "not-found"), (405, "method-not-allowed"), (500, "internal")}
"""What ``not_served`` and ``internal_error`` answer."""
_ALL = sorted({(kind.status, kind.slug) for kind in KINDS.values()} | _OF_NO_ERROR)
STATUSES = {status: [slug for other, slug in _ALL if other == status] for status, _ in _ALL}
"""Status -> the slugs of its problems."""


def kind_of(error: errors.RouterError) -> Kind:
    """The entry of the error's class, or of its nearest base class."""
    return next(KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in KINDS)


def response(error: errors.RouterError) -> Response:
    """The answer for ``error``; the client gets details only of its own errors."""
    kind = kind_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unauthorized):
        # Without a token in the request, there is no error code (RFC 6750, section 3.1).
        known = "" if error.reason == "missing" else ', error="invalid_token"'
        headers["www-authenticate"] = f'Bearer realm="router"{known}'
    if (seconds := retry_after(error)) is not None:
        headers["retry-after"] = str(seconds)
    if isinstance(error, UpgradeRequired):
        headers["upgrade"] = "websocket"
    return Response(msgspec.json.encode(document(error)), kind.status, headers, MEDIA_TYPE)


def document(error: errors.RouterError) -> dict[str, object]:
    """The problem document for ``error``."""
    kind = kind_of(error)
    detail = "a dependency does not answer; try again" if kind.slug == "unavailable" else str(error)
    return {"type": TYPE_PREFIX + kind.slug, "title": kind.title, "status": kind.status, "detail": detail}


def retry_after(error: errors.RouterError) -> int | None:
    """After how many seconds the same may be accepted; ``None`` where it never is."""
    if isinstance(error, errors.RateLimited):
        return max(1, math.ceil(error.retry_after))
    return RETRY_SECONDS if kind_of(error).status in (429, 503) else None


def problem(
    status: int, slug: str, title: str, detail: str, headers: dict[str, str] | None = None, **more: object
) -> Response:
    """A problem document; ``more`` are its extension members."""
    document = {"type": TYPE_PREFIX + slug, "title": title, "status": status, "detail": detail, **more}
    return Response(msgspec.json.encode(document), status, headers, MEDIA_TYPE)


def not_ready(slug: str, title: str, detail: str, failed: Sequence[Mapping[str, str]] = ()) -> Response:
    """What readiness answers while this process should get no requests; ``failed`` names dependencies."""
    return problem(503, slug, title, detail, {"retry-after": str(RETRY_SECONDS)}, failed=failed)


def internal_error() -> Response:
    return problem(500, "internal", "Internal error", "the router has a bug; its log names this request id")


def not_served(error: HTTPException, method: str, path: str) -> Response:
    """Starlette's own refusals: no such route, no such method."""
    phrase = HTTPStatus(error.status_code).phrase
    slug = phrase.lower().replace(" ", "-")
    return problem(error.status_code, slug, phrase, f"{method} {path} is not served here", dict(error.headers or {}))
