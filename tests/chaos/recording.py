"""What clients saw, as a history: each try of each request, written down where it leaves and where its answer comes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import ssl
import time
from collections.abc import Callable, Sequence

import httpx
import msgspec
from msgspec import Struct

from tests.sim import history as h
from tests.sim.checker import Judge

EPHEMERAL_SECONDS = 10.0
EXPRESS = 7
NEXT = "/api/messages/next"
BATCH = "/api/send/batch"


class _Envelope(Struct, rename="camel"):
    recipient_id: str
    encrypted_data: str
    is_ephemeral: bool = False
    priority: int = 0


class _Message(Struct):
    id: str
    envelope: _Envelope


class _Batch(Struct):
    messages: list[_Message] = []


class _Accepted(Struct):
    id: str


class _Keyed(Struct, rename="camel"):
    envelope: _Envelope
    idempotency_key: str


class _Together(Struct):
    messages: list[_Keyed]


class _Problem(Struct):
    status: int


class _Result(Struct):
    id: str = ""
    error: _Problem | None = None


class _Results(Struct):
    results: list[_Result]


class _Acked(Struct, rename="camel"):
    message_ids: list[str]
    limit: int = 0


_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""One for all: to load the usual certificates for each device that comes would hold up the loop."""
_envelope = msgspec.json.Decoder(_Envelope).decode
_batch = msgspec.json.Decoder(_Batch).decode
_accepted = msgspec.json.Decoder(_Accepted).decode
_together = msgspec.json.Decoder(_Together).decode
_results = msgspec.json.Decoder(_Results).decode
_acked = msgspec.json.Decoder(_Acked).decode


def sealed(recipient: str, tag: str, size: int, *, express: bool = False, ephemeral: bool = False) -> bytes:
    """An envelope that carries ``tag``, and ``size`` bytes that only this tag has."""
    document: dict[str, object] = {"recipientId": recipient, "encryptedData": _payload(tag, size)}
    if express:
        document["priority"] = EXPRESS
    if ephemeral:
        document["isEphemeral"] = True
    return msgspec.json.encode(document)


def _payload(tag: str, size: int) -> bytes:
    noise = hashlib.shake_128(tag.encode()).digest(size)
    return f"{tag} {size} ".encode() + noise


def tag_of(data: str) -> str:
    """The tag that ``encryptedData`` carries; another word where a byte of it is not as it was sealed."""
    try:
        payload = base64.b64decode(data)
    except ValueError:
        return f"damaged {data[:40]!r}"
    tag, _, rest = payload.partition(b" ")
    size, _, _ = rest.partition(b" ")
    whole = size.isdigit() and payload == _payload(tag.decode(errors="replace"), int(size))
    return tag.decode() if whole else f"damaged {payload[:40]!r}"


class Recorder:
    """The history of a run, judged while it grows. All of its clients are on one event loop: the order is a fact."""

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """``tell`` is told of each violation as it is found."""
        self.history = h.History()
        self.judge = Judge(EPHEMERAL_SECONDS)
        self._tell = tell
        self._began = time.monotonic()

    def begin(self) -> None:
        """Time starts now."""
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def add(self, event: h.Event) -> None:
        at = self.now()
        self.history.add(at, event)
        known = len(self.judge.violations)
        self.judge.take(at, len(self.history) - 1, event)
        for violation in self.judge.violations[known:]:
            self._tell(f"{violation.promise}: {violation.text}")

    def note(self, who: str, text: str) -> None:
        self.add(h.Note(who, text))


