"""A seed or a plan to a verdict."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct

from tests.sim import history as h
from tests.sim.checker import Violation, judge
from tests.sim.history import History
from tests.sim.plan import Plan, make
from tests.sim.world import World


class Verdict(Struct, frozen=True):
    plan: Plan
    history: History
    violations: list[Violation]
    steps: int
    """Callbacks that ran."""
    seconds: float
    """Virtual ones."""
    calls: int = 0
    """To stores."""

    @property
    def requests(self) -> int:
        """By clients."""
        return sum(isinstance(event, h.Sending | h.Fetching | h.Acking) for event in self.history.events)

    @property
    def promises(self) -> set[str]:
        return {violation.promise for violation in self.violations}


def known_seeds(path: Path) -> list[int]:
    """The seeds that a file lists, one a line, each with what it found behind it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def run(plan: Plan | int, *, traced: bool = False) -> Verdict:
    """Simulate ``plan``, or the one of a seed, and judge what happened. ``traced``: the history tells more."""
    if isinstance(plan, int):
        plan = make(plan)
    world = _world(plan, traced=traced)
    with quiet_logs(world):
        history = world.run()
    found = judge(history, plan.ephemeral_seconds, plan.retention_seconds, plain=plan.plain, plan=plan)
    return Verdict(plan, history, found, world.loop.steps, world.loop.time(), world.weather.calls)


def _world(plan: Plan, *, traced: bool) -> World:
    if plan.topology != "vendors":
        return World(plan, traced=traced)
    from tests.sim.vendors.world import VendorWorld  # noqa: PLC0415 - the vendors' libraries take a second to load

    return VendorWorld(plan, traced=traced)


@contextmanager
def quiet_logs(world: World) -> Iterator[None]:
    """What the router logs is dropped; an exception that it logs is kept for the history."""

    def keep(_logger: Any, name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        error = event.get("exc_info")
        if name == "exception" or error:
            world.last_error = error if isinstance(error, BaseException) else sys.exc_info()[1]
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        structlog.configure(**before)
        if enabled:
            gc.enable()
