"""Calls to Google's services, each with a time-out, repeated within a budget where that can help.

These times concern the network, as the library's time-outs do: the event loop measures them, not the router's clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import grpc
from msgspec import Struct

from router.errors import Refused, RouterError, Unavailable
from router.retry import backoff

T = TypeVar("T")

CALL_SECONDS = 4.0
"""Time-out of a call."""
BUDGET_SECONDS = 6.0
"""No call is repeated later than this after its first attempt. The core waits longer than this and one more call."""
FIRST_PAUSE_SECONDS = 0.04
LONGEST_PAUSE_SECONDS = 1.0


class Patience(Struct, frozen=True):
    """How long to wait, in seconds."""

    call: float = CALL_SECONDS
    budget: float = BUDGET_SECONDS


UNKNOWN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.CANCELLED,
    }
)
"""The call may have been carried out, or not."""
REFUSED = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE})
"""The same call can never succeed."""
TRANSIENT = UNKNOWN | {grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED}

_REASONS = {
    grpc.StatusCode.PERMISSION_DENIED: "the credentials lack a role",
    grpc.StatusCode.UNAUTHENTICATED: "the credentials are not accepted",
    grpc.StatusCode.NOT_FOUND: "it does not exist; run `router setup`",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "a quota is used up",
}


def pause(attempt: int, chance: random.Random) -> float:
    """Seconds to wait after try number ``attempt`` (from 1)."""
    return backoff(attempt, chance, first=FIRST_PAUSE_SECONDS, longest=LONGEST_PAUSE_SECONDS)


def translate(service: str, code: grpc.StatusCode, details: str) -> RouterError:
    """The router's error for a failed call to ``service``."""
    reason = _REASONS.get(code, code.name.lower().replace("_", " "))
    kind = Refused if code in REFUSED else Unavailable
    return kind(f"{service}: {reason} ({details[:300]})" if details else f"{service}: {reason}")


async def call(
    service: str,
    attempt: Callable[[float], Awaitable[T]],
    chance: random.Random,
    *,
    repeated: Collection[grpc.StatusCode] = TRANSIENT,
    seconds: float = CALL_SECONDS,
    budget: float = BUDGET_SECONDS,
) -> T:
    """Return the answer of ``attempt``, which is called with its time-out, ``seconds``. After one of the codes in
    ``repeated`` it is called again, until ``budget`` seconds have passed.

    Raises ``Refused`` where the call can never succeed, else ``Unavailable``.
    """
    loop = asyncio.get_running_loop()
    until, tries = loop.time() + budget, 0
    while True:
        tries += 1
        try:
            return await attempt(seconds)
        except grpc.aio.AioRpcError as error:
            wait = pause(tries, chance)
            if error.code() not in repeated or loop.time() + wait > until:
                raise translate(service, error.code(), error.details() or "") from error
        await asyncio.sleep(wait)
