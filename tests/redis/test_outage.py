"""The pipeline while Redis is away: mail goes cold, is announced, and keeps its order when Redis is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.stage import BOB, EVE, Socket, Stage, staged
from tests.redis.conftest import TIMEOUT_SECONDS
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually
from tests.support.redis_servers import Watched
from tests.support.servers import Server
from tests.support.stores_redis import RedisStores

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_redis_releases")]
TURN_SECONDS = 60.0


@asynccontextmanager
async def running(stage: Stage) -> AsyncIterator[None]:
    """A pipeline and the sockets of this process at work."""
    pipeline = await stage.factory.pipeline()
    work = [asyncio.create_task(pipeline.run()), asyncio.create_task(stage.manager.run())]
    try:
        async with asyncio.timeout(TURN_SECONDS):
            yield
    finally:
        for task in work:
            task.cancel()
        await asyncio.wait(work)
        await pipeline.hand_back()


async def send(stage: Stage, *ids: str, user: str = BOB) -> None:
    for id_ in ids:
        await stage.producer.publish([stage.message(id_, user)])


def backlog(stage: Stage, count: int) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        found = await stage.producer.backlog()
        return found is not None and found.messages == count

    return holds


def poked(stage: Stage, socket: Socket, more_than: int) -> Callable[[], Awaitable[bool]]:
    """With a sweeper at work: a poke that was sent while the subscription was away is repeated."""

    async def holds() -> bool:
        stage.clock.advance(1)
        await stage.manager.renew()
        await stage.sweeper.sweep()
        return socket.pokes > more_than

    return holds


def announced(stage: Stage, *ids: str) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return sorted(await stage.pushed()) == sorted(ids)

    return holds


@pytest.mark.parametrize("data", ["kept", "lost"])
async def test_mail_goes_cold_while_redis_is_down(fragile: Stage, own_redis: Server, tmp_path: Path, data: str) -> None:
    """RACES 10, 17."""
    stage, socket = fragile, Socket()
    async with running(stage):
        await stage.manager.connect(BOB, socket, None)
        assert await stage.ids() == []
        await send(stage, "m1")
        await eventually(stage, backlog(stage, 0))
        assert await stage.hot() == ["m1"]
        await stage.queue.acknowledge(BOB, await stage.ids())
        own_redis.stop()
        await send(stage, "m2", "m3")
        await send(stage, "other", user=EVE)
        await eventually(stage, announced(stage, "m2", "m3", "other"))
        assert await stage.in_cold() == ["m2", "m3"]
        await send(stage, "m4")
        await eventually(stage, announced(stage, "m2", "m3", "m4", "other"))
        assert await backlog(stage, 4)(), "the ingress keeps what Redis has not been told of"
        if data == "lost":
            for part in (tmp_path / "redis" / "appendonlydir").iterdir():
                part.unlink()
        own_redis.start()
        await eventually(stage, backlog(stage, 0))
        await stage.manager.renew()
        before = socket.pokes
        await send(stage, "m5")
        await eventually(stage, backlog(stage, 0))
        assert await stage.hot() == ["m5"], "the outage is over, and so is the socket's absence"
        assert await stage.ids() == ["m2", "m3", "m4", "m5"]
        assert await stage.ids(EVE) == ["other"]
        await eventually(stage, poked(stage, socket, before))
        await stage.queue.acknowledge(BOB, ["m2", "m3", "m4", "m5"])
        assert (await stage.ids(), await stage.in_cold()) == ([], [])


async def test_a_frozen_redis_holds_up_nobody(fragile: Stage, own_redis: Server) -> None:
    """RACES 11, 10: and what it does late, when it goes on, leaves one message and its order."""
    stage = fragile
    await stage.connect()
    assert await stage.ids() == []
    async with running(stage):
        own_redis.freeze()
        await send(stage, "m1", "m2")
        await eventually(stage, announced(stage, "m1", "m2"))
        own_redis.thaw()
        await eventually(stage, backlog(stage, 0))
        await send(stage, "m3")
        await eventually(stage, backlog(stage, 0))
        assert await stage.ids() == ["m1", "m2", "m3"]
        await stage.queue.acknowledge(BOB, ["m1", "m2", "m3"])
        assert (await stage.ids(), await stage.in_cold()) == ([], [])


@pytest.mark.parametrize("master", ["dies", "falls silent"])
async def test_a_failover_loses_no_mail(
    redis_sentinel: Watched, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, master: str
) -> None:
    """RACES 10, 16, 17, 18: until the replica is the master, mail goes cold; pokes go on after it. Connections to a
    master that fell silent stay open, that of the subscription too."""
    monkeypatch.setattr("router.backends.redis.pokes.IDLE_SECONDS", 0.2)
    monkeypatch.setattr("router.backends.redis.pokes.ANSWER_SECONDS", 1.0)
    stores = RedisStores(tmp_path / "data", redis_sentinel.url, mode="sentinel", timeout_seconds=TIMEOUT_SECONDS)
    socket = Socket()
    async with staged(stores, clock) as stage, running(stage):
        await stage.manager.connect(BOB, socket, None)
        await send(stage, "m1")
        await eventually(stage, backlog(stage, 0))
        assert await stage.ids() == ["m1"]
        if master == "dies":
            redis_sentinel.master.stop()
        else:
            redis_sentinel.master.freeze()
        await send(stage, "m2")
        await eventually(stage, announced(stage, "m2"))
        await asyncio.to_thread(redis_sentinel.failed_over)
        await eventually(stage, backlog(stage, 0))
        await stage.manager.renew()
        await send(stage, "m3")
        await eventually(stage, backlog(stage, 0))
        assert await stage.hot() == ["m1", "m3"]
        assert await stage.ids() == ["m1", "m2", "m3"]
        before = socket.pokes
        await eventually(stage, poked(stage, socket, before))
        await stage.queue.acknowledge(BOB, ["m1", "m2", "m3"])
        assert (await stage.ids(), await stage.in_cold()) == ([], [])
