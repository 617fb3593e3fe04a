"""The pipeline over the real embedded components, with faults put between them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

from router.backends.embedded.backend import EmbeddedBackend
from router.core.pipeline import CALL_SECONDS, HAND_BACK_SECONDS, Pipeline
from router.errors import Refused, Unavailable
from router.factory import OwnedTasks
from router.interfaces import IngressConsumer, PushNotifier
from router.messages import DeadLetter, Delivery, Outcome, Queued, Routed
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Socket, Stage, staged, until
from tests.support.backends import opened
from tests.support.clock import ManualClock, ended
from tests.support.pipelines import TURN_SECONDS, eventually, routed, running, waiting
from tests.support.stores import EmbeddedStores
from tests.support.timeouts import Timeouts

pytestmark = pytest.mark.anyio


def has(stage: Stage, user: str, ids: Sequence[str]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await stage.ids(user) == ids

    return holds


def failed_once(stage: Stage, role: str = "cold") -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return stage.failures(role) > 0

    return holds


async def test_mail_is_routed_in_order_and_announced(stage: Stage) -> None:
    async with running(stage):
        for number in range(10):
            await stage.producer.publish([stage.message(f"m{number}")])
        await routed(stage)
        assert await stage.ids() == [f"m{number}" for number in range(10)]
        assert await stage.pushed() == await stage.ids()


@pytest.mark.parametrize("key", ["queue_messages", "queue_bytes"])
async def test_a_dead_letter_says_which_limit_of_the_queue_it_met(tmp_path: Path, key: str) -> None:
    async with staged(EmbeddedStores(tmp_path), ManualClock(), limits={key: 1}) as stage, running(stage):
        if key == "queue_messages":
            await stage.go("first")
        await stage.producer.publish([stage.message("too many")])
        await routed(stage)
        ((_, letter),) = await (await stage.factory.dead_letter_box()).list(0, 10)
        assert (letter.id, letter.reason) == ("too many", "queue-full")
        assert f"limits.{key}" in letter.detail


async def test_only_what_cold_refused_is_written_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 7: and before the online store is asked again, which may have forgotten its place."""
    put, route, calls, asked = stage.cold.put, stage.online.route, list[list[str]](), list[int]()

    async def refuse_the_second(messages: Sequence[Queued]) -> list[Queued]:
        calls.append([queued.message.id for queued in messages])
        refused = [queued for queued in messages if queued.message.id == "m2" and len(calls) < 4]
        return [*await put([queued for queued in messages if queued not in refused]), *refused]

    async def count(deliveries: Sequence[Delivery]) -> list[Routed]:
        asked.append(len(deliveries))
        return await route(deliveries)

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: refuse_the_second(messages))
    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: count(deliveries))
    for id_ in ("m1", "m2", "m3"):
        await stage.producer.publish([stage.message(id_)])
    async with running(stage):

        async def first_written() -> bool:
            return await stage.in_cold() == ["m1", "m3"]

        await eventually(stage, first_written)
        assert await stage.ids() == ["m1"], "m3 must not overtake m2"
        await routed(stage)
    assert calls == [["m1", "m2", "m3"], ["m2"], ["m2"], ["m2"]]
    assert asked == [3, 1]
    assert await stage.ids() == ["m1", "m2", "m3"]
    assert sorted(await stage.pushed()) == ["m1", "m2", "m3"]


async def test_a_pipeline_keeps_nothing_of_what_is_done(tmp_path: Path) -> None:
    """It runs for months."""
    async with staged(EmbeddedStores(tmp_path), ManualClock(), durability="write-through", cap=1) as stage:
        await stage.connect()
        async with running(stage) as pipeline:
            for id_, user in (("hot", BOB), ("cold", EVE), ("full", EVE)):
                await stage.producer.publish([stage.message(id_, user)])
            await routed(stage)
            await pipeline.finish()
            assert not any(msgspec.structs.astuple(pipeline.statistics()))
            assert repr(pipeline) == f"<Pipeline: {pipeline.statistics()}, <Deliveries: none>>"
        assert await stage.letters() == [("full", Outcome.QUEUE_FULL.value)]


