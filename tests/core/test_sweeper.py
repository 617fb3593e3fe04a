"""What is due, and that it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec import structs

from router.core.sweeper import OUTAGE_FAILURES, Due, Rules, due
from router.errors import Unavailable
from router.messages import HotUser, Outcome, Queued
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Socket, Stage, staged, until
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

RULES = Rules(repoke_seconds=15, push_after_seconds=60, sweep_after_seconds=600)
NOW = 10_000_000_000
CAROL = "urn:sm:user:carol"


def dropped(stage: Stage, reason: str) -> float:
    registry = stage.factory.metrics.registry
    return registry.get_sample_value("router_messages_dropped_total", {"reason": reason}) or 0.0


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
        (user(age=600, poked=1), Due(migrate=True)),
        (user(age=600, poked=15), Due(migrate=True, poke=True)),
        (user(live=0, age=1), Due(migrate=True, stop_poking=True)),
        (user(live=0, hot=0, poked=1), Due(stop_poking=True)),
        (user(hot=0, poked=15), Due(poke=True)),
        # Nobody could sweep for so long, as when the store was down: the poke may have been lost before that.
        (user(hot=0, poked=600), Due(poke=True)),
    ],
)
def test_due_decides_what_is_due_for_a_user(state: HotUser, expected: Due) -> None:
    assert due(state, NOW, RULES) == expected


@pytest.mark.parametrize(
    ("age", "cut", "fetched", "hot", "poke"),
    [
        (5, 1.9, True, 1, False),
        (5, 2.0, True, 0, True),
        (5, 2.0, True, 1, True),
        (5, -2.0, True, 0, True),  # the clock of whoever fetched was ahead
        (30, 1.9, True, 1, False),  # it drains, and needs no poke for what is hot for long
        (5, 2.0, False, 0, False),  # poked since, and that poke waits for its own time
        (30, 0, True, 0, False),
    ],
)
def test_a_page_that_was_cut_short_is_due(age: float, cut: float, fetched: bool, hot: int, poke: bool) -> None:
    """RACES 41."""
    cut_at = NOW - int(cut * 1e6) if cut else 0
    state = structs.replace(user(age=age, poked=age, hot=hot), fetched=fetched, cut_at=cut_at)
    assert due(state, NOW, RULES) == Due(poke=poke)


@pytest.mark.parametrize(("cut", "poke"), [(2, False), (14.9, False), (15, True), (-15, True)])
def test_a_page_that_was_cut_short_while_cold_is_down_is_due_as_any_poke(cut: float, poke: bool) -> None:
    """RACES 41: each of them is answered by a fetch that fails, and there may be one for everybody."""
    state = structs.replace(user(hot=0), fetched=True, cut_at=NOW - int(cut * 1e6))
    assert due(state, NOW, RULES, cold_works=False) == Due(poke=poke)


@pytest.mark.anyio
async def test_an_outage_of_cold_brings_no_storm_of_fetches(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 41: the pokes for fetches that fail in it are as rare as others, until cold works again."""

    async def fail() -> None:
        raise Unavailable("simulated")

    async def poked(seconds: float) -> bool:
        stage.clock.advance(seconds)
        before = stage.count("router_pokes_total", kind="repeat")
        await stage.online.renew([phone])
        with suppress(Unavailable):
            await stage.sweeper.sweep()
        return stage.count("router_pokes_total", kind="repeat") > before

    stage.clock.advance(3600)  # from then on each round asks cold
    await stage.go("m1")
    phone = await stage.connect()
    monkeypatch.setattr(type(stage.cold), "expired", lambda _, before, limit: fail())
    assert not await poked(1)
    assert [await poked(seconds) for seconds in (2, 10, 1, 1)] == [False, False, False, True]
    await stage.online.read(BOB, 1, PAGE_BYTES)
    assert not await poked(3)
    monkeypatch.undo()
    assert not await poked(0), "the same round sees that cold works"
    assert await poked(0)


@pytest.mark.anyio
async def test_unfetched_mail_is_poked_announced_and_moved(stage: Stage) -> None:
    """RACES 18, and docs/specification.md#hot-is-for-speed."""
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
    assert await stage.online.expire(1) == [], "there is nothing left of the lease"


@pytest.mark.anyio
async def test_mail_that_its_migrator_forgot_is_moved(stage: Stage) -> None:
    """RACES 14: the node that removed the last presence died before it migrated."""
    phone = await stage.connect()
    await stage.go("m1")
    await stage.online.disconnect([phone])
    await stage.sweeper.sweep()
    assert (await stage.hot(), await stage.in_cold()) == ([], ["m1"])
    assert await stage.online.hot_users("", 10) == [], "nobody is poked who is not there"


