"""A client that loses no mail: it retries a send under one key, and acknowledges only what is saved."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

import httpx
import msgspec
import websockets
from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from router import proxies
from router.client.errors import Refused, TokenRefused, Unreachable
from router.client.messages import Envelope, Received
from router.client.requests import (
    LONGEST_WAIT_SECONDS,
    PASSING,
    UNAUTHORIZED,
    Answer,
    Passing,
    Requests,
    Trouble,
    problem_of,
    refusal,
    seconds,
    words,
)
from router.client.tokens import Tokens, TokenSource
from router.clock import Clock, SystemClock
from router.ids import parse_key

PAGE = 50
TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
RETRY_BUDGET_SECONDS = 60.0
POLL_SECONDS = 300.0
"""How often to fetch although nothing was poked: a proxy between may have lost a poke, or the socket."""
TOKEN_EXPIRED = 4401
REPLACED = 4409
"""A newer connection of the user took the place of this one, which had not answered a ping (docs/http.md)."""
REPLACED_WAIT_SECONDS = 30.0
"""Longest wait after that; the shortest is half of it. So two slow clients that may not both be connected do not
replace each other more often."""
MAX_FRAME_BYTES = 4096
_JSON = {"content-type": "application/json"}
BATCH_MESSAGES = 256
BATCH_BYTES = 1_000_000
"""Of the envelopes in one request. The router takes four times as much, and a proxy in front of it may not."""
_NOT_SERVED = {404, 405}
"""What a router answers that does not have a route; it has done nothing."""
_NO_BATCH = _NOT_SERVED | {400, 413}
"""Statuses of a batch that say nothing of each message: one of them is not JSON, or a proxy lets no such body pass."""


class _CallersOwn(Exception):
    """Carries an error of the caller's own code past the handling of errors of the router and the network."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextlib.contextmanager
def _callers_own() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _CallersOwn(error) from error


def _callers(save: Save) -> Save:
    async def own(batch: Sequence[Received]) -> None:
        with _callers_own():
            await _saved(save, batch)

    return own


async def _saved(save: Save, batch: Sequence[Received]) -> None:
    saving = save(batch)
    if saving is not None:
        await saving


class _Batch(Struct):
    messages: list[Received] = []


class _Accepted(Struct):
    id: str


class _Keyed(Struct, rename="camel"):
    """One message of a batch."""

    envelope: msgspec.Raw
    idempotency_key: str


class _Problem(Struct):
    status: int
    detail: str = ""
    type: str = ""


class _Result(Struct):
    id: str = ""
    error: _Problem | None = None


class _Results(Struct):
    results: list[_Result]


_batch = msgspec.json.Decoder(_Batch).decode
_accepted = msgspec.json.Decoder(_Accepted).decode
_results = msgspec.json.Decoder(_Results).decode
_raw = msgspec.json.Decoder(msgspec.Raw).decode

Outcome = str | Refused | Unreachable
"""Of one message: the id under which it was accepted, or why it was not."""
Save = Callable[[Sequence[Received]], Awaitable[None] | None]
"""Returns once the messages are saved for good; a function or a coroutine function. May be given a message twice."""


