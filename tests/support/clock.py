"""A clock that a test holds in its hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from router.clock import MICROSECONDS

AHEAD_SECONDS = 10.0
"""Less than any lease of the default configuration lasts."""
STEP_SECONDS = 0.01
POLL_SECONDS = 0.001


class ManualClock:
    """``Clock`` whose time passes only by ``advance``; ``time`` (µs since 1970) may be set back."""

    def __init__(self, time: int = 1_790_000_000 * MICROSECONDS) -> None:
        self.time = time
        self._elapsed = 0
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def sleepers(self) -> int:
        """How many sleep."""
        return len(self._sleepers)

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self._elapsed / MICROSECONDS

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._elapsed + int(seconds * MICROSECONDS), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Let time pass and wake whoever has slept long enough."""
        self.time += int(seconds * MICROSECONDS)
        self._elapsed += int(seconds * MICROSECONDS)
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._elapsed]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._elapsed]
        for _, woken in sorted(due, key=lambda sleeper: sleeper[0]):
            if not woken.done():
                woken.set_result(None)


async def run_until(clock: ManualClock, condition: Callable[[], Awaitable[bool]], ahead: float = AHEAD_SECONDS) -> None:
    """Let ``clock`` run until ``condition`` holds; the caller bounds the real time.

    It runs as fast as the machine for ``ahead`` seconds, and from there on no faster than real time: what takes real
    time, such as an answer of a server, may be late, and still no lease runs out that nobody could renew.
    """
    lead = clock.monotonic() + ahead - time.monotonic()
    while not await condition():
        if clock.monotonic() - time.monotonic() < lead:
            clock.advance(STEP_SECONDS)
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(POLL_SECONDS)


async def ended(clock: ManualClock, *tasks: asyncio.Task[Any]) -> None:
    """Let ``clock`` run until ``tasks`` are done."""

    async def done() -> bool:
        return all(task.done() for task in tasks)

    await run_until(clock, done)
