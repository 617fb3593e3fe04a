"""A clock that a test holds in its hand."""

from __future__ import annotations

import asyncio

from router.clock import MICROSECONDS


class ManualClock:
    """``Clock`` whose time passes only by ``advance``; ``time`` (µs since 1970) may be set back."""

    def __init__(self, time: int = 1_790_000_000 * MICROSECONDS) -> None:
        self.time = time
        self._elapsed = 0
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []

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