@pytest.mark.anyio
async def test_what_fails_holds_nothing_else_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 11: one user's mail cannot be moved; the others' moves, and all else that is due is done."""
    put = stage.cold.put

    async def refuse_bob(messages: Sequence[Queued]) -> list[Queued]:
        if messages[0].message.recipient == BOB:
            raise Unavailable("down for him")
        return await put(messages)

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: refuse_bob(messages))
    for user in (BOB, EVE):
        await stage.connect(user, user)
        await stage.go("m1" + user, user)
        await stage.go("typing" + user, user, ephemeral=True)
    stage.clock.advance(50)
    await stage.connect(CAROL, CAROL)
    await stage.go("stale", CAROL, ephemeral=True)
    stage.clock.advance(11)
    for _ in range(2):
        with pytest.raises(Unavailable, match="for him"):
            await stage.sweeper.sweep()
    assert (await stage.hot(EVE), await stage.in_cold(EVE)) == ([], ["m1" + EVE])
    assert (await stage.hot(), await stage.in_cold()) == (["m1" + BOB], [])
    assert (dropped(stage, "ephemeral-migrated"), dropped(stage, "ephemeral-expired")) == (2, 1)
    monkeypatch.undo()
    await stage.sweeper.sweep()
    assert (await stage.hot(), await stage.in_cold()) == ([], ["m1" + BOB])


async def two_users(stage: Stage) -> None:
    """Bob has two messages that are to be poked for and announced; Eve has gone, and nobody has moved her mail."""
    bob, eve = await stage.connect(), await stage.connect(EVE)
    for id_, user in (("m1", BOB), ("m2", BOB), ("m3", EVE)):
        await stage.go(id_, user)
    stage.clock.advance(40)
    assert await stage.online.renew([bob]) == []
    assert await stage.online.disconnect([eve]) == [EVE]
    stage.clock.advance(30)


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["expire", "poke", "unannounced"])
async def test_a_part_that_fails_holds_no_other_up(stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """RACES 11: in its round or in the next one; the first failure is told."""
    await two_users(stage)
    real, calls = getattr(type(stage.online), call), 0

    async def fail_once(self: object, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unavailable("simulated")
        return await real(self, *arguments)

    monkeypatch.setattr(type(stage.online), call, fail_once)
    sweeping = asyncio.create_task(stage.sweeper.run())
    await asyncio.sleep(0)
    stage.clock.advance(1)
    await until(lambda: stage.sweeper.statistics().rounds == 1)
    assert repr(stage.sweeper) == "<Sweeper: Statistics(rounds=1, failures=1, retention_waits=False)>"
    assert stage.failures("online") == 1
    assert (calls, await stage.in_cold(EVE)) == (1, ["m3"])
    assert await stage.pushed() == (["m3"] if call == "unannounced" else ["m1", "m2", "m3"])
    stage.clock.advance(1)
    await until(lambda: calls > 1)
    sweeping.cancel()
    await asyncio.wait([sweeping])


@pytest.mark.anyio
async def test_all_that_is_due_is_done_page_by_page(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 27."""
    for name in ("USERS", "MESSAGES"):
        monkeypatch.setattr(f"router.core.sweeper.PAGE_{name}", 1)
    await two_users(stage)
    await stage.connect(CAROL)
    await stage.sweeper.sweep()
    assert (await stage.pushed(), await stage.in_cold(EVE)) == (["m1", "m2", "m3"], ["m3"])
    stage.clock.advance(61)
    await stage.sweeper.sweep()
    assert await stage.online.expire(10) == []
    assert await stage.in_cold() == ["m1", "m2"]
    stage.clock.advance(31 * 86_400)
    for _ in range(2):
        # Retention goes round: to the end first, then from the beginning.
        await stage.sweeper.sweep()
    assert (await stage.cold.totals(None)).messages == 0


@pytest.mark.anyio
async def test_one_users_orphans_hold_up_no_others(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 11, 24: they come first in each round, and their copies cannot be deleted."""
    delete = stage.cold.delete

    async def refuse_bob(user: str, ids: Sequence[str]) -> None:
        if user == BOB:
            raise Unavailable("down for him")
        await delete(user, ids)

    monkeypatch.setattr(type(stage.cold), "delete", lambda _, user, ids: refuse_bob(user, ids))
    for user in (BOB, EVE):
        for number in range(OUTAGE_FAILURES):
            await stage.go(f"{number}{user}", user)
            await stage.online.ack(user, [f"{number}{user}"])
    stage.clock.advance(61)
    with pytest.raises(Unavailable, match="for him"):
        await stage.sweeper.sweep()
    assert (len(await stage.in_cold()), await stage.in_cold(EVE)) == (OUTAGE_FAILURES, [])
    monkeypatch.undo()
    await stage.sweeper.sweep()
    assert (await stage.in_cold(), await stage.online.orphans(1)) == ([], [])


@pytest.mark.anyio
async def test_the_store_is_told_of_what_retention_removed_until_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would count that mail as queued for good, and remember its ids for ever."""
    async with staged(EmbeddedStores(tmp_path), ManualClock(), cap=1) as stage:
        await stage.go("m1")
        stage.clock.advance(31 * 86_400)

        async def fail(_: Sequence[Queued]) -> None:
            raise Unavailable("simulated")

        monkeypatch.setattr(type(stage.online), "forget_cold", lambda _, expired: fail(expired))
        with pytest.raises(Unavailable):
            await stage.sweeper.sweep()
        monkeypatch.undo()
        await stage.sweeper.sweep()
        assert await stage.go("m2") is Outcome.COLD
