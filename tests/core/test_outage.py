"""An online store that cannot be reached, and answers that are lost around it: what was found by simulation."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from router.backends.embedded.online import EmbeddedOnlineStore
from router.core.deliveries import Deliveries, received
from router.core.outage import Outage
from router.core.pipeline import CALL_SECONDS
from router.core.settler import Settler
from router.errors import Refused, Unavailable
from router.messages import Delivery, Lane, Message, Outcome, Queued, Routed
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.core.test_pipeline import Line, refuse_poison
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually, routed, running
from tests.support.stores import Durability, EmbeddedStores
from tests.support.timeouts import Timeouts

pytestmark = pytest.mark.anyio
Call = Callable[..., Awaitable[Any]]


def lose_answers(patch: pytest.MonkeyPatch, component: object, name: str, count: int = 1) -> list[int]:
    """The first calls work and say that they failed; the list's length is how many calls there were."""
    real, calls = getattr(type(component), name), list[int]()

    async def call(self: object, *arguments: object) -> object:
        calls.append(len(calls))
        result = await real(self, *arguments)
        if len(calls) <= count:
            raise Unavailable("the answer is lost")
        return result

    patch.setattr(type(component), name, call)
    return calls


async def test_a_copy_of_an_outage_is_known_to_the_store(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 2, 10: routed hot without an answer, then written to cold without an answer. Both copies go."""
    await stage.connect()
    lose_answers(monkeypatch, stage.online, "route")
    puts = lose_answers(monkeypatch, stage.cold, "put")
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])
        await routed(stage)
    assert (stage.failures("online"), len(puts)) == (1, 2)
    assert await stage.ids() == ["m1"]
    await stage.queue.acknowledge(BOB, ["m1"])
    assert (await stage.ids(), await stage.in_cold()) == ([], [])


async def test_an_outage_ends_though_the_store_refuses_at_first(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 10: a store that refuses to be told is told again, or all mail would go cold until the next start."""
    await stage.connect()
    line = Line(stage, monkeypatch)
    settle, refusals = stage.online.settle, 2

    async def refuse(messages: Sequence[Queued]) -> object:
        nonlocal refusals
        if not line.cut and refusals:
            refusals -= 1
            raise Refused("simulated")
        return await settle(messages)

    monkeypatch.setattr(type(stage.online), "settle", lambda _, messages: refuse(messages))

    async def in_cold() -> bool:
        return await stage.in_cold() == ["m1"]

    line.cut = True
    async with running(stage) as pipeline:
        await stage.producer.publish([stage.message("m1")])
        await eventually(stage, in_cold)
        line.cut = False
        await routed(stage)
        await pipeline.finish()
        await stage.producer.publish([stage.message("m2")])
        await routed(stage)
    assert (refusals, await stage.in_cold(), await stage.hot()) == (0, ["m1"], ["m2"])


async def test_an_outage_ends_though_the_store_is_silent_at_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 10, 11: a call that never answers must not be the last."""
    await stage.connect()
    timeouts = Timeouts(monkeypatch)
    lose_answers(monkeypatch, stage.online, "route")
    probe, silent = stage.online.probe, asyncio.Event()

    async def silent_once() -> None:
        if not silent.is_set():
            silent.set()
            timeouts.end(CALL_SECONDS)
            await asyncio.get_running_loop().create_future()
        await probe()

    monkeypatch.setattr(type(stage.online), "probe", lambda _: silent_once())
    async with running(stage) as pipeline:

        async def is_over() -> bool:
            return not pipeline.statistics().outage

        await stage.producer.publish([stage.message("m1")])
        await routed(stage)
        await eventually(stage, is_over)
        await stage.producer.publish([stage.message("m2")])
        await routed(stage)
    assert silent.is_set()
    assert (await stage.in_cold(), await stage.hot()) == (["m1"], ["m1", "m2"])


async def test_what_cold_can_never_hold_ends_no_later_than_the_outage(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 8, 10: it is given up when the store can be told so, and keeps nobody's mail from being routed then."""
    await stage.connect()
    line = Line(stage, monkeypatch, "ack")
    refuse_poison(stage, monkeypatch)
    put, tries = stage.cold.put, 0

    async def count(messages: Sequence[Queued]) -> list[Queued]:
        nonlocal tries
        tries += 1
        return await put(messages)

    async def hopeless() -> bool:
        return tries > 10

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: count(messages))
    line.cut = True
    async with running(stage) as pipeline:
        for id_ in ("poison", "behind"):
            await stage.producer.publish([stage.message(id_, EVE)])
        await eventually(stage, hopeless, ahead=30)
        line.cut = False
        await routed(stage)
        await pipeline.finish()
        await stage.producer.publish([stage.message("m1")])
        await routed(stage)
    assert (await stage.hot(), await stage.ids(EVE)) == (["m1"], ["behind"])
    assert await stage.letters() == [("poison", "attempts-exhausted")], "said once, when the store could be told"


