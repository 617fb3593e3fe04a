"""Time and tasks, handed in from outside, so that a test can hold the clock and choose the schedule."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Protocol

MICROSECONDS = 1_000_000
"""Microseconds in a second. Points in time are integers in µs since 1970 (UTC); spans are seconds."""


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> int:
        """The server's wall clock in µs since 1970 (UTC). It may step in either direction."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment in the past. It never steps: spans within a process are measured by it."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``, whatever the wall clock does meanwhile."""
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
    """Who starts background work; whoever starts it also ends it."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start ``work`` now and return its task; its failure is reported, never swallowed."""
        ...


def apart(before: int, after: int, theirs: int) -> float:
    """How many seconds this clock is ahead, where theirs (µs) was read between ``before`` and ``after``.

    Whatever can be explained by the time that the answer took is none.
    """
    if before <= theirs <= after:
        return 0.0
    return ((before if theirs < before else after) - theirs) / MICROSECONDS
