"""Where a request carries its token (spec, section 4)."""

from __future__ import annotations

from router.errors import Unauthorized
from router.web.fields import Fields

BEARER = "bearer"


def from_authorization(fields: Fields) -> str:
    """The token of ``Authorization: Bearer`` (RFC 6750, section 2.1)."""
    scheme, _, token = (fields.get("authorization") or "").partition(" ")
    if scheme.lower() != BEARER or not token.strip():
        raise Unauthorized("send the token as Authorization: Bearer <token>", "missing")
    return token.strip()


def from_handshake(fields: Fields) -> tuple[str, str | None]:
    """The token of a WebSocket handshake, and the subprotocol to answer with.

    Browsers cannot set ``Authorization``; they name the subprotocols ``bearer, <token>``, or ``<token>`` alone.
    """
    if "authorization" in fields:
        return from_authorization(fields), None
    offered = [part.strip() for part in (fields.get("sec-websocket-protocol") or "").split(",") if part.strip()]
    if len(offered) == 1 and offered[0] != BEARER:
        return offered[0], offered[0]
    if len(offered) == 2 and offered[0] == BEARER:
        return offered[1], BEARER
    raise Unauthorized(
        "send the token as Authorization: Bearer <token>, or as the WebSocket subprotocols bearer and <token>",
        "missing",
    )
