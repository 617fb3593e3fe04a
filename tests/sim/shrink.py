"""A run that fails, made short: what can be left out while the same promise is still broken is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from tests.sim.plan import Plan
from tests.sim.run import Verdict, run

T = TypeVar("T")


def shrink(verdict: Verdict, tries: int = 400) -> Verdict:
    """The shortest failing run that is found within so many runs; it breaks the promise that broke first."""
    promise = verdict.violations[0].promise

    def fails(plan: Plan) -> Verdict | None:
        nonlocal tries
        tries -= 1
        found = run(plan)
        return found if promise in found.promises else None

    best = verdict
    improved = True
    while improved and tries > 0:
        improved = False
        for smaller in _smaller(best.plan):
            if tries <= 0:
                break
            found = fails(smaller)
            if found is not None:
                best, improved = found, True
                break
    return best


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Plans with something left out, the boldest first."""
    change: Callable[..., Plan] = lambda **more: msgspec.structs.replace(plan, **more)  # noqa: E731 - a short name
    for name in ("faults", "sessions", "chains", "calls", "net"):
        for kept in _without(getattr(plan, name)):
            yield change(**{name: kept})
    for index, chain in enumerate(plan.chains):
        for steps in _without(chain.steps):
            if steps:
                slimmer = msgspec.structs.replace(chain, steps=steps)
                yield change(chains=(*plan.chains[:index], slimmer, *plan.chains[index + 1 :]))
    for name, plain in (("latency", 0.0), ("skew", 0.0), ("duplicates", 0.0), ("lost_pokes", 0.0), ("poison", 0)):
        if getattr(plan, name) != plain:
            yield change(**{name: plain})
    if plan.shuffled:
        yield change(shuffled=False)
    for index, session in enumerate(plan.sessions):
        for name in ("sloppy", "slow"):
            if getattr(session, name):
                plainer = msgspec.structs.replace(session, **{name: 0.0})
                yield change(sessions=(*plan.sessions[:index], plainer, *plan.sessions[index + 1 :]))


def _without(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """``items`` without all of them, without halves, quarters, … and without each one."""
    length = len(items)
    while length:
        for start in range(0, len(items), length):
            yield (*items[:start], *items[start + length :])
        length //= 2
