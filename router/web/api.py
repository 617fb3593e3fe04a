"""The API: send, fetch, acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router import envelope
from router.auth.verifier import Authenticator
from router.core.accepting import Acceptor
from router.core.queue import CompositeMessageQueue
from router.errors import InvalidIdempotencyKey, InvalidRequest
from router.web.edge import Endpoint
from router.web.fields import Fields
from router.web.problems import BodyTooLarge, BodyTooSlow, UnsupportedMediaType
from router.web.tokens import from_authorization

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_ACK_IDS = 10_000
MAX_ACK_BYTES = 1024 * 1024
SLACK_BYTES = 16 * 1024
"""What a body may hold beside the opaque fields."""
JSON = "application/json"


class Api:
    """The handlers; everything they need is handed in."""

    def __init__(
        self,
        authenticator: Authenticator,
        acceptor: Acceptor,
        queue: CompositeMessageQueue,
        *,
        envelope_bytes: int,
        body_seconds: float,
    ) -> None:
        """A body that has not arrived within ``body_seconds`` is refused."""
        self._authenticator = authenticator
        self._acceptor = acceptor
        self._queue = queue
        # Base64 makes four bytes of three (RFC 4648, section 4).
        self._max_send_bytes = envelope_bytes * 4 // 3 + SLACK_BYTES
        self._body_seconds = body_seconds

    def routes(self) -> list[Route]:
        return [
            Route("/api/send", Endpoint(self.send), methods=["POST"]),
            Route("/api/messages", Endpoint(self.messages), methods=["GET"]),
            Route("/api/messages/ack", Endpoint(self.acknowledge), methods=["POST"]),
        ]

    async def send(self, request: Request) -> Response:
        """``POST /api/send``: 202 with the id, once the message is durable."""
        fields = Fields(request.scope)
        user = await self._user(fields)
        body = await _body(request, fields, self._max_send_bytes, self._body_seconds)
        id_ = await self._acceptor.accept(user, body, _idempotency_key(fields))
        return Response(b'{"id":"%b"}' % id_.encode(), 202, media_type=JSON)

    async def messages(self, request: Request) -> Response:
        """``GET /api/messages``: the oldest messages; nothing is removed."""
        user = await self._user(Fields(request.scope))
        batch = await self._queue.fetch(user, _limit(request.query_params.getlist("limit")))
        body = envelope.message_list((queued.message.id, queued.message.envelope) for queued in batch)
        return Response(body, headers={"cache-control": "no-store"}, media_type=JSON)

    async def acknowledge(self, request: Request) -> Response:
        """``POST /api/messages/ack``: 204 once the messages are deleted."""
        fields = Fields(request.scope)
        user = await self._user(fields)
        await self._queue.acknowledge(user, _ids(await _body(request, fields, MAX_ACK_BYTES, self._body_seconds)))
        return Response(status_code=204)

    async def _user(self, fields: Fields) -> str:
        return (await self._authenticator.authenticate(from_authorization(fields))).user


def _idempotency_key(fields: Fields) -> str | None:
    keys = fields.every("idempotency-key")
    if len(keys) > 1:
        raise InvalidIdempotencyKey("there is more than one Idempotency-Key: a message has one")
    return keys[0] if keys else None


async def _body(request: Request, fields: Fields, limit: int, seconds: float) -> bytes:
    """The body, bounded in size and time. A missing Content-Type is taken for JSON."""
    kind = fields.get("content-type")
    if kind is not None and kind != JSON and kind.partition(";")[0].strip().lower() != JSON:
        raise UnsupportedMediaType(f"send the body as {JSON}")
    if (fields.get("content-encoding") or "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without a Content-Encoding")
    length = fields.get("content-length") or ""
    if length.isdecimal() and int(length) > limit:
        raise BodyTooLarge(f"the body has {length} bytes, the limit is {limit}")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge(f"the body has more than {limit} bytes")
                chunks.append(chunk)
    except TimeoutError as error:
        raise BodyTooSlow(f"the body did not arrive within {seconds:g} s") from error
    return b"".join(chunks)


def _limit(values: Sequence[str]) -> int:
    if not values:
        return DEFAULT_LIMIT
    text = values[-1]
    if not (text.isascii() and text.isdecimal()) or len(text) > 18 or int(text) < 1:
        raise InvalidRequest(f"limit must be a number from 1; more than {MAX_LIMIT} is read as {MAX_LIMIT}")
    return min(int(text), MAX_LIMIT)


class _Ack(msgspec.Struct):
    camel: list[str] | None = msgspec.field(default=None, name="messageIds")
    snake: list[str] | None = msgspec.field(default=None, name="message_ids")


_decode_ack = msgspec.json.Decoder(_Ack).decode


def _ids(body: bytes) -> list[str]:
    """``{"messageIds": […]}`` by the rules of ProtoJSON."""
    try:
        ack = _decode_ack(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequest('the body must be {"messageIds": ["…", …]}') from error
    if ack.camel is not None and ack.snake is not None:
        raise InvalidRequest('"messageIds" is given under both of its names: leave one out')
    ids = ack.camel or ack.snake or []
    if len(ids) > MAX_ACK_IDS:
        raise InvalidRequest(f"{len(ids)} ids are too many for one request; send {MAX_ACK_IDS} at most")
    return ids
