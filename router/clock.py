"""Clocks and tasks. Every component is handed these, so that a test can set the time and choose the schedule."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Protocol

MICROSECONDS = 1_000_000
"""Microseconds in a second. Points in time are integers in µs since 1970 (UTC); spans are seconds."""


class Clock(Protocol):
    """A source of time."""

    def now(self) -> int:
        """The server's wall clock in µs since 1970 (UTC). It may step in either direction."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment in the past. It never steps, so spans within a process are measured with it."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds`` by the monotonic clock."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Tasks(Protocol):
    """Starts background tasks; its owner also ends them."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start ``work`` now and return its task. If it fails, that is reported, never swallowed."""
        ...


def apart(before: int, after: int, theirs: int) -> float:
    """How many seconds this clock is ahead of another, whose ``theirs`` (µs) was read between ``before`` and ``after``
    (µs of this clock). 0 if the time between these two can explain the difference.
    """
    if before <= theirs <= after:
        return 0.0
    return ((before if theirs < before else after) - theirs) / MICROSECONDS