async def test_poison_goes_to_the_dead_letters_and_the_rest_flows(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 8."""
    route, tries = stage.online.route, 0

    async def choke(deliveries: Sequence[Delivery]) -> list[Routed]:
        nonlocal tries
        if any(delivery.message and delivery.message.id == "poison" for delivery in deliveries):
            tries += len(deliveries) == 1
            raise ZeroDivisionError("of what is sealed")
        return await route(deliveries)

    letters = await stage.factory.dead_letters()
    publish, published = letters.publish, list[DeadLetter]()

    async def note(batch: Sequence[DeadLetter]) -> None:
        published.extend(batch)
        await publish(batch)

    monkeypatch.setattr(type(letters), "publish", lambda _, batch: note(batch))
    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: choke(deliveries))
    for id_, user in (("poison", BOB), ("m1", BOB), ("other", EVE), ("m2", BOB)):
        await stage.producer.publish([stage.message(id_, user)])
    async with running(stage):
        await eventually(stage, has(stage, EVE, ["other"]))
        assert tries < 5, "nobody else waits for them"
        await routed(stage)
    assert await stage.letters() == [("poison", "attempts-exhausted")]
    assert tries == 5
    (letter,) = published
    assert letter.detail == "ZeroDivisionError in each attempt", "what the error says may be the message"
    assert (letter.recipient, letter.body) == (BOB, stage.message("poison").envelope)
    assert (await stage.ids(), await stage.ids(EVE)) == (["m1", "m2"], ["other"])


def refuse_poison(stage: Stage, patch: pytest.MonkeyPatch) -> None:
    """The cold queue can never hold the message "poison", whatever else it can."""
    put = stage.cold.put

    async def choke(messages: Sequence[Queued]) -> list[Queued]:
        if any(queued.message.id == "poison" for queued in messages):
            raise Refused("too large")
        return await put(messages)

    patch.setattr(type(stage.cold), "put", lambda _, messages: choke(messages))


async def test_what_cold_can_never_hold_is_a_dead_letter_and_holds_nobody_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 7, 8: readers do not wait for it either, though it had its place in the order."""
    refuse_poison(stage, monkeypatch)
    for id_, user in (("m0", BOB), ("poison", BOB), ("m1", BOB), ("other", EVE), ("m2", BOB)):
        await stage.producer.publish([stage.message(id_, user)])
    async with running(stage):
        await routed(stage)
    assert await stage.letters() == [("poison", "attempts-exhausted")]
    assert (await stage.ids(), await stage.ids(EVE)) == (["m0", "m1", "m2"], ["other"])
    assert sorted(await stage.pushed()) == ["m0", "m1", "m2", "other"]
    assert (await stage.online.read(BOB, 50, PAGE_BYTES)).pending == []


@pytest.mark.parametrize("written", [False, True])
async def test_poison_on_its_way_to_cold_holds_up_no_reader(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """RACES 8: a bug in the cold write, before the write or after; what is in cold by then stays there."""
    put = stage.cold.put

    async def choke(messages: Sequence[Queued]) -> list[Queued]:
        poison = any(queued.message.id == "poison" for queued in messages)
        if poison and not written:
            raise ZeroDivisionError("of what is sealed")
        refused = await put(messages)
        if poison:
            raise ZeroDivisionError("of what is sealed")
        return refused

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: choke(messages))
    for id_ in ("m0", "poison", "m1"):
        await stage.producer.publish([stage.message(id_)])
    async with running(stage):
        await routed(stage)
    assert await stage.letters() == [("poison", "attempts-exhausted")]
    assert await stage.ids() == (["m0", "poison", "m1"] if written else ["m0", "m1"])
    assert (await stage.online.read(BOB, 50, PAGE_BYTES)).pending == []
    assert (await stage.cold.totals(BOB)).messages == 2 + written


async def test_a_letter_that_cannot_be_written_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 8, 11: giving a message up needs a dependency too, and must not end the work of its recipient."""
    refuse_poison(stage, monkeypatch)
    letters = await stage.factory.dead_letters()
    publish, tries = letters.publish, 0

    async def fail_twice(batch: Sequence[DeadLetter]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("the line is cut")
        await publish(batch)

    monkeypatch.setattr(type(letters), "publish", lambda _, batch: fail_twice(batch))
    await stage.producer.publish([stage.message("poison")])
    await stage.producer.publish([stage.message("m1")])
    async with running(stage):
        await routed(stage)
    assert (tries, await stage.letters()) == (3, [("poison", "attempts-exhausted")])
    assert await stage.ids() == ["m1"]


async def test_what_cold_can_never_hold_does_not_stop_a_migration(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 7, 8."""
    await stage.connect()
    for id_ in ("m1", "poison", "m2"):
        await stage.go(id_)
    refuse_poison(stage, monkeypatch)
    await stage.migrator.migrate(BOB, online_too=True)
    assert (await stage.hot(), await stage.in_cold()) == ([], ["m1", "m2"])
    assert await stage.letters() == [("poison", "unstorable")]
    assert await stage.pushed() == ["m1", "m2"]
    stage.clock.advance(61)
    await stage.sweeper.sweep()
    assert await stage.online.orphans(10) == []


async def test_a_dependency_that_is_down_counts_against_no_message(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 10: where presence and cold are one store, there is nowhere else to go: the mail waits in the ingress."""
    line, put, failures = Line(stage, monkeypatch), stage.cold.put, 0

    async def down(messages: Sequence[Queued]) -> list[Queued]:
        nonlocal failures
        if line.cut:
            failures += 1
            raise Unavailable("down")
        return await put(messages)

    async def tried_often() -> bool:
        return failures >= 10

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: down(messages))
    line.cut = True
    async with running(stage):
        for number in range(3):
            await stage.producer.publish([stage.message(f"m{number}")])
            await stage.producer.publish([stage.message(f"other {number}", EVE)])
        await eventually(stage, tried_often)
        assert await waiting(stage, 6)
        line.cut = False
        await routed(stage)
    assert await stage.letters() == []
    assert await stage.ids() == ["m0", "m1", "m2"]
    assert await stage.ids(EVE) == ["other 0", "other 1", "other 2"]
    assert sorted(await stage.pushed()) == sorted([*await stage.ids(), *await stage.ids(EVE)])


async def test_one_recipient_that_is_down_holds_up_no_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 10: as where the recipient's part of the store is down."""
    route, up = stage.online.route, False

    async def down(deliveries: Sequence[Delivery]) -> list[Routed]:
        if not up and any(delivery.message and delivery.message.recipient == BOB for delivery in deliveries):
            raise Unavailable("down")
        return await route(deliveries)

    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: down(deliveries))
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])
        await eventually(stage, failed_once(stage, "online"))
        await stage.producer.publish([stage.message("m2")])
        await stage.producer.publish([stage.message("other", EVE)])
        await eventually(stage, has(stage, EVE, ["other"]))
        up = True
        await routed(stage)
    assert await stage.ids() == ["m1", "m2"]
    assert await stage.letters() == []


