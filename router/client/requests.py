"""The requests of a client: each with a token, and repeated while it may still succeed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct

from router.client.errors import Refused, TokenRefused, TokenUnavailable, Unreachable
from router.client.tokens import Tokens
from router.clock import Clock
from router.retry import backoff

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.2, 5.0
PASSING = {408, 429, 500, 502, 503, 504}
"""Statuses after which a retry of the same request may succeed."""
UNAUTHORIZED = 401
NOBODY = "nothing listens there; is it running? `router serve` starts it"
_ALL_REFUSED = ("All connection attempts failed", "Multiple exceptions: [Errno 111]", "Multiple exceptions: [Errno 61]")
_PROBLEMS = "urn:sealed-router:problem:"

Answer = TypeVar("Answer")
Trouble = Callable[[str], None]
"""Called with a failure that is about to be retried."""


class Passing(Exception):
    """Another try may succeed, after ``seconds`` at the earliest."""

    def __init__(self, problem: str, seconds: float = 0.0) -> None:
        super().__init__(problem)
        self.seconds = seconds


class Requests:
    """Holds no state of its own but the connections of ``http`` and the token of ``tokens``."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        tokens: Tokens,
        *,
        budget_seconds: float,
        trouble: Trouble,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._http = http
        self._tokens = tokens
        self._budget_seconds = budget_seconds
        self._trouble = trouble
        self._clock = clock
        self._chance = chance

    def deadline(self) -> float:
        """When a request that begins now is given up, by the monotonic clock."""
        return self._clock.monotonic() + self._budget_seconds

    def wait(self, failures: int) -> float:
        """Seconds before the next try, after this many failures in a row."""
        return backoff(failures, self._chance, first=FIRST_WAIT_SECONDS, longest=LONGEST_WAIT_SECONDS)

    async def answer(
        self, deadline: float, method: str, path: str, read: Callable[[httpx.Response], Answer], **request: Any
    ) -> Answer:
        """What ``read`` makes of a successful answer; it raises an error of msgspec where that is none of a router.

        Raises ``Refused``, after ``deadline`` ``Unreachable``, and what the token function raises.
        """
        failures = 0
        while True:
            failures += 1
            try:
                return await self._attempt(method, path, read, **request)
            except Passing as error:
                problem, wait = str(error), max(error.seconds, self.wait(failures))
            if self._clock.monotonic() + wait > deadline:
                raise Unreachable(f"{self._http.base_url} does not answer: {problem}")
            self._trouble(f"{self._http.base_url}: {problem}")
            await self._clock.sleep(wait)

    async def _attempt(
        self, method: str, path: str, read: Callable[[httpx.Response], Answer], **request: Any
    ) -> Answer:
        """One request, and the same with a new token where the first is refused. Raises ``Refused``, ``Passing``."""
        try:
            response = await self._response(method, path, **request)
            if response.status_code == UNAUTHORIZED:
                response = await self._response(method, path, **request)
            if response.is_success:
                return read(response)
        except (httpx.DecodingError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Passing("the server that answers is not a router") from error
        problem = refusal(response.status_code, response.content, response.reason_phrase)
        if response.status_code in PASSING:
            raise Passing(str(problem), seconds(response.headers.get("retry-after")))
        raise problem

    async def _response(self, method: str, path: str, **request: Any) -> httpx.Response:
        token = await self.token()
        headers = {**request.pop("headers", {}), "authorization": f"Bearer {token}"}
        try:
            response = await self._http.request(method, path, headers=headers, **request)
        except httpx.TransportError as error:
            raise Passing(words(error)) from error
        if response.status_code == UNAUTHORIZED:
            self._tokens.refused(token)
        return response

    async def token(self) -> str:
        """The token. Raises ``Passing`` where the token function can give none now."""
        try:
            return await self._tokens.current()
        except TokenUnavailable as error:
            raise Passing(f"no token: {error}") from error


class _Described(Struct):
    detail: str = ""
    type: str = ""


_described = msgspec.json.Decoder(_Described).decode


def refusal(status: int, content: bytes, otherwise: str) -> Refused:
    """What a refusal says; ``otherwise`` is its detail where its body is not a problem document."""
    try:
        described = _described(content)
        detail, problem = described.detail or otherwise, problem_of(described.type)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # A proxy's own page.
        detail, problem = otherwise, ""
    return TokenRefused(detail) if status == UNAUTHORIZED else Refused(status, detail, problem)


def problem_of(type_: str) -> str:
    """The stable end of a problem's type; empty where it is none of a router."""
    return type_.removeprefix(_PROBLEMS) if type_.startswith(_PROBLEMS) else ""


def seconds(retry_after: str | None) -> float:
    """What the field says; 0 where it is missing, or a date."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0


def words(error: Exception) -> str:
    """What ``error`` of a connection means to a person."""
    # If several addresses all refuse, only these words in the libraries' errors say so.
    refused = any(isinstance(one, ConnectionRefusedError) for one in (error, error.__cause__))
    return NOBODY if refused or str(error).startswith(_ALL_REFUSED) else str(error) or type(error).__name__
