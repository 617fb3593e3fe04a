"""RACES 44: what a master believes of the world outside, where writes before it were lost or went to another one."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from router.messages import Outcome, Queued
from tests.contract.stage import BOB, PAGE_BYTES, Socket, Stage, staged
from tests.redis.test_failover import paired, replicated, servers
from tests.support.clock import ManualClock
from tests.support.redis_servers import client
from tests.support.servers import Server

__all__ = ["servers"]
pytestmark = pytest.mark.anyio


async def came_to_cold(stage: Stage, id_: str) -> None:
    """By another process, of which this store has heard nothing, or has lost what it heard."""
    message = stage.message(id_)
    assert await stage.cold.put([Queued(message, stage.clock.now(), stage.clock.now())]) == []


async def new_reign(server: Server) -> None:
    await asyncio.to_thread(server.stop, signal.SIGKILL)
    await asyncio.to_thread(server.start)


async def poked(stage: Stage) -> None:
    """A heartbeat, and a sweep when that is due."""
    await stage.manager.renew()
    stage.clock.advance(3)
    await stage.sweeper.sweep()
    (user,) = await stage.online.hot_users("", 10)
    assert user.poked_at == stage.clock.now()


async def test_that_cold_is_empty_is_believed_for_a_minute(fragile: Stage) -> None:
    """A process that works on the old master brings mail to cold, and the new master never hears of it."""
    await fragile.connect()
    assert await fragile.ids() == []
    await came_to_cold(fragile, "m1")
    fragile.clock.advance(59)
    assert await fragile.ids() == []
    fragile.clock.advance(2)
    assert await fragile.ids() == ["m1"]


async def test_a_clock_that_was_ahead_makes_it_believed_no_longer(fragile: Stage) -> None:
    fragile.clock.advance(86_400)
    await fragile.connect()
    assert await fragile.ids() == []
    await came_to_cold(fragile, "m1")
    fragile.clock.advance(-86_400)
    assert await fragile.ids() == ["m1"]


async def test_a_user_who_fetches_pays_for_one_read_of_cold_a_minute(
    fragile: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = await fragile.connect()
    read, reads = fragile.cold.read, list[str]()

    async def counted(user: str, *bounds: object) -> object:
        reads.append(user)
        return await read(user, *bounds)  # type: ignore[arg-type]  # passes on what it was given

    monkeypatch.setattr(fragile.queue._cold, "read", counted)
    for second in range(300):
        fragile.clock.advance(1)
        await fragile.online.renew([phone])
        await fragile.go(f"m{second}")
        await fragile.queue.acknowledge(BOB, await fragile.ids())
    assert len(reads) == 5


async def test_a_master_that_comes_to_power_again_believes_nothing_of_its_first_reign(
    servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock
) -> None:
    """It is the same run of the server; what came to cold between its reigns, its predecessor did not tell in time."""
    async with paired("single", servers, tmp_path) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        assert await stage.ids() == []
        await asyncio.to_thread(replicated, pair.old)
        await asyncio.to_thread(pair.fail_over)
        await asyncio.to_thread(replicated, pair.new)
        await asyncio.to_thread(client(pair.old).execute_command, "REPLICAOF", "NO", "ONE")
        pair.lead(pair.old)
        await came_to_cold(stage, "m1")
        pair.cut(pair.old)
        assert await stage.ids() == ["m1"]


async def test_a_note_of_another_master_is_not_believed(
    servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock
) -> None:
    """Cold was read before the message came that only the old master heard of; for the new one nothing has changed."""
    async with paired("single", servers, tmp_path) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        version = (await stage.online.read(BOB, 50, PAGE_BYTES)).cold_version
        await asyncio.to_thread(replicated, pair.old)
        await came_to_cold(stage, "m1")
        await asyncio.to_thread(pair.fail_over)
        await stage.online.note_cold_empty(BOB, version)
        assert await stage.ids() == ["m1"]


async def test_whoever_is_connected_is_poked_in_a_new_reign(fragile: Stage, own_redis: Server) -> None:
    """Mail came to cold, and the poke for it was lost with the master that sent it; more came by way of that master
    when there was another one."""
    await fragile.manager.connect(BOB, Socket(), None)
    assert await fragile.ids() == []
    await came_to_cold(fragile, "m1")
    await new_reign(own_redis)
    await poked(fragile)
    assert await fragile.ids() == ["m1"]
    await fragile.queue.acknowledge(BOB, ["m1"])
    assert await fragile.ids() == []
    await came_to_cold(fragile, "m2")
    await fragile.manager.renew()
    assert await fragile.online.hot_users("", 10) == []
    fragile.clock.advance(50)
    await fragile.manager.renew()
    fragile.clock.advance(11)
    await poked(fragile)
    assert await fragile.ids() == ["m2"]
    await fragile.queue.acknowledge(BOB, ["m2"])
    assert await fragile.ids() == []
    fragile.clock.advance(50)
    await fragile.manager.renew()
    fragile.clock.advance(50)
    await fragile.manager.renew()
    assert await fragile.online.hot_users("", 10) == []


async def test_what_is_acknowledged_in_a_new_reign_does_not_come_back(fragile: Stage, own_redis: Server) -> None:
    """A migrator had copied it to cold, and the mark of that was lost: its tombstone must not be all that hides it."""
    await fragile.connect()
    (routed,) = await fragile.route(message := fragile.message("m1"))
    await new_reign(own_redis)
    assert await fragile.cold.put([Queued(message, routed.sequence, routed.queued_at)]) == []
    assert await fragile.ids() == ["m1"]
    await fragile.queue.acknowledge(BOB, ["m1"])
    assert (await fragile.in_cold(), await fragile.ids()) == ([], [])


async def test_a_copy_of_what_is_acknowledged_is_deleted_though_the_master_knows_of_none(fragile: Stage) -> None:
    """A process on the old master has moved it there since. It must not come back when its tombstone ends."""
    await fragile.connect()
    (routed,) = await fragile.route(message := fragile.message("m1"))
    await fragile.queue.acknowledge(BOB, ["m1"])
    assert await fragile.cold.put([Queued(message, routed.sequence, routed.queued_at)]) == []
    assert await fragile.ids() == []
    fragile.clock.advance(61)
    await fragile.sweeper.sweep()
    assert await fragile.in_cold() == []


async def test_a_cold_write_that_nobody_does_any_more_holds_nothing_up(fragile: Stage, own_redis: Server) -> None:
    """It was done, told of, and its message acknowledged, in the second that was lost."""
    (lost,) = await fragile.route(fragile.message("m1"))
    assert lost.outcome is Outcome.COLD
    await new_reign(own_redis)
    await fragile.connect()
    assert await fragile.go("m2") is Outcome.HOT
    assert await fragile.ids() == [], "its pipeline may have still to write it"
    fragile.clock.advance(601)
    assert await fragile.ids() == ["m2"]


async def test_a_cold_write_of_this_reign_is_waited_for(fragile: Stage) -> None:
    message = fragile.message("m1")
    (routed,) = await fragile.route(message)
    await fragile.connect()
    assert await fragile.go("m2") is Outcome.HOT
    fragile.clock.advance(86_400)
    assert await fragile.ids() == []
    await fragile.store(message, routed)
    assert await fragile.ids() == ["m1", "m2"]