@pytest.mark.parametrize("call", ["route", "put", "settle", "push", "ack"])
async def test_a_call_that_never_answers_times_out(stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """RACES 11: it is given up, done again, and other recipients go on meanwhile; wherever the silence is."""
    monkeypatch.setattr("router.core.dependencies.UNANSWERED_SECONDS", 0)
    timeouts = Timeouts(monkeypatch)
    component = {"route": stage.online, "settle": stage.online, "put": stage.cold}.get(call)
    if call == "ack":
        component = await stage.factory.ingress_consumer()
    where = type(component or await stage.factory.push_notifier())
    name, counted = (
        ("publish" if call == "push" else call),
        {"put": "cold", "push": "push", "ack": "ingress"}.get(call, "online"),
    )
    answers, silent, given_up = getattr(where, name), asyncio.Event(), asyncio.Event()

    async def silent_once(self: object, batch: Sequence[object]) -> object:
        if not silent.is_set():
            silent.set()
            await given_up.wait()
            timeouts.end(CALL_SECONDS)
            await asyncio.get_running_loop().create_future()
        return await answers(self, batch)

    monkeypatch.setattr(where, name, silent_once)
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])
        await silent.wait()
        await stage.producer.publish([stage.message("m2")])
        await stage.producer.publish([stage.message("other", EVE)])
        await eventually(stage, has(stage, EVE, ["other"]))
        assert stage.failures(counted) == 0, "the silence still lasts"
        given_up.set()
        await routed(stage)
    assert stage.failures(counted) == 1
    assert await stage.ids() == ["m1", "m2"]
    assert sorted(await stage.pushed()) == ["m1", "m2", "other"]
    assert await stage.letters() == []


