"""The OpenAPI 3.1 document, made of the same numbers that the handlers use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router import __version__
from router.config import Config
from router.pages import DEFAULT_PAGE, LONGEST_PAGE
from router.urn import MAX_BYTES
from router.web.api import MAX_ACK_IDS
from router.web.batches import MOST_MESSAGES
from router.web.problems import MEDIA_TYPE, STATUSES, TYPE_PREFIX

Document = dict[str, Any]
_LIMIT: Document = {"type": "integer", "minimum": 1}
"""Without its default, and so is each member of a body: generators make a member with a default a required one."""
_AT_MOST = (
    f"At most this number of messages, {DEFAULT_PAGE} by default; more than {LONGEST_PAGE} is read as {LONGEST_PAGE}."
)
_ANY = (400, 401, 408, 413, 429, 431, 500, 503)
_WITH_BODY = (*_ANY, 415)
_HANDSHAKE = (*_ANY, 403, 426)
_HEADERS = {
    "X-Request-Id": "The request's own, or a random one: the router's log has it where a request was refused.",
    "Retry-After": "Seconds after which the same request may succeed.",
    "WWW-Authenticate": "Bearer (RFC 6750).",
    "Allow": "Of a 405: the methods that the route has.",
    "Upgrade": "websocket.",
    "Sec-WebSocket-Protocol": "Of the subprotocols that were offered, the one that is selected.",
    "Cache-Control": "no-store.",
}
_ALWAYS = frozenset(("X-Request-Id",))
_OF_STATUS = {401: ("WWW-Authenticate",), 426: ("Upgrade",), 429: ("Retry-After",), 503: ("Retry-After",)}
"""Status -> what a refusal with it has, beside the fields of every answer."""


def statuses(path: str) -> list[int]:
    """The statuses with which ``path`` answers; none if it is not described."""
    operations = _paths().get(path, {}).values()
    answers = {answer for operation in operations for answer in operation["responses"]}
    return sorted(int(answer) for answer in answers if answer.isdecimal())


def document() -> Document:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "router",
            "version": __version__,
            "summary": "Sealed envelopes from senders to recipients: at least once, in order.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            {"url": "/", "description": "The router that serves this document."},
            {"url": f"http://127.0.0.1:{Config().server.api_port}", "description": "`router serve` on this machine."},
        ],
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": _schemas(),
            "headers": {name: _header(name) for name in _HEADERS},
            "responses": {
                "Problem": _json("A problem (RFC 9457).", "Problem", ("Allow",), media_type=MEDIA_TYPE),
                **{f"Problem{status}": _problem(status, kinds) for status, kinds in STATUSES.items()},
            },
        },
    }


def _paths() -> Document:
    return {
        "/api/send": {"post": _send()},
        "/api/send/batch": {"post": _send_batch()},
        "/api/messages": {"get": _messages()},
        "/api/messages/ack": {"post": _ack()},
        "/api/messages/next": {"post": _next()},
        "/connect": {"get": _connect()},
        "/healthz": {"get": _open("alive", "Liveness", {"200": _plain("The process turns.")})},
        "/readyz": {
            "get": _open("ready", "Readiness", {"200": _plain("Ready; no body."), "503": _plain("Not ready; no body.")})
        },
        "/openapi.json": {"get": _open("openapi", "This document", {"200": _plain("OpenAPI 3.1.")})},
        "/asyncapi.json": {"get": _open("asyncapi", "The document of the WebSocket", {"200": _plain("AsyncAPI 3.0.")})},
    }


def _send() -> Document:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        "description": "Sends with the same sender, recipient and key within a day are one message, accepted once.",
    }
    return {
        "operationId": "send",
        "summary": "Send a sealed envelope",
        "parameters": [key],
        "requestBody": _body("SecureEnvelope"),
        "responses": _answers(
            {
                "202": _json(
                    "The message is durable. The answer is the same whether the recipient is online or not.", "Accepted"
                )
            },
            _WITH_BODY,
        ),
    }


def _send_batch() -> Document:
    accepted = _json(
        "What became of each message, in the order of the request. Retry-After is the longest of their errors.",
        "BatchResults",
        ("Retry-After",),
    )
    return {
        "operationId": "sendBatch",
        "summary": "Send several sealed envelopes, each as if it was sent alone",
        "requestBody": _body("Batch"),
        "responses": _answers({"202": accepted}, _WITH_BODY),
    }


def _messages() -> Document:
    limit = {"name": "limit", "in": "query", "schema": {**_LIMIT, "default": DEFAULT_PAGE}, "description": _AT_MOST}
    return {
        "operationId": "messages",
        "summary": "Fetch the oldest messages; nothing is removed",
        "parameters": [limit],
        "responses": _answers({"200": _page()}, _ANY),
    }


def _page() -> Document:
    return _json(
        "Oldest first, the express lane before the normal one, which has a fifth of the page.",
        "QueuedMessageList",
        ("Cache-Control",),
    )


def _ack() -> Document:
    return {
        "operationId": "acknowledge",
        "summary": "Acknowledge messages that were saved",
        "requestBody": _body("Acknowledgement"),
        "responses": _answers({"204": _plain("The messages are deleted; unknown ids are ignored.")}, _WITH_BODY),
    }


def _next() -> Document:
    return {
        "operationId": "next",
        "summary": "Acknowledge messages that were saved, then fetch the oldest of the others",
        "requestBody": _body("Next"),
        "responses": _answers({"200": _page()}, _WITH_BODY),
    }


def _connect() -> Document:
    return {
        "operationId": "connect",
        "summary": "WebSocket: the text frame {} is a poke, which tells the client to fetch",
        "description": "Frames and close codes are in asyncapi.json.",
        "responses": _answers({"101": _plain("Connected.", ("Sec-WebSocket-Protocol",))}, _HANDSHAKE),
    }


def _open(operation: str, summary: str, responses: Document) -> Document:
    return {"operationId": operation, "summary": summary, "security": [], "responses": responses}


def _answers(good: Document, refusals: Sequence[int]) -> Document:
    refused = {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(refusals)}
    return {**good, **refused, "default": {"$ref": "#/components/responses/Problem"}}


def _problem(status: int, kinds: Sequence[str]) -> Document:
    return {
        "description": ", ".join(kinds),
        "headers": _headers(_OF_STATUS.get(status, ())),
        "content": {MEDIA_TYPE: {"schema": _ref(f"Problem{status}")}},
    }


def _plain(description: str, headers: Sequence[str] = ()) -> Document:
    return {"description": description, "headers": _headers(headers)}


def _json(
    description: str, schema: str, headers: Sequence[str] = (), *, media_type: str = "application/json"
) -> Document:
    return {**_plain(description, headers), "content": {media_type: {"schema": _ref(schema)}}}


def _headers(names: Sequence[str]) -> Document:
    """These, and those of every answer."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in sorted({*_ALWAYS, *names})}


