"""The checks that every request of a user passes, on all routes: its token, the budget of work, the limits of its
body."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.auth.verifier import Authenticator
from router.core import work_budget
from router.core.work_budget import WorkBudget
from router.errors import InvalidRequest
from router.web.bearer_tokens import from_authorization
from router.web.headers import Headers, headers_of
from router.web.problems import BodyTooLarge, BodyTooSlow, UnsupportedMediaType
from router.web.transport.scope import ARRIVED, PAYER

JSON = "application/json"
MAX_VALUES = 10_000
"""A body with more values is slow to parse, and no client sends one: an envelope has six values, an acknowledgement one
for each id."""
FEW_VALUES = 100
LARGE_UNITS = 64
"""An answer that costs this much, 256 KiB, waits for its turn: while it is sent, no other request is served."""


class UserRequest:
    """A request whose user is known."""

    __slots__ = ("_body_seconds", "_receive", "call", "headers", "scope", "user")

    def __init__(
        self, scope: Scope, receive: Receive, headers: Headers, call: work_budget.Call, body_seconds: float
    ) -> None:
        self.scope = scope
        self.headers = headers
        self.call = call
        self.user = call.user
        self._receive = receive
        self._body_seconds = body_seconds

    async def body(self, limit: int, what: str) -> bytes:
        """The body, bounded in size and time; ``what`` says what may have ``limit`` bytes.

        A missing Content-Type counts as JSON. The caller charges the work, by ``spend``.
        """
        kind = self.headers.get("content-type")
        if kind is not None and kind != JSON and kind.partition(";")[0].strip().lower() != JSON:
            raise UnsupportedMediaType(f"send the body as {JSON}")
        if (self.headers.get("content-encoding") or "identity").lower() != "identity":
            raise UnsupportedMediaType("send the body without a Content-Encoding")
        length = self.headers.get("content-length") or ""
        if length.isdecimal() and int(length) > limit:
            raise BodyTooLarge(f"the body has {length} bytes, but the limit is {limit}: {what}")
        return await self._arrival(limit, what)

    async def _arrival(self, limit: int, what: str) -> bytes:
        if ARRIVED in self.scope:
            return await self._read(limit, what)
        # While a slow body arrives, it holds no share of the work and delays no other request.
        self.call.pause()
        try:
            async with asyncio.timeout(self._body_seconds):
                return await self._read(limit, what)
        except TimeoutError as error:
            raise BodyTooSlow(f"the body did not arrive within {self._body_seconds:g} s") from error

    async def _read(self, limit: int, what: str) -> bytes:
        chunks, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(f"the body has more than {limit} bytes, which is the limit: {what}")
            chunks.append(chunk)
            if more:
                await self.call.rest(len(chunk))
        return b"".join(chunks)

    async def spend(self, body: bytes, units: int) -> None:
        """Return when it is the turn of this body and of the ``units`` that it asks for. Raises ``TooMuchWork``."""
        await self.call.spend(work_budget.of_body(body, _values(body)) + units)
        self.scope.pop(PAYER, None)


Handler = Callable[[UserRequest], Awaitable[Response]]


class UserEndpoint:
    """A handler of requests with a token, as an ASGI application. All routes of users go through it: it charges what a
    request costs."""

    __slots__ = ("_authenticator", "_body_seconds", "_handler", "_work")

    def __init__(self, handler: Handler, authenticator: Authenticator, budget: WorkBudget, body_seconds: float) -> None:
        """A body that has not arrived within ``body_seconds`` is refused."""
        self._handler = handler
        self._authenticator = authenticator
        self._work = budget
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        principal = await self._authenticator.authenticate(from_authorization(headers))
        # However the request ends, the part of its body that arrived was read, and is charged.
        scope[PAYER] = partial(self._work.charge_bytes, principal.user)
        call = await self._work.begin(principal.user)
        try:
            response = await self._handler(UserRequest(scope, receive, headers, call, self._body_seconds))
            if units := len(response.body) // work_budget.ANSWER_BYTES:
                call.charge(units)
                if units >= LARGE_UNITS:
                    await call.turn(units)
            await response(scope, receive, send)
        finally:
            call.end()


def _values(body: bytes) -> int:
    """Count the values: a comma stands before each but the first of an object or a list. Raises ``InvalidRequest``."""
    values = sum(_count(body, mark) for mark in (b",", b"{", b"["))
    if values > MAX_VALUES:
        raise InvalidRequest(f"the body has more than {MAX_VALUES} values: send only the headers of the request")
    return values


def _count(body: bytes, mark: bytes) -> int:
    """If there are few, searching for the next one is far faster than counting: 12 µs for a large envelope, not 800."""
    at = body.find(mark)
    for found in range(FEW_VALUES):
        if at < 0:
            return found
        at = body.find(mark, at + 1)
    return body.count(mark)
