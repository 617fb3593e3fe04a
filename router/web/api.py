"""The API: send, one message or several, fetch, acknowledge."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qs

import msgspec
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from router import envelope
from router.auth.verifier import Authenticator
from router.core.acceptance import Acceptor
from router.core.user_queue import CompositeMessageQueue
from router.core.work_budget import AT_ONCE, MESSAGE, PUBLISHED, SEND, WorkBudget
from router.errors import InvalidIdempotencyKey, InvalidRequest, RouterError
from router.interfaces import MOST_IDS
from router.pages import DEFAULT_PAGE, LONGEST_PAGE
from router.web import batches
from router.web.fetch_coalescing import FetchCoalescer, SharedFetch
from router.web.headers import Headers
from router.web.problems import BodyTooLarge
from router.web.user_requests import JSON, Handler, UserEndpoint, UserRequest

SLACK_BYTES = 16 * 1024
"""Bytes that a body may have beyond its envelope or ids."""
MAX_ACK_IDS = MOST_IDS
MAX_ID_LENGTH = 128
"""No message has a longer id, even one from another publisher."""
MAX_ACK_BYTES = MAX_ACK_IDS * (MAX_ID_LENGTH + len('"", ')) + SLACK_BYTES
SENDS_AT_ONCE = AT_ONCE // SEND
"""Messages of a batch that are read in one turn."""
LARGE_BYTES = 256 * 1024
"""After a page longer than this, other tasks run before the same user's next one."""
_JSON = (b"content-type", JSON.encode())
_NO_STORE = (b"cache-control", b"no-store")


class Ready(Response):
    """A response with constant header fields; Starlette would build them for each response."""

    def __init__(self, status: int, body: bytes, *fields: tuple[bytes, bytes]) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        # Without a body there is no length either: RFC 9110, section 8.6, forbids it in a 204.
        self.raw_headers = [*fields, (b"content-length", b"%d" % len(body))] if body else [*fields]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


class Page(NamedTuple):
    """The body of an answer, and how many messages are in it."""

    body: bytes
    messages: int


def longest_send(envelope_bytes: int) -> int:
    """How many bytes the body of a send may have. Base64 encodes three bytes in four (RFC 4648, section 4)."""
    return envelope_bytes * 4 // 3 + SLACK_BYTES


def longest_body(envelope_bytes: int) -> int:
    """How many bytes any body may have."""
    return max(longest_send(envelope_bytes), MAX_ACK_BYTES, batches.MOST_BYTES)


