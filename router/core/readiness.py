"""Readiness: whether this process can work, found by asking its dependencies. ``router.web.health`` serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from msgspec import Struct

from router.clock import Clock
from router.config.roles import Role
from router.core.dependencies import ANSWER_SECONDS
from router.errors import RouterError

T = TypeVar("T")
NEEDED_TO_PROCESS = (Role.INGRESS, Role.ONLINE, Role.COLD)
NEEDED_BY_API = (Role.INGRESS, Role.ONLINE, Role.COLD)
NEEDED_BY_SOCKETS = (Role.ONLINE,)
"""A process that does one of these is not ready while a role of it fails; tokens are needed by API and sockets."""
FRESH_SECONDS = 1.0
"""How long a result is reused: a flood of requests asks each dependency once a second."""
Probe = Callable[[], Awaitable[None]]
"""Raises ``RouterError`` while its dependency does not work."""
Failed = dict[str, str]
"""A dependency that does not work, and its kind."""


class State(Struct, frozen=True):
    """Whether something can work, and what keeps it from that."""

    draining: bool = False
    """It is about to stop."""
    failed: list[Failed] = []
    """The dependencies that do not work."""
    limited: list[str] = []
    """What is not served now. It is ready nevertheless."""

    @property
    def is_ready(self) -> bool:
        return not self.draining and not self.failed


class Shared(Generic[T]):
    """An answer that all share who ask while it is looked for, and ``FRESH_SECONDS`` later."""

    def __init__(self, ask: Callable[[], Awaitable[T]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._asking: asyncio.Task[T] | None = None
        self._found_at: float | None = None

    async def get(self) -> T:
        if self._asking is None or (self._asking.done() and not self._fresh()):
            self._asking = asyncio.create_task(self._find())
        return await asyncio.shield(self._asking)

    def _fresh(self) -> bool:
        return self._found_at is not None and self._clock.monotonic() - self._found_at < FRESH_SECONDS

    async def _find(self) -> T:
        found = await self._ask()
        self._found_at = self._clock.monotonic()
        return found


class Readiness:
    """What this process depends on. ``draining`` is set when it is about to stop."""

    def __init__(self, clock: Clock) -> None:
        self.draining = False
        self._probes: dict[tuple[str, str], Probe] = {}
        self._limits: list[Callable[[], str]] = []
        self._failed = Shared(self._ask, clock)

    def depends(self, dependency: str, kind: str, probe: Probe) -> None:
        """Add a check: this process is ready only while ``probe`` raises nothing."""
        self._probes[dependency, kind] = probe

    def limited(self, look: Callable[[], str]) -> None:
        """``look`` says what is not served now, or nothing. The process is ready nevertheless."""
        self._limits.append(look)

    async def state(self) -> State:
        """The dependencies are not asked while draining; it would change nothing."""
        if self.draining:
            return State(draining=True)
        return State(failed=await self._failed.get(), limited=[said for look in self._limits if (said := look())])

    async def _ask(self) -> list[Failed]:
        # All at once: one that does not answer must not use up the time of whoever asks.
        works = await asyncio.gather(*map(_works, self._probes.values()))
        names = [{"dependency": dependency, "kind": kind} for dependency, kind in self._probes]
        return [name for name, fine in zip(names, works, strict=True) if not fine]


async def _works(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await probe()
    except (RouterError, TimeoutError):
        return False
    return True