async def test_a_dead_letter_topic_that_is_down_holds_up_nobody_for_good(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 8, 11: the poison is refused as soon as the dead letters can take it, and those behind it flow."""
    route, letters = stage.online.route, await stage.factory.dead_letters()
    bury, failures = letters.publish, 0

    async def choke(deliveries: Sequence[Delivery]) -> list[Routed]:
        if any(delivery.message and delivery.message.id == "poison" for delivery in deliveries):
            raise ZeroDivisionError
        return await route(deliveries)

    async def down(dead: Sequence[DeadLetter]) -> None:
        nonlocal failures
        failures += 1
        if failures < 3:
            raise Unavailable("down")
        await bury(dead)

    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: choke(deliveries))
    monkeypatch.setattr(type(letters), "publish", lambda _, dead: down(dead))
    for id_ in ("poison", "m1"):
        await stage.producer.publish([stage.message(id_)])
    async with running(stage):
        await routed(stage)
    assert failures == 3
    assert await stage.letters() == [("poison", "attempts-exhausted")]
    assert await stage.ids() == ["m1"]


@pytest.mark.parametrize("silent", [False, True])
async def test_dead_letters_that_are_down_hold_up_only_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """RACES 8, 11: neither the neighbours in its batch nor those behind them wait for somebody's full queue."""
    async with staged(EmbeddedStores(tmp_path), ManualClock(), cap=1) as stage:
        letters = await stage.factory.dead_letters()

        async def down(dead: Sequence[DeadLetter]) -> None:
            if silent:
                await given_up.wait()
                timeouts.end(CALL_SECONDS)
                await asyncio.get_running_loop().create_future()
            raise Unavailable("down")

        timeouts, given_up = Timeouts(monkeypatch), asyncio.Event()
        monkeypatch.setattr(type(letters), "publish", lambda _, dead: down(dead))
        await stage.go("first")
        await damaged_delivery(stage, monkeypatch)
        await stage.producer.publish([stage.message("too many")])
        await stage.producer.publish([stage.message("other", EVE)])
        async with running(stage):
            await eventually(stage, has(stage, EVE, ["other"]))
            await eventually(stage, lambda: waiting(stage, 2))
            assert await stage.pushed() == ["other"]
            monkeypatch.undo()
            given_up.set()
            await routed(stage)
        assert sorted(await stage.letters()) == [("1", "undecodable"), ("too many", "queue-full")]


async def test_what_is_refused_is_not_routed_after_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when there is room before its dead letter is out, either: what was behind it is in the queue already."""
    async with staged(EmbeddedStores(tmp_path), ManualClock(), limits={"queue_bytes": 1000}) as stage:
        letters = await stage.factory.dead_letters()

        async def down(dead: Sequence[DeadLetter]) -> None:
            raise Unavailable("down")

        monkeypatch.setattr(type(letters), "publish", lambda _, dead: down(dead))
        for id_, size in (("first", 300), ("large", 900), ("small", 300)):
            await stage.producer.publish([stage.message(id_, size=size)])
        async with running(stage):
            await eventually(stage, lambda: waiting(stage, 1))
            await stage.queue.acknowledge(BOB, ["first", "small"])
            monkeypatch.undo()
            await routed(stage)
        assert (await stage.ids(), await stage.letters()) == ([], [("large", "queue-full")])


async def damaged_delivery(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next message that is published arrives as one that cannot be read."""
    await stage.producer.publish([stage.message("damaged")])
    consumer = type(await stage.factory.ingress_consumer())
    receive = consumer.receive

    async def garble(self: IngressConsumer, limit: int) -> list[Delivery]:
        return [
            Delivery(None, delivery.receipt, delivery.attempt, "damaged")
            if delivery.message is not None and delivery.message.id == "damaged"
            else delivery
            for delivery in await receive(self, limit)
        ]

    monkeypatch.setattr(consumer, "receive", garble)


@pytest.mark.parametrize("attempt", [1, 7])
async def test_an_outage_leaves_a_message_all_its_own_tries(
    stage: Stage, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often pipelines were stopped in it, and gave back what they held."""
    consumer = type(await stage.factory.ingress_consumer())
    receive, put, calls = consumer.receive, stage.cold.put, 0

    async def again(self: IngressConsumer, limit: int) -> list[Delivery]:
        return [msgspec.structs.replace(delivery, attempt=attempt) for delivery in await receive(self, limit)]

    async def down_then_odd(messages: Sequence[Queued]) -> list[Queued]:
        nonlocal calls
        calls += 1
        if calls <= 6:
            raise Unavailable("down")
        if calls <= 10:
            raise ZeroDivisionError
        return await put(messages)

    monkeypatch.setattr(consumer, "receive", again)
    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: down_then_odd(messages))
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])
        await routed(stage)
    assert (calls, await stage.letters(), await stage.ids()) == (11, [], ["m1"])


async def test_a_damaged_file_counts_against_no_message(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 10: what SQLite says of the hot queue's pages is an outage like another, and no fault of the mail."""
    calls = 0

    def damaged(*_: object) -> None:
        nonlocal calls
        calls += 1
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr("router.backends.embedded.routing.route", damaged)
    await stage.connect()
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])
        await eventually(stage, has(stage, BOB, ["m1"]))
        monkeypatch.undo()
        await routed(stage)
    assert (calls, await stage.letters(), await stage.in_cold()) == (1, [], ["m1"])