class Api:
    """The handlers; everything they need is handed in."""

    def __init__(
        self,
        authenticator: Authenticator,
        acceptor: Acceptor,
        queue: CompositeMessageQueue,
        work: WorkBudget,
        *,
        envelope_bytes: int,
        body_seconds: float,
        refused: Callable[[RouterError], None],
    ) -> None:
        """A body that has not arrived within ``body_seconds`` is refused. ``refused`` is told of each message of a
        batch that is."""
        self._authenticator = authenticator
        self._acceptor = acceptor
        self._queue = queue
        self._work = work
        self._max_send_bytes = longest_send(envelope_bytes)
        self._body_seconds = body_seconds
        self._refused = refused
        self._fetches: FetchCoalescer[Page] = FetchCoalescer(self._page)

    def routes(self) -> list[Route]:
        return [
            Route("/api/send", self._endpoint(self.send), methods=["POST"]),
            Route("/api/send/batch", self._endpoint(self.send_batch), methods=["POST"]),
            Route("/api/messages", self._endpoint(self.messages), methods=["GET"]),
            Route("/api/messages/ack", self._endpoint(self.acknowledge), methods=["POST"]),
            Route("/api/messages/next", self._endpoint(self.next), methods=["POST"]),
        ]

    def _endpoint(self, handler: Handler) -> UserEndpoint:
        return UserEndpoint(handler, self._authenticator, self._work, self._body_seconds)

    async def send(self, request: UserRequest) -> Response:
        """``POST /api/send``: 202 with the id, once the message is durable."""
        body = await request.body(self._max_send_bytes, "an envelope in base64 and a little more")
        await request.spend(body, SEND)
        id_ = await self._acceptor.accept(request.user, body, _idempotency_key(request.headers))
        return Ready(202, b'{"id":"%b"}' % id_.encode(), _JSON)

    async def send_batch(self, request: UserRequest) -> Response:
        """``POST /api/send/batch``: 202 with what became of each message, once each is durable or refused."""
        if "idempotency-key" in request.headers:
            raise InvalidIdempotencyKey('a batch has no Idempotency-Key header: give each message an "idempotencyKey"')
        length = request.headers.get("content-length") or ""
        most = int(length[:8]) if length.isdecimal() else batches.MOST_BYTES
        await request.call.expect(min(most, batches.MOST_BYTES))
        body = await request.body(batches.MOST_BYTES, f"{batches.MOST_MESSAGES} messages")
        await request.spend(body, 0)
        sends = batches.read(body)
        await request.call.afford(len(sends) * SEND)
        batch = self._acceptor.batch(request.user)
        for start in range(0, len(sends), SENDS_AT_ONCE):
            some = sends[start : start + SENDS_AT_ONCE]
            # In turns with others, as if each was a request.
            await request.call.turn(len(some) * SEND)
            for send in some:
                if len(send.body) > self._max_send_bytes:
                    limit = f"the limit is {self._max_send_bytes}: an envelope in base64 and a little more"
                    batch.refuse(BodyTooLarge(f"the envelope has {len(send.body)} bytes, but {limit}"))
                else:
                    batch.add(*send)
        # One user publishes one long batch at a time.
        await request.call.turn(len(sends) * PUBLISHED)
        outcomes = await batch.publish()
        for outcome in outcomes:
            if isinstance(outcome, RouterError):
                self._refused(outcome)
        answer, retry_after = batches.answer(outcomes)
        more = [] if retry_after is None else [(b"retry-after", b"%d" % retry_after)]
        return Ready(202, answer, _JSON, *more)

    async def messages(self, request: UserRequest) -> Response:
        """``GET /api/messages``: the oldest messages; nothing is removed."""
        limit = _limit(request.scope["query_string"])
        # Sending a page may wait until no other work is under way.
        request.call.pause()
        return _answer(request, await self._fetches.join(request.user, limit))

    async def next(self, request: UserRequest) -> Response:
        """``POST /api/messages/next``: acknowledges, and then answers as ``messages`` does."""
        body = await _body_with_ids(request)
        ids, limit = _ids_and_limit(body)
        if self._fetches.begins_at_once(request.user):
            shared = await self._fetches.join(request.user, limit, partial(self._page, acknowledged=ids))
        else:
            # Others share the page, so it begins when these ids are gone.
            await self._queue.acknowledge(request.user, ids)
            request.call.pause()
            shared = await self._fetches.join(request.user, limit)
        request.call.pause()
        return _answer(request, shared)

    async def _page(self, user: str, limit: int, acknowledged: Sequence[str] = ()) -> Page:
        if acknowledged:
            batch = await self._queue.next(user, acknowledged, limit)
        else:
            batch = await self._queue.fetch(user, limit)
        body = envelope.message_list((queued.message.id, queued.message.envelope) for queued in batch)
        if len(body) > LARGE_BYTES:
            await asyncio.sleep(0)
        return Page(body, len(batch))

    async def acknowledge(self, request: UserRequest) -> Response:
        """``POST /api/messages/ack``: 204 once the messages are deleted."""
        body = await _body_with_ids(request)
        ids = _ids(body)
        await self._queue.acknowledge(request.user, ids)
        return Ready(204, b"")


async def _body_with_ids(request: UserRequest) -> bytes:
    """The body of an acknowledgement, charged."""
    body = await request.body(MAX_ACK_BYTES, f"{MAX_ACK_IDS} ids")
    # Spend before parsing, which is work too. A comma stands before each id but the first.
    await request.spend(body, (body.count(b",") + 1) * MESSAGE)
    return body


