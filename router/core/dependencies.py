"""Whether the services' dependencies work: told once when one stops working, and once when it works again.

``Outage`` is the state of one dependency and does no I/O. ``Dependencies`` keeps one for each, and ``watched`` puts a
component's calls through it: that is the one place where they are counted and told of.

    works --(a call fails)--> fails --(each call that failed works again, or nobody makes it any more)--> works
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast

from msgspec import Struct

from router.clock import Clock
from router.errors import RouterError, Unavailable
from router.messages import DeadLetter
from router.metrics import Metrics

T = TypeVar("T")
QUIET_SECONDS = 30.0
"""One that comes and goes is told of no more often."""
STALE_SECONDS = 30.0
"""A call that failed longer ago does not keep the outage from ending, where others work."""
PROBE = "probe"
PROBED_SECONDS = 10.0
"""The same, where the probe works. Work that fails is tried again after 5 s at the latest."""
UNANSWERED_SECONDS = 1.0
"""A call that its caller gives up after that long, or longer, was not answered."""
LOOK_SECONDS = 5.0
"""How often a dependency that fails is asked whether it works again."""
QUIET_LOOKS = 2
"""After this many looks without any answer, a dependency is asked whether it still works."""
ANSWER_SECONDS = 3.0
"""One that takes longer to answer that does not work."""
WAITS = frozenset({"receive"})
"""Calls that may take as long as they like."""
UNDONE = frozenset({"put"})
"""Calls that return what they have not done."""


class Place(Protocol):
    """Which dependency it is: ``router.config.places`` makes them."""

    @property
    def role(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def address(self) -> str: ...


class Reports(Protocol):
    """Who writes down, for people, what should never pass in silence. Nothing that is told holds data of users."""

    def outage(self, place: Place, error: str) -> None:
        """The dependency at ``place`` does not work from now on."""
        ...

    def outage_over(self, place: Place, seconds: float, failures: int) -> None:
        """It works again, after ``seconds`` in which ``failures`` calls failed."""
        ...

    def dead_letter(self, letter: DeadLetter) -> None:
        """A message was refused for good."""
        ...

    def bug(self, where: str, error: BaseException) -> None:
        """Something failed that should not have; ``where`` says in which work."""
        ...


class Silent:
    """``Reports`` for those who say by themselves what they met: commands and tests."""

    def outage(self, place: Place, error: str) -> None: ...
    def outage_over(self, place: Place, seconds: float, failures: int) -> None: ...
    def dead_letter(self, letter: DeadLetter) -> None: ...
    def bug(self, where: str, error: BaseException) -> None: ...


class Over(Struct, frozen=True):
    """What an outage was, once it is over."""

    seconds: float
    failures: int


class Outage:
    """Whether one dependency fails. Times are seconds, by ``Clock.monotonic``."""

    def __init__(self) -> None:
        self._failing: dict[str, float] = {}
        """By the names of calls that fail, when they did last."""
        self._since = 0.0
        self._back: float | None = None
        """When the first call worked after the last that failed."""
        self._failures = 0
        self._told = False
        self._told_at: float | None = None

    def __bool__(self) -> bool:
        return bool(self._failing)

    def failed(self, call: str, now: float) -> bool:
        """``call`` has failed; whether that is to be told."""
        if not self._failing:
            self._since, self._failures = now, 0
        self._failing[call] = now
        self._back = None
        self._failures += 1
        if self._told or (self._told_at is not None and now - self._told_at < QUIET_SECONDS):
            return False
        self._told, self._told_at = True, now
        return True

    def worked(self, call: str, now: float) -> Over | None:
        """``call`` has worked; returns the outage that it ends and that was told, if so."""
        if not self._failing:
            return None
        back = self._back = now if self._back is None else self._back
        self._failing.pop(call, None)
        stale = PROBED_SECONDS if call == PROBE else STALE_SECONDS
        self._failing = {name: at for name, at in self._failing.items() if now - at < stale}
        if self._failing or not self._told:
            return None
        self._told = False
        return Over(back - self._since, self._failures)


class Dependencies:
    """All of one process, each by its role."""

    def __init__(self, clock: Clock, metrics: Metrics, reports: Reports) -> None:
        self._clock = clock
        self._metrics = metrics
        self._reports = reports
        self._outages: dict[str, Outage] = {}
        self._probes: dict[str, Callable[[], Awaitable[None]]] = {}
        self._quiet: dict[str, int] = {}
        """In how many looks on end each one with a probe has answered nothing."""

    def watched(self, component: T, place: Place) -> T:
        """``component``, whose every call is told to the dependency at ``place``."""
        self._metrics.depends(place.role, place.backend)
        self._outages.setdefault(place.role, Outage())
        return cast(T, _Watched(component, place, self))

    def probed(self, role: str, probe: Callable[[], Awaitable[None]]) -> None:
        """``probe``, of a watched component, is asked while ``role`` fails, and while nobody calls it."""
        self._probes[role] = probe
        self._quiet[role] = 0

    def works(self, role: str) -> bool:
        """Whether none of the calls of this process to ``role`` fails."""
        return not self._outages.get(role)

    async def run(self) -> None:
        """Ask those that fail whether they work again, and those that nobody calls whether they still do, until
        cancelled. None is asked again before it has answered, or its time is up."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            await asyncio.gather(*(self._ask(role) for role in self._probes if self._is_due(role)))

    def _is_due(self, role: str) -> bool:
        self._quiet[role] += 1
        return bool(self._outages[role]) or self._quiet[role] >= QUIET_LOOKS

    async def _ask(self, role: str) -> None:
        with suppress(RouterError, TimeoutError):  # which are told where it is called
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._probes[role]()

    def failed(self, place: Place, call: str, error: str) -> None:
        """``call`` of the dependency at ``place`` has failed."""
        self._metrics.dependency_failed(place.role, place.backend)
        if self._outages[place.role].failed(call, self._clock.monotonic()):
            self._reports.outage(place, error)

    def worked(self, place: Place, call: str) -> None:
        """``call`` of the dependency at ``place`` was answered."""
        self._quiet[place.role] = 0
        outage = self._outages[place.role]
        if outage and (over := outage.worked(call, self._clock.monotonic())) is not None:
            self._reports.outage_over(place, over.seconds, over.failures)


class _Watched:
    """A component; there are four things that can become of a call:

    1. It is answered, also by a refusal: the dependency works.
    2. It fails, or takes too long by its own judgement: the dependency does not work.
    3. Its caller gives it up: it was not answered, unless the caller was in haste.
    4. It breaks on a bug: that says nothing of the dependency.
    """

    def __init__(self, component: Any, place: Place, dependencies: Dependencies) -> None:
        self._component = component
        self._place = place
        self._dependencies = dependencies

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._component, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            loop = asyncio.get_running_loop()
            since = loop.time()
            try:
                result = await method(*arguments, **named)
            except (Unavailable, TimeoutError) as error:
                if isinstance(error, Unavailable):
                    error.dependency = self._place.role
                self._dependencies.failed(self._place, name, str(error) or "no answer in time")
                raise
            except RouterError:
                self._dependencies.worked(self._place, name)
                raise
            except asyncio.CancelledError:
                waited = loop.time() - since
                if name not in WAITS and waited >= UNANSWERED_SECONDS:
                    self._dependencies.failed(self._place, name, f"no answer within {waited:.0f} s")
                raise
            if name in UNDONE and result:
                self._dependencies.failed(self._place, name, f"{len(result)} messages were not written")
            else:
                self._dependencies.worked(self._place, name)
            return result

        return call