@pytest.mark.parametrize(("bound", "most"), [("HELD_BYTES", 300_000), ("HELD_MESSAGES", 4)])
async def test_large_mail_is_held_in_bounded_memory(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """RACES 11: while cold does not answer, no more is received than may be held, by its number or its bytes."""
    monkeypatch.setattr("router.core.pipeline.BATCH_MESSAGES", 2)
    monkeypatch.setattr(f"router.core.pipeline.{bound}", most)
    put, down, received = stage.cold.put, True, list[str]()

    async def fail(messages: Sequence[Queued]) -> list[Queued]:
        received[:] = dict.fromkeys([*received, *(queued.message.id for queued in messages)])
        if down:
            raise Unavailable("down")
        return await put(messages)

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: fail(messages))
    users = [f"urn:sm:user:u{number}" for number in range(20)]
    for user in users:
        await stage.producer.publish([stage.message(user, user, size=100_000)])
    async with running(stage):
        for _ in range(5):
            await eventually(stage, failed_more(stage))
        assert len(received) == 4
        down = False
        await routed(stage)
    assert received == users


def failed_more(stage: Stage) -> Callable[[], Awaitable[bool]]:
    before = stage.failures("cold")

    async def holds() -> bool:
        return stage.failures("cold") > before

    return holds


