"""RACES 45: clocks that are wrong by a month. Nothing is deleted by them, nothing is hidden, and order holds."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from router.clock import MICROSECONDS
from router.messages import Outcome
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.stores import Stores

MONTH = 31 * 86_400 * MICROSECONDS


def put_behind(late: Stage, right: Stage, *, measured: bool) -> None:
    """The clock of ``late`` is 40 days behind that of ``right``, for longer than it would take to believe it:
    ``measured``, since its start, with a store that has a clock; else since a step."""
    late.clock.time = right.clock.time - (40 * 86_400 * MICROSECONDS if measured else 0)
    late.factory.keeper.look()
    if measured:
        late.factory.keeper.measured(-40 * 86_400)
    for clock in (right.clock, late.clock):
        clock.advance(2 * 86_400)
    late.factory.keeper.look()
    if not measured:
        late.clock.time -= 40 * 86_400 * MICROSECONDS


class ClockContract:
    """For every online store and cold queue."""

    @pytest.mark.parametrize("up_seconds", [0, 7200, 2 * 86_400])
    async def test_a_clock_that_is_a_month_ahead_for_three_seconds_deletes_nothing(
        self, stage: Stage, up_seconds: int
    ) -> None:
        """RACES 45: neither mail nor the records of what was acknowledged; nothing is hidden, and order holds."""
        stage.clock.advance(up_seconds)
        await stage.connect(EVE)
        await stage.go("gone", keyed=True)
        await stage.queue.acknowledge(BOB, ["gone"])
        await stage.go("m1")
        assert await stage.go("hot", EVE) is Outcome.HOT
        for _ in range(2):
            await stage.sweeper.sweep()
            stage.clock.time += MONTH
            for _ in range(3):
                assert await stage.ids() == ["m1"]
                await stage.sweeper.sweep()
                stage.clock.advance(1)
            stage.clock.time -= MONTH
            await stage.sweeper.sweep()
        assert await stage.ids() == ["m1"]
        assert await stage.ids(EVE) == ["hot"]
        assert await stage.go("gone", keyed=True) is Outcome.DUPLICATE
        stage.clock.time += MONTH
        assert await stage.go("gone", keyed=True) is Outcome.DUPLICATE, "nor is an id forgotten while it lasts"
        assert await stage.go("m2") is Outcome.COLD
        stage.clock.time -= MONTH
        assert await stage.go("m3") is Outcome.COLD
        assert await stage.ids() == ["m1", "m2", "m3"]
        assert await stage.go("gone", keyed=True) is Outcome.DUPLICATE, "routing forgets no ids by it either"
        assert stage.count("router_messages_dropped_total", reason="retention") == 0
        assert stage.count("router_retention_held") == 0

    @pytest.mark.parametrize("up_seconds", [0, 7200, 2 * 86_400])
    async def test_a_clock_that_is_months_ahead_for_three_seconds_ends_no_wait_for_a_write_under_way(
        self, stage: Stage, up_seconds: int
    ) -> None:
        """RACES 45: what stands behind it in its lane would be fetched before it."""
        stage.clock.advance(up_seconds)
        message = stage.message("m1")
        (routed,) = await stage.route(message)
        await stage.go("m2")
        await stage.sweeper.sweep()
        stage.clock.time += 2 * MONTH
        for _ in range(3):
            assert await stage.ids() == []
            await stage.sweeper.sweep()
            stage.clock.advance(1)
        stage.clock.time -= 2 * MONTH
        assert await stage.ids() == []
        await stage.store(message, routed)
        assert await stage.ids() == ["m1", "m2"]

    @pytest.mark.parametrize("measured", [False, True])
    async def test_mail_of_a_clock_that_was_behind_is_not_deleted_when_it_is_put_right(
        self, stage: Stage, second: Stage, ahead: Stage, measured: bool
    ) -> None:
        """RACES 45: it was 40 days behind, for longer than it would take to believe it, since its start, with a store
        that has a clock, or since a step; the others were right."""
        put_behind(ahead, stage, measured=measured)
        for hour in range(4):
            await ahead.go(f"m{hour}")
            for clock in (stage.clock, ahead.clock):
                clock.advance(3600)
            await second.sweeper.sweep()
            await ahead.sweeper.sweep()
        ahead.clock.time += 40 * 86_400 * MICROSECONDS
        for _ in range(3):
            await ahead.sweeper.sweep()
            for clock in (stage.clock, ahead.clock):
                clock.advance(86_400)
            await second.sweeper.sweep()
        assert await stage.ids() == ["m0", "m1", "m2", "m3"]
        for _ in range(3):
            stage.clock.advance(10 * 86_400)
            await second.sweeper.sweep()
        assert await stage.ids() == []

    @pytest.mark.parametrize("measured", [False, True])
    async def test_what_left_by_a_clock_that_was_behind_is_remembered(
        self, stage: Stage, ahead: Stage, measured: bool
    ) -> None:
        """RACES 45: acknowledged, or dropped on its way to cold, by a clock that was 40 days behind, with a store that
        has a clock, or since a step. Redelivered, it does not come back."""
        put_behind(ahead, stage, measured=measured)
        await stage.connect()
        for id_ in ("plain", "keyed"):
            assert await stage.go(id_, keyed=id_ == "keyed") is Outcome.HOT
        await ahead.queue.acknowledge(BOB, ["plain", "keyed"])
        assert await stage.go("typing", ephemeral=True) is Outcome.HOT
        await ahead.migrator.migrate(BOB, online_too=True)
        ahead.clock.time += 40 * 86_400 * MICROSECONDS
        for span, remembered in ((1800, ["plain", "keyed", "typing"]), (20 * 3600, ["keyed"])):
            for clock in (stage.clock, ahead.clock):
                clock.advance(span)
            for process in (stage, ahead):
                await process.sweeper.sweep()
            for id_ in remembered:
                again = stage.message(id_, ephemeral=id_ == "typing", keyed=id_ == "keyed")
                (routed,) = await stage.route(again, attempt=2)
                assert routed.outcome is Outcome.DUPLICATE, id_
        assert await stage.ids() == []

    @pytest.mark.parametrize("known", ["by a step", "by the store", "to nobody"])
    @pytest.mark.parametrize("seconds", [7200, 31 * 86_400])
    async def test_what_was_acknowledged_by_a_clock_far_ahead_leaves_cold(
        self, stores: Stores, doubled: Stage, known: str, seconds: int
    ) -> None:
        """Whoever was to delete its copy has died; the date of the acknowledgement says that it is yet to come."""
        await doubled.connect()
        await doubled.go("m1")
        wrong = ManualClock(doubled.clock.time + seconds * MICROSECONDS)
        wrong.time -= seconds * MICROSECONDS if known == "by a step" else 0
        async with staged(stores, wrong, durability="write-through") as dies:
            if known == "by a step":
                wrong.time += seconds * MICROSECONDS
            elif known == "by the store":
                dies.factory.keeper.measured(seconds)
            assert await dies.online.ack(BOB, ["m1"]) == ["m1"]
        for _ in range(2):
            doubled.clock.advance(61)
            await doubled.sweeper.sweep()
        assert await doubled.in_cold() == []
        assert await doubled.go("m1") is Outcome.DUPLICATE

    async def test_what_was_acknowledged_just_now_is_somebody_elses_to_delete(self, doubled: Stage) -> None:
        await doubled.connect()
        await doubled.go("m1")
        assert await doubled.online.ack(BOB, ["m1"]) == ["m1"]
        doubled.clock.time -= 60 * MICROSECONDS
        assert await doubled.online.orphans(10) == []

    async def test_what_is_long_overdue_is_deleted_once_the_clock_was_even_for_a_day(
        self, stores: Stores, stage: Stage
    ) -> None:
        """RACES 45: as after a month without a sweeper, or where a process starts with a clock ahead; it is told of."""
        await stage.go("old")
        async with staged(stores, ManualClock(stage.clock.time + 2 * MONTH)) as later:
            with capture_logs() as logged:
                for hours in (0, 2, 20):
                    later.clock.advance(hours * 3600)
                    await later.sweeper.sweep()
                    assert await later.ids() == ["old"]
                assert later.count("router_retention_held") == 1
                later.clock.advance(3 * 3600)
                await later.sweeper.sweep()
            assert await later.ids() == []
            assert later.count("router_retention_held") == 0
        assert [line["event"].partition(":")[0] for line in logged] == [
            "retention waits",
            "retention deletes again what is past its time",
        ]

    async def test_a_clock_that_is_ahead_for_hours_deletes_nothing(self, stage: Stage) -> None:
        """RACES 45: neither what is overdue by it by weeks, nor what becomes due by it in these hours."""
        for number in range(3):
            await stage.go(f"m{number}")
            stage.clock.advance(3600)
        await stage.sweeper.sweep()
        with capture_logs() as logged:
            stage.clock.time += 30 * 86_400 * MICROSECONDS
            for _ in range(20):
                await stage.sweeper.sweep()
                stage.clock.advance(3600)
            stage.clock.time -= 30 * 86_400 * MICROSECONDS
            await stage.sweeper.sweep()
        assert await stage.ids() == ["m0", "m1", "m2"]
        assert [line["event"].partition(":")[0] for line in logged] == ["this machine's clock was set"] * 2
