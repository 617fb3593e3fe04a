"""Where a request carries its token (docs/specification.md#tokens)."""

from __future__ import annotations

from router.errors import Unauthorized
from router.web.headers import Headers

BEARER = "bearer"
_BLANK = " \t"
"""What surrounds values (RFC 9110, section 5.6.3); ``str.strip`` would take control characters and much else."""


def from_authorization(headers: Headers) -> str:
    """The token of ``Authorization: Bearer`` (RFC 6750, section 2.1)."""
    given = headers.every("authorization")
    if len(given) > 1:
        # A proxy in front may have checked the other one.
        raise Unauthorized("send one Authorization header, not several")
    scheme, _, token = (given or [""])[0].partition(" ")
    if scheme.lower() != BEARER or not token.strip(_BLANK):
        raise Unauthorized("send the token as Authorization: Bearer <token>", "missing")
    return token.strip(_BLANK)


def from_handshake(headers: Headers) -> tuple[str, str | None]:
    """The token of a WebSocket handshake, and the subprotocol to answer with.

    Browsers cannot set ``Authorization``; they name the subprotocols ``bearer, <token>``, or ``<token>`` alone.
    """
    lines = ",".join(headers.every("sec-websocket-protocol"))
    offered = [part.strip(_BLANK) for part in lines.split(",") if part.strip(_BLANK)]
    if "authorization" in headers:
        return from_authorization(headers), BEARER if BEARER in offered else None
    if len(offered) == 1 and offered[0] != BEARER:
        return offered[0], offered[0]
    if len(offered) == 2 and offered[0] == BEARER:
        return offered[1], BEARER
    raise Unauthorized(
        "send the token as Authorization: Bearer <token>, or as the WebSocket subprotocols bearer and <token>",
        "missing",
    )
