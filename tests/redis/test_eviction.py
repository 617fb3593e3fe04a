"""A Redis that may evict drops any key at any time: what it dropped is gone, and nothing else with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.backends.redis.keys import PARTS
from router.messages import Outcome
from tests.contract.bounds import LIMIT, has_room
from tests.contract.stage import BOB, Stage, moved_by_a_wrong_clock, staged
from tests.support.clock import ManualClock
from tests.support.stores_redis import RedisStores

pytestmark = pytest.mark.anyio


async def evict(stage: Stage, part: str) -> None:
    key = stage.online.state.keys.of(BOB)[PARTS.index(part)]  # type: ignore[attr-defined]
    await stage.online.state.client.run([("DEL", key)])  # type: ignore[attr-defined]


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
async def test_mail_that_was_not_evicted_is_still_served(stage: Stage, part: str) -> None:
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
async def test_keys_of_a_user_expire_after_an_eviction(stage: Stage, part: str) -> None:
    await filled(stage)
    await evict(stage, part)
    for days in (2, 1):
        await days_pass(stage, days)
    assert "cold 1" not in await stage.in_cold(), "it was acknowledged"
    for days in (31, 33, 33):
        await days_pass(stage, days)
    prefix = stage.factory.config.online.key_prefix
    (_, left) = (await stage.online.state.client.run([("SCAN", 0, "MATCH", f"{prefix}:*", "COUNT", 100_000)]))[0]  # type: ignore[attr-defined]
    assert left == []


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
    (_, left) = (await stage.online.state.client.run([("SCAN", 0, "MATCH", f"{prefix}:*", "COUNT", 100_000)]))[0]  # type: ignore[attr-defined]
    assert left == []


@pytest.mark.parametrize("part", [*PARTS, "qbmi", "".join(PARTS)])
async def test_what_was_evicted_takes_no_bytes(stores: RedisStores, clock: ManualClock, part: str) -> None:
    """Once what is left of it is acknowledged, and cold was found empty."""
    async with staged(stores, clock, limits={"queue_bytes": LIMIT}) as stage:
        await filled(stage)
        for one in part:
            await evict(stage, one)
        await stage.ids()
        await stage.go("new", size=100)
        await stage.queue.acknowledge(BOB, [id_ for id_ in await stage.ids() if id_ != "new"])
        stage.clock.advance(11)
        await stage.online.purge(100, stage.clock.now())
        assert await stage.ids() == ["new"]
        await has_room(stage, LIMIT - 100)


async def test_what_nobody_reported_as_gone_from_cold_gives_its_bytes_back(
    stores: RedisStores, clock: ManualClock
) -> None:
    """It is found by its age; what an earlier version recorded took none, and gives none back."""
    async with staged(stores, clock, limits={"queue_bytes": LIMIT}) as stage:
        await stage.go("lost", size=300)
        await stage.go("earlier", size=200)
        record = stage.online.state.keys.of(BOB)[PARTS.index("i")]  # type: ignore[attr-defined]
        meta = stage.online.state.keys.of(BOB)[PARTS.index("m")]  # type: ignore[attr-defined]
        client = stage.online.state.client  # type: ignore[attr-defined]
        (kept,) = await client.run([("HGET", record, b"=earlier")])
        await client.run([("HSET", record, b"=earlier", kept[:8]), ("HINCRBY", meta, "z", -200)])
        await has_room(stage, LIMIT - 300)
        await stage.go("rest", size=100)
        await stage.queue.acknowledge(BOB, ["earlier"])
        await has_room(stage, LIMIT - 400)
        await stage.cold.delete(BOB, ["lost"])
        stage.clock.advance(20 * 86_400)
        await stage.queue.acknowledge(BOB, ["rest"])
        await stage.go("new", size=100)
        await has_room(stage, LIMIT - 400)
        await days_pass(stage, 12)
        await has_room(stage, LIMIT - 100)
