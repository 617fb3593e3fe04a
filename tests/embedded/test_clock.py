"""What a file knows of the time, which has no clock of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.backends.embedded.backend import EmbeddedBackend
from router.clock import MICROSECONDS
from tests.contract.stage import BOB, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
DAY = 86_400
BEHIND = 40 * DAY * MICROSECONDS


@pytest.mark.parametrize("down_days", [0, 3])
async def test_a_process_that_starts_with_a_clock_that_is_behind(tmp_path: Path, down_days: int) -> None:
    """RACES 45: the one before it was sure of the time; its mail is not deleted when the clock is put right."""
    true = ManualClock()
    async with staged(EmbeddedStores(tmp_path), true) as before:
        true.advance(2 * 3600)
        await (await opened(before.factory, EmbeddedBackend)).keeper().look()
    true.advance(down_days * DAY)
    behind = ManualClock(true.time - BEHIND)
    async with staged(EmbeddedStores(tmp_path), behind) as wrong:
        await wrong.go("m1")
        behind.advance(2 * 3600)
        await (await opened(wrong.factory, EmbeddedBackend)).keeper().look()
        await wrong.go("m2")
    async with staged(EmbeddedStores(tmp_path), true) as right:
        for _ in range(3):
            true.advance(DAY)
            await right.sweeper.sweep()
        assert await right.ids() == ["m1", "m2"]
        true.advance(31 * DAY)
        await right.sweeper.sweep()
        assert await right.ids() == []


async def test_a_process_that_was_down_dates_mail_by_its_clock(tmp_path: Path) -> None:
    """The time that the file knows is the least that it can be, and no more than that."""
    clock = ManualClock()
    async with staged(EmbeddedStores(tmp_path), clock) as before:
        clock.advance(2 * 3600)
        await (await opened(before.factory, EmbeddedBackend)).keeper().look()
    clock.advance(10 * DAY)
    async with staged(EmbeddedStores(tmp_path), clock) as stage:
        await stage.go("m1")
        (queued,) = (await stage.cold.read(BOB, 1, 1000)).messages
        assert queued.queued_at == clock.now()


async def test_a_process_that_starts_with_a_clock_that_is_ahead(tmp_path: Path) -> None:
    """RACES 45: for a day it deletes what was due by the time that the file knows, and nothing that the clock adds."""
    clock = ManualClock()
    async with staged(EmbeddedStores(tmp_path), clock) as before:
        for id_, days in (("m1", 0.5), ("m2", 29.4)):
            await before.go(id_)
            clock.advance(days * DAY)
        await (await opened(before.factory, EmbeddedBackend)).keeper().look()
    ahead = ManualClock(clock.time + DAY * MICROSECONDS)
    async with staged(EmbeddedStores(tmp_path), ahead) as wrong:
        for _ in range(10):
            ahead.advance(3600)
            await wrong.sweeper.sweep()
        assert await wrong.ids() == ["m2"]
        ahead.advance(DAY)
        await wrong.sweeper.sweep()
        assert await wrong.ids() == []