def _header(name: str) -> Document:
    schema = {"type": "integer"} if name == "Retry-After" else {"type": "string"}
    return {"description": _HEADERS[name], "required": name in _ALWAYS, "schema": schema}


def _body(schema: str) -> Document:
    return {"required": True, "content": {"application/json": {"schema": _ref(schema)}}}


def _ref(schema: str) -> Document:
    return {"$ref": f"#/components/schemas/{schema}"}


def _schemas() -> Document:
    opaque = {"type": "string", "contentEncoding": "base64"}
    text = {"type": "string"}
    ids: Document = {"type": "array", "maxItems": MAX_ACK_IDS, "items": text}
    return {
        "SecureEnvelope": _object(
            ["recipientId"],
            recipientId={
                "type": "string",
                "maxLength": MAX_BYTES,
                "description": "urn:<namespace>:<type>:<id>, or a bare id, which is read as urn:sm:user:<id>.",
            },
            encryptedData=opaque,
            encryptedSymmetricKey=opaque,
            signature=opaque,
            isEphemeral={"type": "boolean", "description": "Deliver only if the recipient is online now."},
            priority={"type": "integer", "format": "int32", "description": "5 and above take the express lane."},
        ),
        "Accepted": _object(["id"], id=text),
        "Batch": _object(
            ["messages"],
            messages={
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_MESSAGES,
                "items": _object(
                    ["envelope"],
                    envelope=_ref("SecureEnvelope"),
                    idempotencyKey={"type": "string", "minLength": 1, "maxLength": 255},
                ),
            },
        ),
        "BatchResults": _object(
            ["results"],
            results={
                "type": "array",
                "items": {"oneOf": [_ref("Accepted"), _object(["error"], error=_ref("Problem"))]},
            },
        ),
        "QueuedMessage": _object(["id", "envelope"], id=text, envelope=_ref("SecureEnvelope")),
        "QueuedMessageList": _object(["messages"], messages={"type": "array", "items": _ref("QueuedMessage")}),
        "Acknowledgement": _object(["messageIds"], messageIds=ids),
        "Next": _object([], messageIds=ids, limit={**_LIMIT, "description": _AT_MOST}),
        "Problem": _problem_object({"type": "string"}, {"type": "integer"}),
        **{
            f"Problem{status}": _problem_object(
                {"type": "string", "enum": [TYPE_PREFIX + kind for kind in kinds]},
                {"type": "integer", "enum": [status]},
            )
            for status, kinds in STATUSES.items()
        },
    }


def _problem_object(kind: Document, status: Document) -> Document:
    text = {"type": "string"}
    return _object(["type", "title", "status"], type=kind, title=text, status=status, detail=text)


def _object(required: list[str], **properties: Any) -> Document:
    return {"type": "object", "required": required, "properties": properties}
