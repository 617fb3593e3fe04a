"""A fixed budget of simulated runs, and every seed that ever found something (``seeds.txt``)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim.__main__ import trace
from tests.sim.plan import make
from tests.sim.run import run
from tests.sim.shrink import shrink

BUDGET = 250
GROUP = 25
SEEDS = Path(__file__).with_name("seeds.txt")


def known_seeds() -> list[int]:
    lines = SEEDS.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """Runs leave cycles behind, and collect none while they run."""
    yield
    gc.collect()


def holds(seed: int) -> None:
    verdict = run(seed)
    if verdict.violations:
        short = shrink(verdict, tries=100)
        pytest.fail(f"seed {seed}; again: python -m tests.sim --seed {seed} --shrink\n" + "\n".join(trace(short)))


@pytest.mark.parametrize("start", range(0, BUDGET, GROUP))
def test_every_promise_holds(start: int) -> None:
    for seed in range(start, start + GROUP):
        holds(seed)


@pytest.mark.parametrize("seed", known_seeds())
def test_what_once_failed_holds(seed: int) -> None:
    holds(seed)


def test_equal_plans_run_equally() -> None:
    for seed in (5, 17):
        first, other, second = run(seed), run(seed + 1), run(make(seed))
        assert (first.history.events, first.history.times) == (second.history.events, second.history.times)
        assert other.history.events != first.history.events