class Recorded(httpx.AsyncBaseTransport):
    """Carries one user's requests, and records them. Every second one, by chance, has a connection of its own: a kept
    one stays with the node that it was made to."""

    def __init__(self, recorder: Recorder, user: str, chance: random.Random) -> None:
        self._recorder = recorder
        self._user = user
        self._chance = chance
        self._places: dict[str, tuple[str, int]] = {}
        """By key, the batch in which a message was first, and its place there."""
        self._kept = httpx.AsyncHTTPTransport(verify=_NO_TLS)
        self._fresh = httpx.AsyncHTTPTransport(verify=_NO_TLS, limits=httpx.Limits(max_keepalive_connections=0))

    async def aclose(self) -> None:
        await self._kept.aclose()
        await self._fresh.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == BATCH:
            return await self._carry_together(request)
        ops = [self._recorder.history.op() for _ in range(2 if request.url.path == NEXT else 1)]
        self._add(self._begins(request, *ops))
        try:
            response = await self._carry(request)
        except (httpx.TransportError, asyncio.CancelledError) as error:
            # It may have worked and it may not; also where the one who asked does not wait for it.
            self._add(_unknown(request, str(error) or type(error).__name__, *ops))
            raise
        self._add(self._answered(request, response, *ops))
        return response

    async def _carry(self, request: httpx.Request) -> httpx.Response:
        transport = self._kept if self._chance.random() < 0.5 else self._fresh
        response = await transport.handle_async_request(request)
        await response.aread()
        return response

    async def _carry_together(self, request: httpx.Request) -> httpx.Response:
        """Each message of a batch is a send. One that is sent again keeps the place that it had first."""
        messages = _together(request.content).messages
        ops = [self._recorder.history.op() for _ in messages]
        for number, (op, message) in enumerate(zip(ops, messages, strict=True)):
            batch, place = self._places.setdefault(message.idempotency_key, (messages[0].idempotency_key, number))
            self._add([_sending(op, message.envelope, batch, place)])
        try:
            response = await self._carry(request)
        except (httpx.TransportError, asyncio.CancelledError) as error:
            self._add([h.NotSent(op, str(error) or type(error).__name__) for op in ops])
            raise
        if response.is_success:
            results = _results(response.content).results
            self._add([_told(op, result) for op, result in zip(ops, results, strict=True)])
        else:
            self._add([h.NotSent(op, str(response.status_code)) for op in ops])
        return response

    def _add(self, events: Sequence[h.Event]) -> None:
        for event in events:
            self._recorder.add(event)

    def _begins(self, request: httpx.Request, op: int, fetch: int = 0) -> list[h.Event]:
        """``fetch``: the second operation of a request that acknowledges and fetches."""
        path = request.url.path
        if path == "/api/send":
            return [_sending(op, _envelope(request.content))]
        if path == "/api/messages":
            return [h.Fetching(op, self._user, int(request.url.params["limit"]), time.time())]
        acked = _acked(request.content)
        ids = tuple(acked.message_ids)
        acking = h.Acking(op, self._user, ids)
        if path == NEXT:
            return [acking, h.Fetching(fetch, self._user, acked.limit, time.time(), ids)]
        return [acking]

    def _answered(self, request: httpx.Request, response: httpx.Response, op: int, fetch: int = 0) -> list[h.Event]:
        path = request.url.path
        if not response.is_success:
            return _unknown(request, str(response.status_code), op, fetch)
        if path == "/api/send":
            return [h.Sent(op, _accepted(response.content).id, time.time())]
        if path == "/api/messages":
            return [h.Fetched(op, self._items(response.content))]
        if path == NEXT:
            return [h.Acked(op), h.Fetched(fetch, self._items(response.content))]
        return [h.Acked(op)]

    def _items(self, body: bytes) -> tuple[h.Item, ...]:
        try:
            batch = _batch(body).messages
        except msgspec.DecodeError as error:
            # Nobody can say which message it is, and nobody has sent it so.
            return (h.Item("one of a batch", f"damaged: {error}"),)
        return tuple(h.Item(one.id, self._tag(one.envelope)) for one in batch)

    def _tag(self, envelope: _Envelope) -> str:
        if envelope.recipient_id != self._user:
            return f"damaged: for {envelope.recipient_id}"
        return tag_of(envelope.encrypted_data)


def _sending(op: int, envelope: _Envelope, batch: str = "", place: int = 0) -> h.Sending:
    express, tag = envelope.priority >= EXPRESS, tag_of(envelope.encrypted_data)
    return h.Sending(op, envelope.recipient_id, tag, express, envelope.is_ephemeral, batch=batch, place=place)


def _told(op: int, result: _Result) -> h.Event:
    """What a batch says of one message."""
    return h.Sent(op, result.id, time.time()) if result.error is None else h.NotSent(op, str(result.error.status))


def _unknown(request: httpx.Request, why: str, op: int, fetch: int = 0) -> list[h.Event]:
    path = request.url.path
    if path == "/api/send":
        return [h.NotSent(op, why)]
    if path == "/api/messages":
        return [h.NotFetched(op, why)]
    return [h.NotAcked(op, why), *([h.NotFetched(fetch, why)] if path == NEXT else [])]
