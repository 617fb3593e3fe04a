"""The clock of tests, while something takes real time."""

from __future__ import annotations

import time

import pytest

from tests.support.clock import STEP_SECONDS, ManualClock, run_until

pytestmark = pytest.mark.anyio


async def test_run_until_bounds_how_far_a_manual_clock_runs_ahead() -> None:
    """Else leases run out, on a machine that is fast or busy, while their holders wait for an answer."""
    clock, looks = ManualClock(), 0

    async def looked_often() -> bool:
        nonlocal looks
        looks += 1
        return looks > 100

    began = time.monotonic()
    await run_until(clock, looked_often, ahead=0.2)
    assert 0.2 <= clock.monotonic() < 0.2 + 2 * STEP_SECONDS + time.monotonic() - began
