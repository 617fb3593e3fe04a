"""Watches whether the dependencies work, and reports each outage when it begins and when it ends.

``DependencyOutage`` is the state of one dependency and does no I/O. ``Dependencies`` keeps one for each dependency.
``watched`` wraps a component so that every call to it is counted here; nothing else counts or logs failed calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast

from msgspec import Struct

from router.clock import Clock
from router.errors import Refused, RouterError, Unavailable
from router.messages import DeadLetter
from router.metrics import Metrics

T = TypeVar("T")
QUIET_SECONDS = 30.0
"""Least time between two reports of an outage of one dependency."""
STALE_SECONDS = 30.0
"""When another call works, a failure that is older than this no longer keeps the outage going."""
PROBE = "probe"
PROBED_SECONDS = 10.0
"""The same when the probe works: shorter, since work that fails is tried again after at most 5 s."""
UNANSWERED_SECONDS = 1.0
"""If its caller cancels a call after this time or later, the call counts as failed."""
LOOK_SECONDS = 5.0
"""How often to probe a dependency that fails."""
QUIET_LOOKS = 2
"""Probe a dependency that works after this many times ``LOOK_SECONDS`` without an answer to any call."""
ANSWER_SECONDS = 3.0
"""Time-out of a probe."""
WAITS = frozenset({"receive"})
"""Calls that wait for work, and so may take any time."""
UNDONE = frozenset({"put", "publish"})
"""Calls that return what they could not do: messages, or for each message its error or ``None``."""


class Place(Protocol):
    """Names one dependency; ``router.config.roles`` makes them."""

    @property
    def role(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def address(self) -> str: ...


class Reports(Protocol):
    """Reports events that operators must see. No report holds data of users."""

    def outage(self, place: Place, error: str) -> None:
        """The dependency at ``place`` has stopped working."""
        ...

    def outage_over(self, place: Place, seconds: float, failures: int) -> None:
        """It works again, after ``seconds`` in which ``failures`` calls failed."""
        ...

    def dead_letter(self, letter: DeadLetter) -> None:
        """A message was refused for good."""
        ...

    def bug(self, where: str, error: BaseException) -> None:
        """An unexpected error in the activity ``where``."""
        ...


class Silent:
    """``Reports`` for commands and tests, which show errors themselves."""

    def outage(self, place: Place, error: str) -> None: ...
    def outage_over(self, place: Place, seconds: float, failures: int) -> None: ...
    def dead_letter(self, letter: DeadLetter) -> None: ...
    def bug(self, where: str, error: BaseException) -> None: ...


class Over(Struct, frozen=True):
    """How long an outage took, and how many calls failed in it."""

    seconds: float
    failures: int


class DependencyOutage:
    """Whether one dependency fails. Times are seconds, by ``Clock.monotonic``."""

    def __init__(self) -> None:
        self._failing: dict[str, float] = {}
        """By name of a failing call: when it failed last."""
        self._since = 0.0
        self._back: float | None = None
        """When the first call worked after the last failure."""
        self._failures = 0
        self._reported = False
        self._reported_at: float | None = None

    def __bool__(self) -> bool:
        return bool(self._failing)

    def failed(self, call: str, now: float) -> bool:
        """Record that ``call`` has failed. Returns whether to report an outage."""
        if not self._failing:
            self._since, self._failures = now, 0
        self._failing[call] = now
        self._back = None
        self._failures += 1
        if self._reported or (self._reported_at is not None and now - self._reported_at < QUIET_SECONDS):
            return False
        self._reported, self._reported_at = True, now
        return True

    def worked(self, call: str, now: float) -> Over | None:
        """Record that ``call`` has worked. Returns the outage if this ends it and it was reported."""
        if not self._failing:
            return None
        back = self._back = now if self._back is None else self._back
        self._failing.pop(call, None)
        stale = PROBED_SECONDS if call == PROBE else STALE_SECONDS
        self._failing = {name: at for name, at in self._failing.items() if now - at < stale}
        if self._failing or not self._reported:
            return None
        self._reported = False
        return Over(back - self._since, self._failures)


class Dependencies:
    """All dependencies of one process, by their roles."""

    def __init__(self, clock: Clock, metrics: Metrics, reports: Reports) -> None:
        self._clock = clock
        self._metrics = metrics
        self._reports = reports
        self._outages: dict[str, DependencyOutage] = {}
        self._probes: dict[str, Callable[[], Awaitable[None]]] = {}
        self._quiet: dict[str, int] = {}
        """By role: how many times ``LOOK_SECONDS`` have passed without an answer to any call."""

    def watched(self, component: T, place: Place) -> T:
        """``component``, wrapped so that the outcome of every call counts for the dependency at ``place``."""
        self._metrics.depends(place.role, place.backend, lambda: self.works(place.role))
        self._outages.setdefault(place.role, DependencyOutage())
        return cast(T, _Watched(component, place, self))

    def probed(self, role: str, probe: Callable[[], Awaitable[None]]) -> None:
        """Call ``probe``, of a watched component, while ``role`` fails, and while nothing else calls it."""
        self._probes[role] = probe
        self._quiet[role] = 0

    def works(self, role: str) -> bool:
        """Whether no call of this process to ``role`` is failing."""
        return not self._outages.get(role)

    async def run(self) -> None:
        """Until cancelled, probe the dependencies that fail and those that nothing calls. The next round begins when
        each probe has answered or timed out."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            await asyncio.gather(*(self._ask(role) for role in self._probes if self._is_due(role)))

    def _is_due(self, role: str) -> bool:
        self._quiet[role] += 1
        return bool(self._outages[role]) or self._quiet[role] >= QUIET_LOOKS

    async def _ask(self, role: str) -> None:
        with suppress(RouterError, TimeoutError):  # the wrapper of the component has counted them
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._probes[role]()

    def failed(self, place: Place, call: str, error: str) -> None:
        """Count a failed ``call`` of the dependency at ``place``, and report an outage that it begins."""
        self._metrics.dependency_failed(place.role, place.backend)
        if self._outages[place.role].failed(call, self._clock.monotonic()):
            self._reports.outage(place, error)

    def worked(self, place: Place, call: str) -> None:
        """Count an answered ``call`` of the dependency at ``place``, and report the end of an outage."""
        self._quiet[place.role] = 0
        outage = self._outages[place.role]
        if outage and (over := outage.worked(call, self._clock.monotonic())) is not None:
            self._reports.outage_over(place, over.seconds, over.failures)


class _Watched:
    """A component whose calls are counted. A call can end in four ways:

    1. It returns, or raises another ``RouterError``, such as a refusal: the dependency works.
    2. It raises ``Unavailable`` or ``TimeoutError``: the dependency does not work.
    3. Its caller cancels it: the dependency does not work, if the caller waited ``UNANSWERED_SECONDS``.
    4. It raises anything else, through a bug: that says nothing about the dependency.
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
            undone = [each for each in result or () if each and not isinstance(each, Refused)] if name in UNDONE else []
            if undone:
                self._dependencies.failed(self._place, name, f"{len(undone)} messages were not written")
            else:
                self._dependencies.worked(self._place, name)
            return result

        return call