async def test_what_the_store_is_owed_keeps_no_envelopes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand messages may wait for a store that is away; what they hold is in cold already."""
    line = Line(stage, monkeypatch)
    line.cut = True
    size = 100_000
    async with running(stage) as pipeline:
        gc.collect()
        tracemalloc.start()
        try:
            for number in range(50):
                await stage.producer.publish([stage.message(f"m{number}", size=size)])
                await eventually(stage, partial(stored, stage, number + 1))
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 10 * size
        line.cut = False
        await routed(stage)
        await pipeline.finish()


async def stored(stage: Stage, count: int) -> bool:
    return (await stage.cold.totals(BOB)).messages == count


async def test_what_is_finished_is_only_acknowledged_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 2, 3, 10: the ingress knew, and its answer was lost: an outage that comes then finds nothing to write."""
    await stage.connect()
    line = Line(stage, monkeypatch)
    route = stage.online.route

    async def route_once(deliveries: Sequence[Delivery]) -> object:
        result = await route(deliveries)
        line.cut = True
        return result

    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: route_once(deliveries))
    acks = lose_answers(monkeypatch, await stage.factory.ingress_consumer(), "ack")
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])

        async def acknowledged_twice() -> bool:
            return len(acks) == 2

        await eventually(stage, acknowledged_twice)
    assert (await stage.hot(), await stage.in_cold(), await stage.pushed()) == (["m1"], [], [])


async def test_what_was_read_in_an_outage_is_settled_by_recipient(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call for each message would take longer than a call may, and would be repeated for ever."""
    line = Line(stage, monkeypatch)
    names = [f"m{number}" for number in range(5)]
    async with running(stage):
        line.cut = True
        for name in names:
            await stage.producer.publish([stage.message(name)])

        async def written() -> bool:
            return await stage.in_cold() == names

        await eventually(stage, written)
        line.cut = False  # and the clock stands still: the store is told later
        await stage.queue.acknowledge(BOB, names)
        deletions = lose_answers(monkeypatch, stage.cold, "delete", count=0)
        await routed(stage)
    assert len(deletions) == 1
    assert (await stage.ids(), await stage.in_cold()) == ([], [])


async def test_a_message_keeps_its_sequence_in_an_outage(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 7, 10: cold refused it and took what was routed behind it; then the store could not be asked again."""
    line = Line(stage, monkeypatch)
    put, refused = stage.cold.put, False

    async def refuse_the_first(messages: Sequence[Queued]) -> list[Queued]:
        nonlocal refused
        if refused:
            return await put(messages)
        line.cut = refused = True
        return [*await put(messages[1:]), messages[0]]

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: refuse_the_first(messages))
    for name in ("m1", "m2", "m3"):
        await stage.producer.publish([stage.message(name)])
    async with running(stage):

        async def written() -> bool:
            return len(await stage.in_cold()) == 3 and stage.failures("online") > 0

        await eventually(stage, written)
        line.cut = False
        await routed(stage)
    assert await stage.in_cold() == ["m1", "m2", "m3"]


async def test_what_cold_holds_in_an_outage_is_the_head_of_what_was_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 7, 10: nobody else knows the sequences: where the pipeline dies, the rest is given later ones."""
    line, put, tries = Line(stage, monkeypatch), stage.cold.put, list[str]()
    line.cut = True

    async def refuse_m2(messages: Sequence[Queued]) -> list[Queued]:
        tries.extend(queued.message.id for queued in messages)
        refused = [queued for queued in messages if queued.message.id == "m2" and line.cut]
        return [*await put([queued for queued in messages if queued not in refused]), *refused]

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: refuse_m2(messages))
    for name in ("m1", "m2", "m3"):
        await stage.producer.publish([stage.message(name)])
    async with running(stage):

        async def tried() -> bool:
            return await stage.in_cold() == ["m1"] and tries.count("m2") > 5

        await eventually(stage, tried)
        assert "m3" not in tries
    line.cut = False
    async with running(stage):
        await routed(stage)
    assert await stage.in_cold() == ["m1", "m2", "m3"]


async def test_a_migration_that_is_told_to_end_ends(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 36: also while the store cannot take its lease back; else a stopping process would never end."""
    await stage.connect()
    await stage.go("m1")
    reached = asyncio.Event()

    async def hang(messages: Sequence[object]) -> None:
        reached.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: hang(messages))
    lose_answers(monkeypatch, stage.online, "release_move")
    migration = asyncio.create_task(stage.migrator.migrate(BOB, online_too=True))
    await reached.wait()
    migration.cancel()
    await asyncio.wait([migration])
    assert migration.cancelled()