async def test_no_more_is_received_than_the_store_may_be_owed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 10: in a long outage the mail waits in the ingress, and not in the memory of a pipeline."""
    monkeypatch.setattr("router.core.pipeline.OUTAGE_MESSAGES", 3)
    line, names = Line(stage, monkeypatch), [f"m{number}" for number in range(6)]
    line.cut = True

    async def owed(count: int) -> bool:
        return pipeline.statistics().owed == count

    async def tried_again() -> bool:
        return stage.failures("online") > before

    async with running(stage) as pipeline:
        # Each is owed before the next one comes; when the third is, the fourth is waited for already.
        for count, name in enumerate(names[:4], 1):
            await stage.producer.publish([stage.message(name)])
            await eventually(stage, partial(owed, count))
        for name in names[4:]:
            await stage.producer.publish([stage.message(name)])
        before = stage.failures("online")
        await eventually(stage, tried_again)
        assert await stage.in_cold() == names[:4]
        line.cut = False
        await routed(stage)
    assert await stage.in_cold() == names


async def test_what_comes_again_while_it_is_held_takes_no_more_room(stage: Stage) -> None:
    """As from an ingress that gave it up meanwhile; or a pipeline would be full one day, and receive nothing more."""
    pipeline, consumer = await stage.factory.pipeline(), await stage.factory.ingress_consumer()
    await stage.producer.publish([stage.message("m1")])
    deliveries = await consumer.receive(1)
    for _ in range(2):
        pipeline.take(deliveries)
    await pipeline.finish()
    held = pipeline.statistics()
    assert (held.held, held.held_bytes) == (0, 0)
    assert await stage.ids() == ["m1"]


async def test_an_ingress_that_is_down_is_asked_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = type(await stage.factory.ingress_consumer())
    receive = consumer.receive

    async def fail_twice(self: IngressConsumer, limit: int) -> list[Delivery]:
        if stage.failures("ingress") < 2:
            raise Unavailable("down")
        return await receive(self, limit)

    monkeypatch.setattr(consumer, "receive", fail_twice)
    await stage.producer.publish([stage.message("m1")])
    async with running(stage):
        await routed(stage)
    assert (stage.failures("ingress"), await stage.ids()) == (2, ["m1"])


@pytest.mark.parametrize("silent", [False, True])
async def test_a_pipeline_stops_though_it_can_hand_nothing_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """RACES 36: the ingress, which is down or never answers, finds out by itself."""
    reached, never, timeouts = asyncio.Event(), asyncio.Event(), Timeouts(monkeypatch)

    async def hang(*_: object) -> None:
        reached.set()
        await never.wait()

    async def fail(*_: object) -> None:
        if silent:
            timeouts.end(HAND_BACK_SECONDS)
            await never.wait()
        raise Unavailable("down")

    monkeypatch.setattr("router.core.dependencies.UNANSWERED_SECONDS", 0)
    monkeypatch.setattr(type(stage.cold), "put", hang)
    monkeypatch.setattr(type(await stage.factory.ingress_consumer()), "nack", fail)
    async with asyncio.timeout(TURN_SECONDS), running(stage):
        await stage.producer.publish([stage.message("m1")])
        await reached.wait()
    assert stage.failures("ingress") == 1


async def test_write_through_writes_hot_mail_to_cold_before_the_ingress_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(EmbeddedStores(tmp_path), ManualClock(), durability="write-through") as stage:
        await stage.connect()
        put, refusing = stage.cold.put, True

        async def refuse(messages: Sequence[Queued]) -> list[Queued]:
            return list(messages) if refusing else await put(messages)

        monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: refuse(messages))
        async with running(stage):
            await stage.producer.publish([stage.message("typing", ephemeral=True)])
            await stage.producer.publish([stage.message("m1")])

            async def readable() -> bool:
                return await stage.hot() == ["typing", "m1"]

            await eventually(stage, readable)
            await eventually(stage, lambda: waiting(stage, 1))
            refusing = False
            await routed(stage)
        assert (await stage.in_cold(), await stage.pushed()) == (["m1"], [])


class Line:
    """The line to the online store, which a test cuts. What hangs on it is the real store."""

    def __init__(self, stage: Stage, patch: pytest.MonkeyPatch, *more: str) -> None:
        self.cut = False
        for name in ("route", "settle", "probe", *more):
            patch.setattr(type(stage.online), name, self._guarded(getattr(type(stage.online), name)))

    def _guarded(self, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def guarded(*arguments: object) -> object:
            if self.cut:
                raise Unavailable("the line is cut")
            return await call(*arguments)

        return guarded


async def test_while_the_online_store_is_down_mail_goes_cold(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 10: unknown counts as offline; when the store is back, everything is there, in order, and poked."""
    line = Line(stage, monkeypatch)
    socket = Socket()
    connected = asyncio.create_task(stage.manager.run())
    await stage.manager.connect(BOB, socket, None)
    assert await stage.ids() == []
    async with running(stage):
        line.cut = True
        await stage.producer.publish([stage.message("m1")])
        await stage.producer.publish([stage.message("typing", ephemeral=True)])
        await stage.producer.publish([stage.message("other", EVE)])

        async def announced() -> bool:
            return sorted(await stage.pushed()) == ["m1", "other"]

        await eventually(stage, announced)
        assert await stage.in_cold() == ["m1"]
        await eventually(stage, lambda: waiting(stage, 2))  # the ingress keeps what the store has not been told of
        await stage.producer.publish([stage.message("m2")])
        line.cut = False
        await routed(stage)
        await stage.producer.publish([stage.message("m3")])
        await routed(stage)
        assert await stage.ids() == ["m1", "m2", "m3"]
        assert await stage.hot() == ["m3"], "the outage is over"
        await until(lambda: socket.pokes > 0)
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.in_cold() == ["m2"]
    connected.cancel()
    await asyncio.wait([connected])


