"""A client that loses no mail: it retries a send under one key, and acknowledges only what is saved."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import httpx
import msgspec
import websockets
from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from router import proxies
from router.clock import Clock, SystemClock
from router.errors import RouterError, Unauthorized, Unavailable
from router.ids import parse_key
from router.retry import backoff

PAGE = 50
TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
RETRY_BUDGET_SECONDS = 60.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 5.0
REPLACED = 4409
"""A newer connection of the user took the place of this one, which had not answered a ping (docs/http.md)."""
REPLACED_WAIT_SECONDS = 30.0
"""Longest wait after that; the shortest is half of it. So two slow clients that may not both be connected do not
replace each other more often."""
MAX_FRAME_BYTES = 4096
_JSON = {"content-type": "application/json"}
_SENDABLE = re.compile(r"[!-~]+")
"""A token that a header can hold; only the router can say whether it is valid."""
NOBODY = "nothing listens there; is it running? `router serve` starts it"
_ALL_REFUSED = ("All connection attempts failed", "Multiple exceptions: [Errno 111]", "Multiple exceptions: [Errno 61]")
BATCH_MESSAGES = 256
BATCH_BYTES = 1_000_000
"""Of the envelopes in one request. The router takes four times as much, and a proxy in front of it may not."""
_PASSING = {408, 429, 500, 502, 503, 504}
"""Statuses after which a retry of the same request may succeed."""
_NOT_SERVED = {404, 405}
"""What a router answers that does not have a route; it has done nothing."""
_NO_BATCH = _NOT_SERVED | {400, 413}
"""Statuses of a batch that say nothing of each message: one of them is not JSON, or a proxy lets no such body pass."""


class Received(Struct, frozen=True):
    """A message as a fetch returns it."""

    id: str
    envelope: msgspec.Raw
    """Canonical ProtoJSON, byte by byte as the router sent it."""


class Refused(RouterError):
    """The router refuses the request for good; ``status`` and the problem's ``detail`` say why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class Unreachable(Unavailable):
    """The router gave no successful answer within the time budget."""


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
            await save(batch)

    return own


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
Answer = TypeVar("Answer")
Save = Callable[[Sequence[Received]], Awaitable[None]]
"""Returns once the messages are saved for good; may be given a message twice."""
Trouble = Callable[[str], None]
"""Called with a failure that is about to be retried."""


