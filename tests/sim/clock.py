"""The clocks of the nodes: they go alike, show different times, and may be set."""

from __future__ import annotations

import contextvars

from router.clock import MICROSECONDS
from tests.sim.loop import SimLoop

START = 1_790_000_000
"""Seconds since 1970 at which each run begins."""


class NodeClock:
    """``Clock`` of one node: virtual time and an offset of its own, in seconds."""

    def __init__(self, loop: SimLoop, offset: float = 0.0) -> None:
        self._loop = loop
        self._offsets = [(loop.time(), offset)]
        """Since when it has which offset; the last one is that of now."""

    @property
    def offset(self) -> float:
        return self._offsets[-1][1]

    @offset.setter
    def offset(self, seconds: float) -> None:
        self._offsets.append((self._loop.time(), seconds))

    def shown_since(self, began: float) -> tuple[float, float]:
        """The earliest and the latest time (seconds since 1970) that it has shown since ``began``, in virtual time."""
        ends = [*(at for at, _ in self._offsets[1:]), self._loop.time()]
        spans = [
            (max(at, began) + offset, end + offset)
            for (at, offset), end in zip(self._offsets, ends, strict=True)
            if end >= began
        ]
        return START + min(first for first, _ in spans), START + max(last for _, last in spans)

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
