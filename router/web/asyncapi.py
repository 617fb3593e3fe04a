"""The AsyncAPI 3.0 document of the WebSocket: handshake, frames and close codes, made of what the handlers use."""

from __future__ import annotations

import json
from typing import Any

from router import __version__
from router.config import Config
from router.core.connections import DISCONNECTED, GOING_AWAY, REPLACED, TOKEN_EXPIRED, TRY_AGAIN_LATER
from router.web.poke_sockets import POKE
from router.web.transport.websocket import (
    FRAME_SECONDS,
    FRAME_TOO_LARGE,
    INTERNAL_ERROR,
    INVALID_TEXT,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    POLICY_VIOLATION,
    PROTOCOL_ERROR,
)

Document = dict[str, Any]
_SECURITY = {"$ref": "#/components/securitySchemes/token"}

CLOSES = {
    GOING_AWAY: ("The node stops.", "Connect again, with jitter."),
    PROTOCOL_ERROR: ("The client broke the WebSocket protocol.", "Correct the client."),
    INVALID_TEXT: ("The client sent a text frame that is not UTF-8.", "Correct the client; no frame is best."),
    POLICY_VIOLATION: ("The client sent too many frames.", "Send fewer; none is best."),
    FRAME_TOO_LARGE: ("The client sent too large a frame.", "Send a smaller one; none is best."),
    INTERNAL_ERROR: ("The client did not answer a ping in time.", "Connect again, with jitter."),
    TRY_AGAIN_LATER: ("The user has too many connections.", "Connect again later."),
    TOKEN_EXPIRED: ("The token has expired, or its key was withdrawn.", "Get a new token, then connect again."),
    REPLACED: (
        "The connection did not answer a ping, and a newer one of the user has its place.",
        "Connect again after 15 s or more, with jitter, if the app still runs.",
    ),
    DISCONNECTED: ("An operator has disconnected the user.", "Connect again, after a pause and with jitter."),
}
"""Code -> when the router closes a socket with it, and what the client does then."""


def document() -> Document:
    """The whole document. It describes the router, so what the router sends is the action ``send``."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "router",
            "version": __version__,
            "description": "A WebSocket that carries no mail: it says when to fetch. What is HTTP is in openapi.json.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "deployed": {
                "host": "{host}",
                "protocol": "wss",
                "variables": {"host": {"description": "Where openapi.json was found, as router.example.com."}},
                "security": [_SECURITY],
            },
            "local": {
                "host": f"127.0.0.1:{Config().server.api_port}",
                "protocol": "ws",
                "description": "`router serve` on this machine.",
                "security": [_SECURITY],
            },
        },
        "channels": {"connect": _channel()},
        "operations": {
            "poke": {
                "action": "send",
                "channel": {"$ref": "#/channels/connect"},
                "messages": [{"$ref": "#/channels/connect/messages/poke"}],
                "summary": "There is mail that was not fetched since the last poke.",
            }
        },
        "components": {
            "messages": {"poke": _poke()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _channel() -> Document:
    return {
        "address": "/connect",
        "description": (
            "The router ignores what a client sends, and answers its pings. It pings the client, which has as long to "
            f"answer as there is between two pings. A client may send {MAX_FRAMES} frames in {FRAME_SECONDS:g} s, its "
            f"pings included, of at most {MAX_FRAME_BYTES} bytes. Refused handshakes are problems, as in openapi.json."
        ),
        "messages": {"poke": {"$ref": "#/components/messages/poke"}},
        "bindings": {"ws": {"method": "GET", "headers": _handshake(), "bindingVersion": "0.1.0"}},
        "x-close-codes": [{"code": code, "reason": why, "do": do} for code, (why, do) in sorted(CLOSES.items())],
    }


def _handshake() -> Document:
    """A client sends one of the two."""
    return {
        "type": "object",
        "properties": {
            "Authorization": {"type": "string", "description": "`Bearer <token>`."},
            "Sec-WebSocket-Protocol": {
                "type": "string",
                "description": "From a browser, which cannot set Authorization: `bearer, <token>`. "
                "The router selects `bearer`.",
            },
        },
    }


def _poke() -> Document:
    payload = json.loads(POKE)
    return {
        "name": "poke",
        "title": "Poke",
        "summary": "Fetch: there is mail, and this says nothing of it. One may stand for many messages, or for none.",
        "payload": {"type": "object", "const": payload},
        "examples": [{"payload": payload}],
    }
