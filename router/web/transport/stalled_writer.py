"""Finds a peer that does not read what it is sent: closing would wait for it without end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class StalledWriter:
    """Checks at intervals whether a peer reads what is written to it. State: how many bytes were unsent at the last
    check."""

    __slots__ = ("_loop", "_seconds", "_timer", "_transport", "_unwritten")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """A peer that reads nothing for ``seconds`` is stalled."""
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._unwritten = 0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, stalled: Callable[[], None]) -> None:
        """Check at intervals until all is sent; calls ``stalled`` if nothing was read in between."""
        self._unwritten = self._transport.get_write_buffer_size()
        if self._timer is None and self._unwritten:
            self._timer = self._loop.call_later(self._seconds, self._look, stalled)

    def stop(self) -> None:
        """The connection has ended: check no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, stalled: Callable[[], None]) -> None:
        self._timer = None
        if 0 < self._unwritten <= self._transport.get_write_buffer_size():
            stalled()
        else:
            self.watch(stalled)
