"""A worker's side of the connection to its parent."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import msgspec

from router.clock import Clock
from router.core.readiness import Readiness, Shared, State
from router.errors import Unavailable
from router.workers.link import Link

STATE_SECONDS = 4.0
"""Longest time that the parent may take to ask all workers."""


class Member:
    """Knows whether all workers of the service are ready, as an async context manager. On a shared port, any of them is
    asked for all."""

    def __init__(self, link: Link, own: Readiness, clock: Clock) -> None:
        self._link = link
        self._own = own
        self._unit = Shared(self._ask, clock)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._link)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def state(self) -> State:
        if self._own.draining:
            return State(draining=True)
        return await self._unit.get()

    async def _ask(self) -> State:
        try:
            async with asyncio.timeout(STATE_SECONDS):
                return msgspec.convert(await self._link.ask("state"), State)
        except (Unavailable, TimeoutError):
            return State(failed=[{"dependency": "workers", "kind": "parent"}])