def _answer(request: UserRequest, shared: SharedFetch[Page]) -> Response:
    request.call.at_end = shared.leave
    page = shared.page
    request.call.charge(page.messages * MESSAGE)
    return Ready(200, page.body, _JSON, _NO_STORE)


def _idempotency_key(headers: Headers) -> str | None:
    keys = headers.every("idempotency-key")
    if len(keys) > 1:
        raise InvalidIdempotencyKey("there is more than one Idempotency-Key header: send one")
    return keys[0] if keys else None


@lru_cache(maxsize=64)
def _limit(query: bytes) -> int:
    """The last ``limit`` of a query string. Cached, since clients send the same one all the time."""
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("limit")
    return _places(values[-1]) if values else DEFAULT_PAGE


def _places(text: str) -> int:
    digits = text.lstrip("0")
    if not (digits.isascii() and digits.isdecimal()):
        raise InvalidRequest(f"limit must be a number from 1; more than {LONGEST_PAGE} is read as {LONGEST_PAGE}")
    # Four digits show that it is too large; Python refuses to convert thousands of them.
    return min(int(digits[:4]), LONGEST_PAGE)


class _Ack(msgspec.Struct):
    camel: list[str] | None = msgspec.field(default=None, name="messageIds")
    snake: list[str] | None = msgspec.field(default=None, name="message_ids")


class _Next(_Ack):
    limit: int | float | str | None = None


_ACK_FORM = 'the body must be {"messageIds": ["…", …]}'
_NEXT_FORM = 'the body must be {"messageIds": ["…", …], "limit": 50}, where both may be left out'
_decode_ack = msgspec.json.Decoder(_Ack).decode
_decode_next = msgspec.json.Decoder(_Next).decode
Read = TypeVar("Read", bound=_Ack)


def _ids(body: bytes) -> list[str]:
    """``{"messageIds": […]}`` by the rules of ProtoJSON; those that are some message's."""
    ack = _read(body, _decode_ack, _ACK_FORM)
    return _checked_ids(ack, body, _ACK_FORM)


def _ids_and_limit(body: bytes) -> tuple[list[str], int]:
    """``{"messageIds": […], "limit": …}`` likewise."""
    wanted = _read(body, _decode_next, _NEXT_FORM)
    limit = wanted.limit
    if isinstance(limit, float) and limit.is_integer():
        limit = int(limit)
    ids = _checked_ids(wanted, body, _NEXT_FORM, others=limit is not None)
    return ids, DEFAULT_PAGE if limit is None else _places(str(limit))


def _read(body: bytes, decode: Callable[[bytes], Read], form: str) -> Read:
    try:
        return decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequest(form) from error


def _checked_ids(ack: _Ack, body: bytes, form: str, others: int = 0) -> list[str]:
    """The ids of ``ack``, read from ``body``, which has so many ``others`` among its members."""
    if ack.camel is not None and ack.snake is not None:
        raise InvalidRequest('"messageIds" is given under both of its names: remove one')
    ids = ack.camel or ack.snake or []
    if len(ids) > MAX_ACK_IDS:
        raise InvalidRequest(f"{len(ids)} ids are too many for one request; send {MAX_ACK_IDS} at most")
    # A usual body has no quotation marks but those around the names of its members and around its ids.
    if body.count(b'"') != 2 * ((ack.camel is not None) + (ack.snake is not None) + others + len(ids)):
        _refuse_twins(body, form)
    # No message has a longer id, so there is nothing to delete.
    return [id_ for id_ in ids if len(id_) <= MAX_ID_LENGTH]


def _refuse_twins(body: bytes, form: str) -> None:
    """Raise ``InvalidRequest`` where an object in ``body`` has two members of one name, as an envelope may not either.

    msgspec takes the last of them, and the ids in the others would silently stay unacknowledged.
    """
    try:
        _JSON_OBJECTS.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(form) from error


def _unique(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise InvalidRequest("an object in the body has two members with the same name: remove one")


_JSON_OBJECTS = json.JSONDecoder(object_pairs_hook=_unique, parse_int=str)
"""Numbers stay text: Python refuses to convert one of thousands of digits."""
