"""The clocks of the nodes: they go alike, show different times, and may be set."""

from __future__ import annotations

import contextvars

from router.clock import MICROSECONDS
from tests.sim.loop import SimLoop

START = 1_790_000_000
"""Seconds since 1970 at which each run begins."""


class NodeClock:
    """``Clock`` of one node: virtual time and an offset of its own, in seconds."""

    def __init__(self, loop: SimLoop, offset: float = 0.0, behind: float = 0.0) -> None:
        self._loop = loop
        self.offset = offset
        self.behind = behind
        """How far it will be behind at most, in a jump."""

    def earliest(self) -> int:
        """What it may show before a call is answered: it may be in a jump by then, or out of it."""
        return self.now() - int(self.behind * MICROSECONDS)

    def now(self) -> int:
        return int((START + self._loop.time() + self.offset) * MICROSECONDS)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await self._loop.pause(seconds)


CALLED_AT: contextvars.ContextVar[int] = contextvars.ContextVar("CALLED_AT")


class CallClock:
    """The clock of what runs on a server: the time that its caller's clock showed at the call (µs since 1970)."""

    def now(self) -> int:
        return CALLED_AT.get()

    def monotonic(self) -> float:
        raise AssertionError("a store measures no span")

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(f"a store does not sleep for {seconds} s")
