"""A run that fails, made short: what can be left out while the same promise is still broken is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from tests.sim.plan import Plan
from tests.sim.run import Verdict, run

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)
PLAIN = {"latency": 0.0, "skew": 0.0, "duplicates": 0.0, "lost_pokes": 0.0, "poison": 0, "shuffled": False}


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
    for name in ("faults", "sessions", "chains", "calls", "net"):
        for kept in _without(getattr(plan, name)):
            yield _changed(plan, name, kept)
    for index, chain in enumerate(plan.chains):
        for steps in _without(chain.steps):
            if steps:
                yield _changed(plan, "chains", _with(plan.chains, index, _changed(chain, "steps", steps)))
    yield from _plainer(plan)


def _plainer(plan: Plan) -> Iterator[Plan]:
    for name, plain in PLAIN.items():
        if getattr(plan, name) != plain:
            yield _changed(plan, name, plain)
    for index, session in enumerate(plan.sessions):
        for name in ("sloppy", "slow"):
            if getattr(session, name):
                yield _changed(plan, "sessions", _with(plan.sessions, index, _changed(session, name, 0.0)))


def _changed(part: S, name: str, value: object) -> S:
    return msgspec.structs.replace(part, **{name: value})


def _with(items: Sequence[T], index: int, item: T) -> tuple[T, ...]:
    return (*items[:index], item, *items[index + 1 :])


def _without(items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """``items`` without all of them, without halves, quarters, … and without each one."""
    length = len(items)
    while length:
        for start in range(0, len(items), length):
            yield (*items[:start], *items[start + length :])
        length //= 2
