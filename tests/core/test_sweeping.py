"""What is due, and that it is done."""

from __future__ import annotations

import asyncio

import pytest

from router.core.sweeping import Due, Rules, due
from router.messages import HotUser
from tests.contract.stage import BOB, Socket, Stage, until

RULES = Rules(repoke_seconds=15, push_after_seconds=60, sweep_after_seconds=600)
NOW = 10_000_000_000


def user(*, live: int = 1, hot: int = 1, age: float = 0, poked: float = 0, announced: bool = False) -> HotUser:
    """A user whose oldest hot message is ``age`` seconds old and who was poked ``poked`` seconds ago."""
    oldest = NOW - int(age * 1e6) if hot else 0
    return HotUser(BOB, live, hot, oldest, 0 if announced else oldest, NOW - int(poked * 1e6), False)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (user(age=14, poked=14), Due()),
        (user(age=15, poked=15), Due(poke=True)),
        (user(age=30, poked=14), Due()),
        (user(age=60, poked=1), Due(announce=True)),
        (user(age=60, poked=1, announced=True), Due()),
        (user(age=600, poked=1), Due(migrate=True, hush=True)),
        (user(live=0, age=1), Due(migrate=True, hush=True)),
        (user(live=0, hot=0, poked=1), Due(hush=True)),
        (user(hot=0, poked=15), Due(poke=True)),
        (user(hot=0, poked=600), Due(hush=True)),
    ],
)
def test_due(state: HotUser, expected: Due) -> None:
    assert due(state, NOW, RULES) == expected


@pytest.mark.anyio
async def test_unfetched_mail_is_poked_announced_and_moved(stage: Stage) -> None:
    """RACES 18, and "hot is for speed, never for safety alone" (spec, section 5)."""
    socket = Socket()
    running = asyncio.create_task(stage.manager.run())
    connection = await stage.manager.connect(BOB, socket, None)
    await stage.go("m1")
    await until(lambda: socket.pokes == 1)
    stage.clock.advance(15)
    await stage.sweeper.sweep()
    await until(lambda: socket.pokes == 2)
    assert await stage.pushed() == []
    for _ in range(3):
        stage.clock.advance(15)
        await stage.manager.renew()
        await stage.sweeper.sweep()
    assert await stage.pushed() == ["m1"]
    assert await stage.hot() == ["m1"]
    for _ in range(27):
        stage.clock.advance(20)
        await stage.manager.renew()
        await stage.sweeper.sweep()
    assert (await stage.hot(), await stage.in_cold()) == ([], ["m1"])
    assert await stage.pushed() == ["m1"], "announced once"
    assert await stage.online.connections(BOB) != []
    await stage.manager.disconnect(connection)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.anyio
async def test_a_dead_node_holds_mail_no_longer_than_its_leases(stage: Stage) -> None:
    """RACES 15, 16."""
    await stage.connect()
    await stage.go("m1")
    stage.clock.advance(59)
    await stage.sweeper.sweep()
    assert await stage.hot() == ["m1"]
    stage.clock.advance(1)
    await stage.sweeper.sweep()
    assert (await stage.hot(), await stage.in_cold(), await stage.pushed()) == ([], ["m1"], ["m1"])


@pytest.mark.anyio
async def test_mail_that_its_migrator_forgot_is_moved(stage: Stage) -> None:
    """RACES 14: the node that removed the last presence died before it migrated."""
    phone = await stage.connect()
    await stage.go("m1")
    await stage.online.disconnect([phone])
    await stage.sweeper.sweep()
    assert (await stage.hot(), await stage.in_cold()) == ([], ["m1"])
