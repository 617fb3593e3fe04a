"""Clocks of nodes apart: seen while it runs, and said once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from router.clock import MICROSECONDS
from router.core.clocks import LOOK_SECONDS, ClockWatch
from router.errors import Unavailable
from router.interfaces import OnlineStore
from router.metrics import Metrics
from router.service import _Service
from router.timekeeping import Timekeeper
from tests.contract.stage import until
from tests.support.clock import ManualClock
from tests.support.stores_simulated import simulated_redis_stores
from tests.worlds.service import serving

pytestmark = pytest.mark.anyio


class Store:
    """An online store whose clock is a test's."""

    def __init__(self) -> None:
        self.ahead: list[float | None] = []
        """What it finds, look by look; ``None``: it cannot be asked."""

    async def compare_clocks(self) -> float:
        ahead = self.ahead.pop(0)
        if ahead is None:
            raise Unavailable("simulated")
        return ahead


async def test_clocks_that_come_apart_are_told_of_once_and_again_when_they_agree() -> None:
    store, clock, metrics = Store(), ManualClock(), Metrics()
    store.ahead = [0.5, -30.0, -31.0, None, 0.0, 40.0]
    with capture_logs() as lines:
        watch = asyncio.create_task(ClockWatch(cast(OnlineStore, store), clock, Timekeeper(clock), metrics).run())
        while store.ahead:
            await until(lambda: clock.sleepers > 0)
            clock.advance(LOOK_SECONDS)
            await until(lambda: clock.sleepers > 0)
        watch.cancel()
        await asyncio.wait([watch])
    assert [line.get("seconds_ahead") for line in lines] == [-30.0, None, 40.0]
    assert "agree again" in lines[1]["event"]
    assert metrics.registry.get_sample_value("router_clock_ahead_seconds") == 40


async def test_a_process_does_not_wait_for_a_store_that_does_not_say_what_time_it_is() -> None:
    store, clock = Store(), ManualClock()
    store.ahead = [None, 40 * 86_400.0]
    keeper = Timekeeper(clock)
    watch = ClockWatch(cast(OnlineStore, store), clock, keeper, Metrics())
    with capture_logs():
        await watch.begin()
        assert keeper.deleting_at() == 0
        await watch.begin()
    assert keeper.deleting_at() == clock.now() - 40 * 86_400 * MICROSECONDS


async def test_a_service_knows_the_time_of_its_store_before_it_routes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 45: otherwise mail dated by a clock a month behind would be deleted as soon as the clock is put right."""
    known: list[int] = []
    start = _Service._start_processing

    async def look(self: _Service) -> None:
        known.append(self._factory.keeper.deleting_at())
        await start(self)

    monkeypatch.setattr(_Service, "_start_processing", look)
    with simulated_redis_stores(tmp_path) as stores:
        async with serving(stores, looks_at_clocks=True):
            pass
    assert known
    assert all(known), "it has had a second look"
