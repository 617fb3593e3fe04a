"""A Redis that may evict drops any key at any time: what it dropped is gone, and nothing else with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.backends.redis.keys import PARTS
from router.messages import Outcome
from tests.contract.stage import BOB, Stage, moved_by_a_wrong_clock, staged
from tests.support.clock import ManualClock
from tests.support.stores_redis import RedisStores

pytestmark = pytest.mark.anyio


async def evict(stage: Stage, part: str) -> None:
    key = stage.online._keys.of(BOB)[PARTS.index(part)]  # type: ignore[attr-defined]
    await stage.online._client.run([("DEL", key)])  # type: ignore[attr-defined]


async def filled(stage: Stage) -> None:
    """Mail in cold and in hot, a tombstone of each kind, and a copy that is owed."""
    await stage.go("cold 1")
    await stage.go("cold 2")
    await stage.connect()
    for id_ in ("hot 1", "hot 2", "hot 3"):
        await stage.go(id_)
    await stage.go("gone", keyed=True)
    await stage.queue.acknowledge(BOB, ["gone", "hot 1"])
    await stage.online.ack(BOB, ["cold 1"])
    await stage.go("typing", ephemeral=True)


async def days_pass(stage: Stage, days: int) -> None:
    stage.clock.advance(days * 86_400)
    for _ in range(10):
        await stage.sweeper.sweep()


@pytest.mark.parametrize("part", PARTS)
async def test_the_rest_goes_on(stage: Stage, part: str) -> None:
    await filled(stage)
    await evict(stage, part)
    hot = [] if part in "qb" else ["hot 2", "hot 3", "typing"]
    acked = [] if part != "i" else ["cold 1"]
    assert await stage.ids() == [*acked, "cold 2", *hot]
    await stage.connect()
    assert await stage.go("new") is Outcome.HOT
    assert await stage.ids() == [*acked, "cold 2", *hot, "new"]
    await stage.queue.acknowledge(BOB, await stage.ids())
    assert await stage.ids() == []
    stage.clock.advance(61)
    for _ in range(3):
        await stage.sweeper.sweep()
    owed = ["cold 1"] if part == "o" else []  # what was owed is found out within a day
    assert (await stage.ids(), await stage.in_cold(), await stage.hot()) == ([], owed, [])
    totals = await stage.online.totals(BOB)
    assert (totals.messages, totals.users) == (0, 0)


@pytest.mark.parametrize("part", PARTS)
async def test_nothing_is_left_for_ever(stage: Stage, part: str) -> None:
    await filled(stage)
    await evict(stage, part)
    for days in (2, 1):
        await days_pass(stage, days)
    assert "cold 1" not in await stage.in_cold(), "it was acknowledged"
    for days in (31, 33, 33):
        await days_pass(stage, days)
    prefix = stage.factory.config.online.key_prefix
    (_, left) = (await stage.online._client.run([("SCAN", 0, "MATCH", f"{prefix}:*", "COUNT", 100_000)]))[0]  # type: ignore[attr-defined]
    assert left == [f"{prefix}:id:gone".encode()], "which the server drops itself, after a day by its own clock"


@pytest.mark.parametrize("parts", ["q", "b", "qb", "m", "i", "qbmi", "".join(PARTS)])
async def test_write_through_loses_nothing(tmp_path: Path, stores: RedisStores, clock: ManualClock, parts: str) -> None:
    """The copies in cold are found, in their order, though hot was believed to hold all."""
    async with staged(stores, clock, durability="write-through") as stage:
        await stage.connect()
        assert await stage.ids() == []
        for id_ in ("m1", "m2", "m3"):
            assert await stage.go(id_) is Outcome.HOT
        for part in parts:
            await evict(stage, part)
        assert await stage.ids() == ["m1", "m2", "m3"]
        await stage.queue.acknowledge(BOB, ["m1", "m2", "m3"])
        assert (await stage.ids(), await stage.in_cold()) == ([], [])


async def test_a_migration_lease_of_a_clock_that_was_ahead_keeps_no_user(stage: Stage) -> None:
    await moved_by_a_wrong_clock(stage)
    for seconds in (61, 3601, 3601, 61):
        stage.clock.advance(seconds)
        await stage.sweeper.sweep()
    prefix = stage.factory.config.online.key_prefix
    (_, left) = (await stage.online._client.run([("SCAN", 0, "MATCH", f"{prefix}:*", "COUNT", 100_000)]))[0]  # type: ignore[attr-defined]
    assert left == []
