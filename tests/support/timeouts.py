"""Time-outs that end when a test says so, and not by how fast the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest


class Timeouts:
    """Every ``asyncio.timeout`` that is entered after this was made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._timeout = asyncio.timeout
        self._under_way: list[tuple[asyncio.Task[object] | None, float | None, asyncio.Timeout]] = []
        patch.setattr(asyncio, "timeout", self._noted)

    def end(self, seconds: float) -> None:
        """The time is up of what this task does, where it was to take no longer than ``seconds``."""
        for task, lasts, timeout in self._under_way:
            if (task, lasts) == (asyncio.current_task(), seconds):
                timeout.reschedule(0)

    def end_all(self, seconds: float) -> int:
        """The same of what any task does; returns how many there were."""
        ended = [timeout for _, lasts, timeout in self._under_way if lasts == seconds]
        for timeout in ended:
            timeout.reschedule(0)
        return len(ended)

    @asynccontextmanager
    async def _noted(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        async with self._timeout(seconds) as timeout:
            noted = (asyncio.current_task(), seconds, timeout)
            self._under_way.append(noted)
            try:
                yield timeout
            finally:
                self._under_way.remove(noted)