class RouterClient:
    """One user's connection to a router, as an async context manager.

    ``token`` is called for each request and connection, so that an expired token is replaced. If a header cannot hold
    the token, the call that needs it raises ``Unauthorized``.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
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
        self._token = token
        self._ws_url = ws_url or url.replace("http", "ws", 1).rstrip("/") + "/connect"
        self._budget_seconds = budget_seconds
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def send(self, envelope: bytes, idempotency_key: str | None = None) -> str:
        """Send ``envelope`` and return its id. However often the request is retried, it is one message.

        Raises ``Refused``, ``Unreachable`` and, if the key is not valid, ``InvalidIdempotencyKey``.
        """
        key = secrets.token_hex(16) if idempotency_key is None else idempotency_key
        parse_key(key)
        headers = {**_JSON, "idempotency-key": key}
        return (await self._request("POST", "/api/send", _accepted, content=envelope, headers=headers)).id

    async def send_batch(
        self, envelopes: Sequence[bytes], idempotency_keys: Sequence[str] | None = None
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
        for part in _parts([_Keyed(msgspec.Raw(each), key) for each, key in zip(envelopes, keys, strict=True)]):
            lost = next((each for each in outcomes if isinstance(each, Unreachable)), None)
            outcomes += await self._send_part(part) if lost is None else [lost] * len(part)
        return outcomes

    async def _send_part(self, part: Sequence[_Keyed]) -> list[Outcome]:
        deadline = self._clock.monotonic() + self._budget_seconds
        outcomes, wait = await self._send_together(part, deadline)
        failures = 0
        while left := [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Unreachable)]:
            failures += 1
            wait = max(wait, self._wait(failures))
            if self._clock.monotonic() + wait > deadline:
                break
            self._trouble(str(outcomes[left[0]]))
            await self._clock.sleep(wait)
            again, wait = await self._send_together([part[number] for number in left], deadline)
            if not all(isinstance(outcome, Unreachable) for outcome in again):
                failures, deadline = 0, self._clock.monotonic() + self._budget_seconds
            for number, outcome in zip(left, again, strict=True):
                outcomes[number] = outcome
        return outcomes

    async def _send_together(self, part: Sequence[_Keyed], deadline: float) -> tuple[list[Outcome], float]:
        """The outcomes of one request, and after how many seconds those that are unreachable may be sent again."""

        def read(response: httpx.Response) -> tuple[list[Outcome], float]:
            results = _results(response.content).results
            if len(results) != len(part):
                raise msgspec.ValidationError("these are the results of another batch")
            return [self._outcome(result) for result in results], _retry_after(response)

        if self._has_batches and len(part) > 1:
            try:
                return await self._answer(
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
        if status in _PASSING:
            return Unreachable(f"{self._http.base_url} does not accept it: {status}: {detail}")
        return Refused(status, detail)

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
            await save(batch)
            count += len(batch)
            batch = await self.next([received.id for received in batch], limit)
        return count

    async def listen(
        self, save: Save, *, connected: Callable[[], None] = lambda: None, poked: Callable[[], None] = lambda: None
    ) -> None:
        """Drain on connecting and on every poke, until cancelled; reconnects after every failure.

        Calls ``connected`` after each connect and ``poked`` on each poke. Pokes that come while it drains cause one
        more drain together. Raises ``Refused`` if the router refuses the token, and what the caller's own functions
        raise.
        """
        try:
            await self._listen(_callers(save), connected, poked)
        except _CallersOwn as own:
            error = own.error
        # Raised outside the handler, so that ``_CallersOwn`` is not its context.
        raise error

    async def _listen(self, save: Save, connected: Callable[[], None], poked: Callable[[], None]) -> NoReturn:
        failures = 0
        while True:
            replaced = False
            began = self._clock.monotonic()
            connecting = self._connect()
            try:
                async with connecting as socket:
                    self._has_next = True
                    with _callers_own():
                        connected()
                    await self._drain_on_pokes(socket, save, poked)
            except websockets.InvalidStatus as error:
                status = error.response.status_code
                if status not in _PASSING:
                    raise Refused(status, "the router refuses the connection") from error
                self._trouble(f"{self._ws_url}: {status}")
            except (OSError, TimeoutError, websockets.WebSocketException, Unreachable) as error:
                self._trouble(f"{self._ws_url}: {_words(error)}")
                replaced = (
                    isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == REPLACED
                )
            # A socket that is closed soon after it opened counts as a failure.
            lasted = self._clock.monotonic() - began > LONGEST_WAIT_SECONDS
            failures = 1 if lasted else failures + 1
            await self._clock.sleep(self._wait_replaced() if replaced else self._wait(failures))
            with contextlib.suppress(Unreachable):
                # Mail still arrives, if slowly, while only the WebSocket fails.
                await self.drain(save)

    async def _drain_on_pokes(self, socket: ClientConnection, save: Save, poked: Callable[[], None]) -> None:
        """Drain on every poke until the socket is closed; raises the error that closed it."""
        may_wait = asyncio.Event()

        async def hear() -> None:
            try:
                async for _ in socket:
                    with _callers_own():
                        poked()
                    may_wait.set()
            finally:
                may_wait.set()

        # A task of its own reads pokes: unread ones would pile up, cost a fetch each, and delay the close.
        hearing = asyncio.create_task(hear())
        try:
            while not hearing.done():
                may_wait.clear()
                await self.drain(save)
                await may_wait.wait()
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
        hearing.result()

    def _connect(self) -> connect:
        headers = {"Authorization": self._authorization()}
        return connect(
            self._ws_url, additional_headers=headers, max_size=MAX_FRAME_BYTES, compression=None, proxy=self._proxy
        )

    async def _request(self, method: str, path: str, read: Callable[[bytes], Answer], **request: Any) -> Answer:
        deadline = self._clock.monotonic() + self._budget_seconds
        return await self._answer(deadline, method, path, lambda response: read(response.content), **request)

    async def _answer(
        self, deadline: float, method: str, path: str, read: Callable[[httpx.Response], Answer], **request: Any
    ) -> Answer:
        failures = 0
        while True:
            failures += 1
            wait = self._wait(failures)
            headers = {**request.get("headers", {}), "authorization": self._authorization()}
            try:
                response = await self._http.request(method, path, **{**request, "headers": headers})
                if response.is_success:
                    return read(response)
            except httpx.TransportError as error:
                problem = _words(error)
            except (httpx.DecodingError, msgspec.MsgspecError, UnicodeDecodeError):
                problem = "the server that answers is not a router"
            else:
                if response.status_code not in _PASSING:
                    raise Refused(response.status_code, _detail(response))
                problem = f"{response.status_code}: {_detail(response)}"
                wait = max(wait, _retry_after(response))
            if self._clock.monotonic() + wait > deadline:
                raise Unreachable(f"{self._http.base_url} does not answer: {problem}")
            self._trouble(f"{self._http.base_url}: {problem}")
            await self._clock.sleep(wait)

    def _authorization(self) -> str:
        token = self._token()
        if not _SENDABLE.fullmatch(token):
            # A library would quote the token in its error, and the request would be retried in vain.
            raise Unauthorized(
                "the token is empty" if not token else "the token is not a JWT: it has invalid characters"
            )
        return f"Bearer {token}"

    def _wait_replaced(self) -> float:
        return self._chance.uniform(REPLACED_WAIT_SECONDS / 2, REPLACED_WAIT_SECONDS)

    def _wait(self, failures: int) -> float:
        return backoff(failures, self._chance, first=FIRST_WAIT_SECONDS, longest=LONGEST_WAIT_SECONDS)


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


def _words(error: Exception) -> str:
    # If several addresses all refuse, only these words in the libraries' errors say so.
    refused = any(isinstance(one, ConnectionRefusedError) for one in (error, error.__cause__))
    return NOBODY if refused or str(error).startswith(_ALL_REFUSED) else str(error) or type(error).__name__


def _detail(response: httpx.Response) -> str:
    try:
        document = response.json()
    except ValueError:
        return response.reason_phrase
    return str(document.get("detail", response.reason_phrase)) if isinstance(document, dict) else response.reason_phrase


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 0.0
