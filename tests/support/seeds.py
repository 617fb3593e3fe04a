"""Seeds of the simulation in a test."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest

from tests.sim.__main__ import PLANS, trace
from tests.sim.run import run
from tests.sim.shrink import shrink

SHRINK_TRIES = 50


def every_promise_holds(topology: str, seeds: Iterable[int]) -> None:
    """Run each; fail with the shortened run of the first that breaks a promise."""
    try:
        for seed in seeds:
            verdict = run(PLANS[topology](seed))
            if verdict.violations:
                again = f"python -m tests.sim --topology {topology} --seed {seed} --shrink"
                short = trace(shrink(verdict, tries=SHRINK_TRIES))
                pytest.fail(f"seed {seed}; again: {again}\n" + "\n".join(short))
    finally:
        # Runs leave cycles behind, and collect none while they run.
        gc.collect()