async def test_a_pipeline_that_dies_in_an_outage_leaves_its_work_to_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 2, 10."""
    line = Line(stage, monkeypatch)
    await stage.connect()
    assert await stage.ids() == []
    line.cut = True
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])

        async def written() -> bool:
            return await stage.in_cold() == ["m1"]

        await eventually(stage, written)
    line.cut = False
    async with running(stage):
        await routed(stage)
        await stage.producer.publish([stage.message("m2")])
        await routed(stage)
        assert await stage.ids() == ["m1", "m2"]
        await stage.queue.acknowledge(BOB, ["m1", "m2"])
    assert (await stage.ids(), await stage.in_cold()) == ([], [])


async def test_what_is_done_is_not_done_again_when_the_rest_is_repeated(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 2: a message that was refused would be routed after all, once there is room for it."""
    put, route, seen, down = stage.cold.put, stage.online.route, list[list[str]](), ["once"]

    async def fail_once(messages: Sequence[Queued]) -> list[Queued]:
        if messages and down:
            raise Unavailable(f"down, {down.pop()}")
        return await put(messages)

    async def watch(deliveries: Sequence[Delivery]) -> list[Routed]:
        seen.append([delivery.message.id for delivery in deliveries if delivery.message])
        return await route(deliveries)

    await stage.fill(EVE)
    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: fail_once(messages))
    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: watch(deliveries))
    await stage.producer.publish([stage.message("full", EVE)])
    await stage.producer.publish([stage.message("m1")])
    async with running(stage):
        await routed(stage)
    assert seen == [["full", "m1"], ["m1"]]
    assert await stage.letters() == [("full", Outcome.QUEUE_FULL.value)]


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    ("call", "online"),
    [
        *((call, False) for call in ("receive", "route", "put", "settle", "publish", "ack")),
        ("route", True),
        ("ack", True),
    ],
)
async def test_a_pipeline_that_dies_at_any_call_is_followed_by_another(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str, done: bool, online: bool
) -> None:
    """RACES 2: before the call or after it; what it had taken is given to its successor, which completes the rest."""
    if online:
        await stage.connect()
    backend, reached = await opened(stage.factory, EmbeddedBackend), asyncio.Event()
    for number in range(3):
        await stage.producer.publish([stage.message(f"m{number}")])
    with monkeypatch.context() as patch:
        async with backend.consumer() as consumer:
            pushes = await stage.factory.push_notifier()
            where = next(part for part in (consumer, stage.online, stage.cold, pushes) if hasattr(part, call))
            real = getattr(type(where), call)

            async def die(self: object, *arguments: object) -> None:
                if done:
                    await real(self, *arguments)
                reached.set()
                await asyncio.get_running_loop().create_future()

            patch.setattr(type(where), call, die)
            tasks = OwnedTasks(stage.factory.reports.bug)
            pipeline = await made(stage, consumer, pushes, tasks)
            consuming = asyncio.create_task(pipeline.run())
            async with asyncio.timeout(TURN_SECONDS):
                await reached.wait()
            consuming.cancel()
            await tasks.cancel()
            await asyncio.wait([consuming])
            assert pipeline.statistics().tasks == 0
    async with backend.consumer() as consumer:
        consuming = asyncio.create_task((await made(stage, consumer, pushes)).run())
        async with asyncio.timeout(TURN_SECONDS):
            await routed(stage)
        consuming.cancel()
        await asyncio.wait([consuming])
    ids = ["m0", "m1", "m2"]
    assert await stage.ids() == ids
    assert (await stage.hot(), await stage.in_cold()) == ((ids, []) if online else ([], ids))
    assert set(await stage.pushed()) == (set() if online else set(ids))