async def test_mail_acknowledged_during_its_move_leaves_no_copy(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 24: acknowledged, and deleted from cold, while the migrator's write is under way."""
    await stage.connect()
    await stage.go("m1")
    put = stage.cold.put

    async def slowly(messages: Sequence[Queued]) -> list[Queued]:
        await stage.queue.acknowledge(BOB, ["m1"])
        return await put(messages)

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: slowly(messages))
    await stage.queue.migrate_hot_to_cold(BOB, online_too=True)
    assert (await stage.ids(), await stage.in_cold()) == ([], [])


async def test_what_an_outage_misplaced_comes_to_its_place(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 7, 10: another pipeline was given its place and died; the copy in cold stands behind m2."""
    m1, m2 = stage.message("m1"), stage.message("m2")
    first, second = await stage.route(m1, m2)
    await stage.store(m2, second)
    line = Line(stage, monkeypatch)
    line.cut = True
    await stage.producer.publish([m1])
    async with running(stage):

        async def written() -> bool:
            return await stage.in_cold() == ["m2", "m1"]

        await eventually(stage, written)
        line.cut = False
        await routed(stage)
    assert first.sequence < second.sequence
    assert await stage.in_cold() == await stage.ids() == ["m1", "m2"]


async def test_what_is_moved_to_its_place_is_left_to_a_sweeper_until_the_store_agrees(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 7, 10: whoever moves the copy dies before the store is told again."""
    message, settle, calls = stage.message("m1"), stage.online.settle, 0
    (place,) = await stage.route(message)
    late = Queued(message, place.sequence + 1000, place.queued_at, unreported=True)
    await stage.cold.put([late])

    async def die_between(messages: Sequence[Queued]) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Unavailable("died")
        return await settle(messages)

    monkeypatch.setattr(type(stage.online), "settle", lambda _, messages: die_between(messages))
    with pytest.raises(Unavailable):
        await Settler(stage.online, stage.cold).settle([late])
    (left,) = await stage.cold.unreported(stage.clock.now(), 10)
    assert (left.message.id, left.sequence) == ("m1", place.sequence)


async def test_what_stands_behind_what_another_device_acknowledged_is_not_missing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 25: of two looks of one fetch, the first one saw nothing but what was acknowledged before the second."""
    for name in ("m1", "m2", "m3"):
        await stage.go(name)
    read, looks = stage.online.read, 0

    async def between(user: str, limit: int, max_bytes: int, *, again: bool = False) -> object:
        nonlocal looks
        looks += 1
        if looks == 2:
            await stage.queue.acknowledge(BOB, ["m1"])
            await stage.go("m4")
        return await read(user, limit, max_bytes, again=again)

    monkeypatch.setattr(type(stage.online), "read", lambda _, *arguments, **more: between(*arguments, **more))
    assert await stage.ids(limit=1) == ["m2"]


async def test_a_user_of_whom_nothing_is_known_may_have_mail_of_an_outage(stage: Stage) -> None:
    """RACES 10: whoever connects before the store was told, and whoever is sent to, reads what is in cold."""
    now = stage.clock.now()
    await stage.cold.put([Queued(stage.message("m1"), now, now, unreported=True)])
    await stage.cold.put([Queued(stage.message("m2", EVE), now, now, unreported=True)])
    await stage.connect()
    await stage.go("m3", EVE)
    assert (await stage.ids(), await stage.ids(EVE)) == (["m1"], ["m2", "m3"])


@pytest.mark.parametrize("durability", ["online-store", "write-through"])
@pytest.mark.parametrize("back", [False, True], ids=["offline", "online again"])
async def test_what_cold_refused_has_its_place_though_the_store_forgets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability, back: bool
) -> None:
    """RACES 7, 17: cold took what was routed behind it, then the store came back empty, and the user is online."""
    async with staged(EmbeddedStores(tmp_path), ManualClock(), durability=durability) as stage:
        if durability == "write-through":
            await stage.connect()
        put, route, puts, routes = stage.cold.put, stage.online.route, list[list[str]](), 0

        async def refuse_first(messages: Sequence[Queued]) -> list[Queued]:
            puts.append([queued.message.id for queued in messages])
            if len(puts) > 1:
                return await put(messages)
            return [*messages[:1], *await put(messages[1:])]

        async def forget(deliveries: Sequence[Delivery]) -> list[Routed]:
            nonlocal routes
            routes += 1
            if routes == 2:
                await forget_all(stage)
                if back:
                    await stage.connect()
            return await route(deliveries)

        monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: refuse_first(messages))
        monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: forget(deliveries))
        for id_ in ("m1", "m2"):
            await stage.producer.publish([stage.message(id_)])
        async with running(stage):
            await routed(stage)
        assert (puts, routes) == ([["m1", "m2"], ["m1"]], 2)
        assert await stage.ids() == ["m1", "m2"]
        await stage.queue.acknowledge(BOB, ["m1", "m2"])
        assert (await stage.ids(), await stage.hot(), await stage.in_cold()) == ([], [], [])


async def forget_all(stage: Stage) -> None:
    """The online store is empty, as a Redis that was started anew."""
    assert isinstance(stage.online, EmbeddedOnlineStore)
    tables = ("hot", "route", "recipient", "presence")
    await stage.online.state.database.write(lambda db: [db.execute(f"DELETE FROM {table}") for table in tables])


def test_what_comes_behind_ephemeral_mail_has_no_place_before_it() -> None:
    """RACES 9, 10: the store gave each of a batch a place, one after another, and was not heard."""
    now = 1_000
    messages = [
        Message(id_, BOB, b"{}", Lane.NORMAL, ephemeral=id_ != "m3", accepted_at=now, keyed=False)
        for id_ in ("m1", "m2", "m3")
    ]
    outage = Outage()
    placed = [outage.place(received(Delivery(message, n, 1)), now) for n, message in enumerate(messages)]
    assert [result.outcome for result in placed] == [Outcome.DROPPED_OFFLINE] * 2 + [Outcome.COLD]
    assert placed[2].sequence == now + 2, "as the store, which was asked no later, would have placed it"


def test_what_the_store_is_told_late_says_how_large_it_is() -> None:
    """Its envelope is not kept for that; it counts in ``limits.queue_bytes`` all the same."""
    deliveries, message = Deliveries(), Message("m1", BOB, b"{...}", Lane.NORMAL, False, 0)
    (flight,) = deliveries.receive([Delivery(message, 1, 1)])
    flight.copy = Queued(message, 10, 5)
    deliveries.mark_owed([flight])
    (owed,) = deliveries.oldest_owed(10)
    assert owed.copy is not None
    assert (owed.message.envelope, owed.copy.message.envelope, owed.copy.size) == (b"", b"", 5)


def test_a_place_that_the_store_has_forgotten_is_kept() -> None:
    """RACES 7, 17: cold refused the message, and took what was routed behind it, before the store came back empty."""
    outage, message = Outage(), Message("m1", BOB, b"", Lane.NORMAL, False, 0)
    flight, place = received(Delivery(message, 1, 1)), Routed(Outcome.COLD, 10, 5)
    assert outage.saw(flight, place) == place
    assert outage.saw(flight, Routed(Outcome.COLD, 20, 15)) == place
    for other in (Routed(Outcome.HOT, 20, 15), Routed(Outcome.COLD, 9, 15)):
        assert outage.saw(flight, other) == other, "it is not for cold, or not behind the place"
    again = received(Delivery(message, 1, 1))
    assert outage.saw(again, Routed(Outcome.COLD, 20, 15)) == Routed(Outcome.COLD, 20, 15)


def test_a_place_that_is_known_when_an_outage_comes_is_kept() -> None:
    """What the store gave out is where the outage goes on, whatever the clock says, and however often."""
    outage, now = Outage(), 1_000
    typing = received(Delivery(Message("typing", BOB, b"", Lane.NORMAL, True, 0), 1, 1))
    first, full, new = (
        received(Delivery(Message(f"m{number}", BOB, b"", Lane.NORMAL, False, 0), number, 1)) for number in (2, 3, 4)
    )
    said = [Routed(Outcome.COLD, 2_000, 5), Routed(Outcome.HOT, 3_000, 5), Routed(Outcome.QUEUE_FULL)]
    for flight, result in zip((first, typing, full), said, strict=True):
        outage.saw(flight, result)
    # The ephemeral one takes a place, and has none in cold; what was refused had none.
    wanted = [said[0], Routed(Outcome.DROPPED_OFFLINE), *(Routed(Outcome.COLD, 3_000 + more, now) for more in (2, 3))]
    for later in (0, 10_000):
        assert [outage.place(flight, now + later) for flight in (first, typing, full, new)] == wanted


async def test_what_cold_can_never_hold_does_not_keep_an_outage_going(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 8, 10: it is a dead letter when the store is back, and what comes then is routed by the store again."""
    line = Line(stage, monkeypatch)
    refuse_poison(stage, monkeypatch)
    line.cut = True
    for id_ in ("poison", "m1"):
        await stage.producer.publish([stage.message(id_)])
    async with running(stage):

        async def tried() -> bool:
            return stage.failures("online") > 0

        await eventually(stage, tried)
        line.cut = False
        await routed(stage)
        await stage.connect(EVE)
        await stage.producer.publish([stage.message("m2", EVE)])
        await routed(stage)
    assert await stage.letters() == [("poison", "attempts-exhausted")]
    assert (await stage.ids(), await stage.hot(EVE)) == (["m1"], ["m2"])