class RouterClient:
    """One user's connection to a router, as an async context manager.

    ``token``, a function or a coroutine function, is called when a token is first needed, and when the router has
    refused the last one, which is then tried no more. What it raises ends the call that needs the token, except
    ``TokenUnavailable``. If a header cannot hold the token, the call raises ``Unauthorized``.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource,
        *,
        ws_url: str | None = None,
        budget_seconds: float = RETRY_BUDGET_SECONDS,
        trouble: Trouble = lambda _: None,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``url``: of the API; ``ws_url``: of the WebSocket, if it is not derived from ``url``. Transient failures are
        retried for ``budget_seconds``, and ``trouble`` is called with each. ``transport`` replaces httpx's own for
        requests; the WebSocket then uses no proxy either. Raises ``ConfigError`` if the environment names a proxy that
        cannot be used."""
        self._tokens = Tokens(token)
        self._ws_url = ws_url or url.replace("http", "ws", 1).rstrip("/") + "/connect"
        self._trouble = trouble
        self._clock = clock or SystemClock()
        self._chance = chance or random.Random()  # noqa: S311 - jitter, no secret
        self._has_next = True
        """As far as is known; a router of an older version has no ``/api/messages/next``."""
        self._has_batches = True
        """As far as is known; likewise ``/api/send/batch``."""
        if transport is None:
            self._proxy = proxies.for_socket(self._ws_url)
            proxies.for_http(url)
            self._http = proxies.client(base_url=url, timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS))
        else:
            self._proxy = None
            self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, transport=transport, trust_env=False)
        self._requests = Requests(
            self._http,
            self._tokens,
            budget_seconds=budget_seconds,
            trouble=trouble,
            clock=self._clock,
            chance=self._chance,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def send(self, envelope: bytes | Envelope, idempotency_key: str | None = None) -> str:
        """Send ``envelope``, as bytes its ProtoJSON, and return its id. However often it is retried, it is one message.

        Raises ``Refused``, ``Unreachable`` and, if the key is not valid, ``InvalidIdempotencyKey``.
        """
        key = secrets.token_hex(16) if idempotency_key is None else idempotency_key
        parse_key(key)
        headers = {**_JSON, "idempotency-key": key}
        try:
            return (await self._request("POST", "/api/send", _accepted, content=_json(envelope), headers=headers)).id
        except Unreachable as error:
            error.idempotency_key = key
            raise

    async def send_batch(
        self, envelopes: Sequence[bytes | Envelope], idempotency_keys: Sequence[str] | None = None
    ) -> list[Outcome]:
        """What became of each of ``envelopes``: an error where ``send`` would have raised it.

        They go in few requests, one after another, and arrive at each recipient in their order. Those that may be
        accepted later are sent again under their keys. Where the time budget ends, they and what is in later requests
        are ``Unreachable``. Raises ``InvalidIdempotencyKey`` before anything is sent.
        """
        keys = [secrets.token_hex(16) for _ in envelopes] if idempotency_keys is None else idempotency_keys
        for key in keys:
            parse_key(key)
        outcomes = list[Outcome]()
        for part in _parts([_Keyed(msgspec.Raw(_json(each)), key) for each, key in zip(envelopes, keys, strict=True)]):
            lost = next((each for each in outcomes if isinstance(each, Unreachable)), None)
            outcomes += await self._send_part(part) if lost is None else [lost] * len(part)
        return [_under_key(outcome, key) for outcome, key in zip(outcomes, keys, strict=True)]

    async def _send_part(self, part: Sequence[_Keyed]) -> list[Outcome]:
        deadline = self._requests.deadline()
        outcomes, wait = await self._send_together(part, deadline)
        failures = 0
        while left := [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Unreachable)]:
            failures += 1
            wait = max(wait, self._requests.wait(failures))
            if self._clock.monotonic() + wait > deadline:
                break
            self._trouble(str(outcomes[left[0]]))
            await self._clock.sleep(wait)
            again, wait = await self._send_together([part[number] for number in left], deadline)
            if not all(isinstance(outcome, Unreachable) for outcome in again):
                failures, deadline = 0, self._requests.deadline()
            for number, outcome in zip(left, again, strict=True):
                outcomes[number] = outcome
        return outcomes

    async def _send_together(self, part: Sequence[_Keyed], deadline: float) -> tuple[list[Outcome], float]:
        """The outcomes of one request, and after how many seconds those that are unreachable may be sent again."""

        def read(response: httpx.Response) -> tuple[list[Outcome], float]:
            results = _results(response.content).results
            if len(results) != len(part):
                raise msgspec.ValidationError("these are the results of another batch")
            return [self._outcome(result) for result in results], seconds(response.headers.get("retry-after"))

        if self._has_batches and len(part) > 1:
            try:
                return await self._requests.answer(
                    deadline,
                    "POST",
                    "/api/send/batch",
                    read,
                    content=msgspec.json.encode({"messages": part}),
                    headers=_JSON,
                )
            except Unreachable as error:
                return [error] * len(part), math.inf
            except Refused as error:
                if error.status not in _NO_BATCH:
                    return [error] * len(part), math.inf
                self._has_batches = error.status not in _NOT_SERVED
        return await self._send_singly(part), math.inf

    async def _send_singly(self, part: Sequence[_Keyed]) -> list[Outcome]:
        outcomes = list[Outcome]()
        for each in part:
            try:
                outcomes.append(await self.send(bytes(each.envelope), each.idempotency_key))
            except Refused as error:
                outcomes.append(error)
            except Unreachable as error:
                # None may overtake it.
                return outcomes + [error] * (len(part) - len(outcomes))
        return outcomes

    def _outcome(self, result: _Result) -> Outcome:
        if result.error is None:
            return result.id
        status, detail = result.error.status, result.error.detail
        if status in PASSING:
            return Unreachable(f"{self._http.base_url} does not accept it: {status}: {detail}")
        return Refused(status, detail, problem_of(result.error.type))

    async def fetch(self, limit: int = PAGE) -> list[Received]:
        """The oldest messages, at most ``limit``; they stay until they are acknowledged."""
        return (await self._request("GET", "/api/messages", _batch, params={"limit": limit})).messages

    async def acknowledge(self, ids: Sequence[str]) -> None:
        """Tell the router that these are saved, so that it deletes them."""
        body = msgspec.json.encode({"messageIds": list(ids)})
        await self._request("POST", "/api/messages/ack", lambda _: None, content=body, headers=_JSON)

    async def next(self, ids: Sequence[str], limit: int = PAGE) -> list[Received]:
        """``acknowledge`` and then ``fetch``, in one request where the router can."""
        page = await self._try_next(ids, limit) if ids and self._has_next else None
        if page is not None:
            return page
        if ids:
            await self.acknowledge(ids)
        return await self.fetch(limit)

    async def _try_next(self, ids: Sequence[str], limit: int) -> list[Received] | None:
        """``None`` where the router is an older one; then it is not asked again until the next connection."""
        body = msgspec.json.encode({"messageIds": list(ids), "limit": limit})
        try:
            return (await self._request("POST", "/api/messages/next", _batch, content=body, headers=_JSON)).messages
        except Refused as refused:
            if refused.status not in _NOT_SERVED:
                raise
            self._has_next = False
            return None

    async def drain(self, save: Save, limit: int = PAGE) -> int:
        """Pull, save and acknowledge until nothing is left; returns how many messages there were."""
        count = 0
        batch = await self.fetch(limit)
        while batch:
            await _saved(save, batch)
            count += len(batch)
            batch = await self.next([received.id for received in batch], limit)
        return count

    async def listen(
        self,
        save: Save,
        *,
        connected: Callable[[], None] = lambda: None,
        poked: Callable[[], None] = lambda: None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Drain on connecting, on every poke and every ``poll_seconds``, until cancelled; reconnects after every
        failure.

        Calls ``connected`` after each connect and ``poked`` on each poke. Pokes that come while it drains cause one
        more drain together. Raises ``Refused`` if the router refuses the connection or the token for good, and what
        the caller's own functions raise.
        """
        try:
            await self._listen(_callers(save), connected, poked, poll_seconds)
        except _CallersOwn as own:
            error = own.error
        # Raised outside the handler, so that ``_CallersOwn`` is not its context.
        raise error

    async def _listen(
        self, save: Save, connected: Callable[[], None], poked: Callable[[], None], poll_seconds: float
    ) -> NoReturn:
        failures = 0
        while True:
            began = self._clock.monotonic()
            wait, token = 0.0, ""
            try:
                socket, token = await self._handshake()
                async with socket:
                    self._has_next = True
                    with _callers_own():
                        connected()
                    await self._drain_when_wanted(socket, save, poked, poll_seconds)
            except Passing as error:
                self._trouble(f"{self._ws_url}: {error}")
                wait = error.seconds
            except (OSError, TimeoutError, websockets.WebSocketException, Unreachable) as error:
                if error is self._tokens.failure:
                    raise
                self._trouble(f"{self._ws_url}: {words(error)}")
                if _code(error) == TOKEN_EXPIRED:
                    self._tokens.refused(token)
                wait = self._wait_replaced() if _code(error) == REPLACED else 0.0
            # A socket that is closed soon after it opened counts as a failure.
            lasted = self._clock.monotonic() - began > LONGEST_WAIT_SECONDS
            failures = 1 if lasted else failures + 1
            await self._clock.sleep(max(wait, self._requests.wait(failures)))
            with contextlib.suppress(Unreachable):
                # Mail still arrives, if slowly, while only the WebSocket fails.
                await self.drain(save)

    async def _handshake(self) -> tuple[ClientConnection, str]:
        """A connection and its token, a new one where the first is refused. Raises ``Refused``, ``Passing`` and what
        the network raises."""
        try:
            return await self._open()
        except TokenRefused:
            return await self._open()

    async def _open(self) -> tuple[ClientConnection, str]:
        token = await self._requests.token()
        try:
            return await self._connect(token), token
        except websockets.InvalidStatus as error:
            answer = error.response
            problem = refusal(answer.status_code, bytes(answer.body or b""), "the router refuses the connection")
            if problem.status in PASSING:
                raise Passing(str(problem), seconds(answer.headers.get("retry-after"))) from error
            if problem.status == UNAUTHORIZED:
                self._tokens.refused(token)
            raise problem from error

    async def _drain_when_wanted(
        self, socket: ClientConnection, save: Save, poked: Callable[[], None], poll_seconds: float
    ) -> None:
        """Drain on every poke, and from time to time, until the socket is closed; raises the error that closed it."""
        may_wait = asyncio.Event()

        async def hear() -> None:
            try:
                async for _ in socket:
                    with _callers_own():
                        poked()
                    may_wait.set()
            finally:
                may_wait.set()

        async def look() -> None:
            while True:
                await self._clock.sleep(poll_seconds)
                may_wait.set()

        # A task of its own reads pokes: unread ones would pile up, cost a fetch each, and delay the close.
        hearing, looking = asyncio.create_task(hear()), asyncio.create_task(look())
        try:
            while not hearing.done():
                may_wait.clear()
                await self.drain(save)
                await may_wait.wait()
        finally:
            for task in (hearing, looking):
                task.cancel()
            await asyncio.gather(hearing, looking, return_exceptions=True)
        hearing.result()

    def _connect(self, token: str) -> connect:
        headers = {"Authorization": f"Bearer {token}"}
        return connect(
            self._ws_url, additional_headers=headers, max_size=MAX_FRAME_BYTES, compression=None, proxy=self._proxy
        )

    async def _request(self, method: str, path: str, read: Callable[[bytes], Answer], **request: Any) -> Answer:
        deadline = self._requests.deadline()
        return await self._requests.answer(deadline, method, path, lambda response: read(response.content), **request)

    def _wait_replaced(self) -> float:
        return self._chance.uniform(REPLACED_WAIT_SECONDS / 2, REPLACED_WAIT_SECONDS)


def _parts(messages: Sequence[_Keyed]) -> Iterator[Sequence[_Keyed]]:
    """Parts that a request takes, in their order. What is too large for one, or is not JSON, is a part of its own."""
    part, size = list[_Keyed](), 0
    for each in messages:
        length = len(bytes(each.envelope)) if _is_json(each.envelope) else BATCH_BYTES
        if part and (len(part) == BATCH_MESSAGES or size + length > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(each)
        size += length
    if part:
        yield part


def _is_json(envelope: msgspec.Raw) -> bool:
    try:
        _raw(envelope)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def _json(envelope: bytes | Envelope) -> bytes:
    return envelope.to_json() if isinstance(envelope, Envelope) else envelope


def _under_key(outcome: Outcome, key: str) -> Outcome:
    if not isinstance(outcome, Unreachable):
        return outcome
    # One for each message: they share what went wrong, but no key.
    own = Unreachable(str(outcome))
    own.idempotency_key = key
    return own


def _code(error: Exception) -> int | None:
    """With what the router closed the connection; ``None`` where it did not."""
    return error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd is not None else None