async def made(
    stage: Stage, consumer: IngressConsumer, push: PushNotifier, tasks: OwnedTasks | None = None
) -> Pipeline:
    """A pipeline of its own, over the stage's queues."""
    return Pipeline(
        consumer,
        stage.online,
        stage.cold,
        push,
        await stage.factory.refuser(),
        max_attempts=5,
        write_through=False,
        clock=stage.clock,
        keeper=stage.factory.keeper,
        chance=stage.factory.chance,
        tasks=tasks or stage.factory.tasks,
        metrics=stage.factory.metrics,
        reports=stage.factory.reports,
    )


async def test_what_is_refused_is_a_dead_letter(stage: Stage) -> None:
    await stage.fill(EVE)
    async with running(stage):
        await stage.producer.publish([stage.message("full", EVE)])
        await routed(stage)
    assert await stage.letters() == [("full", Outcome.QUEUE_FULL.value)]


async def test_what_a_stopped_pipeline_held_is_routed_by_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 35."""
    reached = asyncio.Event()

    async def never(messages: Sequence[Queued]) -> list[Queued]:
        del messages
        reached.set()
        unanswered: asyncio.Future[list[Queued]] = asyncio.get_running_loop().create_future()
        return await unanswered

    with monkeypatch.context() as patch:
        patch.setattr(type(stage.cold), "put", lambda _, messages: never(messages))
        async with running(stage):
            await stage.producer.publish([stage.message("m1")])
            await stage.producer.publish([stage.message("m2")])
            await reached.wait()
    async with running(stage):
        await routed(stage)
    assert await stage.ids() == ["m1", "m2"]


async def test_one_consumer_at_a_time(stage: Stage) -> None:
    """RACES 5: a second process stands by, and goes on with the oldest that is left."""
    backend = await opened(stage.factory, EmbeddedBackend)
    await stage.producer.publish([stage.message("m1")])
    await stage.producer.publish([stage.message("m2")])
    async with backend.consumer() as standby, asyncio.timeout(TURN_SECONDS):
        async with backend.consumer() as consumer:
            (first, _) = await consumer.receive(10)
            await consumer.ack([first])
            waiting = asyncio.create_task(standby.receive(10))
            for _ in range(20):
                stage.clock.advance(1)
                await asyncio.sleep(0)
            assert not waiting.done()
        await ended(stage.clock, waiting)
    assert [delivery.message and delivery.message.id for delivery in waiting.result()] == ["m2"]
