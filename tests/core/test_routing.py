"""The pipeline over the real embedded components, with faults put between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router.core.routing import CALL_SECONDS, Pipeline
from router.errors import Unavailable
from router.messages import DeadLetter, Delivery, Outcome, Queued, Routed
from tests.contract.stage import BOB, EVE, Socket, Stage, staged, until
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
TURN_SECONDS = 10.0


@asynccontextmanager
async def running(stage: Stage) -> AsyncIterator[Pipeline]:
    """A pipeline at work; on leaving, what it holds is handed back."""
    pipeline = await stage.factory.pipeline()
    consuming = asyncio.create_task(pipeline.run())
    try:
        async with asyncio.timeout(TURN_SECONDS):
            yield pipeline
    finally:
        consuming.cancel()
        await asyncio.wait([consuming])
        await pipeline.hand_back()


async def eventually(stage: Stage, condition: Callable[[], Awaitable[bool]]) -> None:
    """Let the clock run until ``condition`` holds; the caller bounds the time."""
    while not await condition():
        stage.clock.advance(0.01)
        await asyncio.sleep(0)


async def waiting(stage: Stage, count: int) -> bool:
    backlog = await stage.producer.backlog()
    return backlog is not None and backlog.messages == count


async def routed(stage: Stage) -> None:
    await eventually(stage, lambda: waiting(stage, 0))


async def test_mail_is_routed_in_order_and_announced(stage: Stage) -> None:
    async with running(stage):
        for number in range(10):
            await stage.producer.publish(stage.message(f"m{number}"))
        await routed(stage)
        assert await stage.ids() == [f"m{number}" for number in range(10)]
        assert await stage.pushed() == await stage.ids()


async def test_only_what_cold_refused_is_written_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 7."""
    put, calls = stage.cold.put, list[list[str]]()

    async def refuse_the_second(messages: Sequence[Queued]) -> list[Queued]:
        calls.append([queued.message.id for queued in messages])
        refused = [queued for queued in messages if queued.message.id == "m2" and len(calls) < 3]
        return [*await put([queued for queued in messages if queued not in refused]), *refused]

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: refuse_the_second(messages))
    for id_ in ("m1", "m2", "m3"):
        await stage.producer.publish(stage.message(id_))
    async with running(stage):

        async def first_written() -> bool:
            return await stage.in_cold() == ["m1", "m3"]

        await eventually(stage, first_written)
        assert await stage.ids() == ["m1"], "m3 must not overtake m2"
        await routed(stage)
    assert calls == [["m1", "m2", "m3"], ["m2"], ["m2"]]
    assert await stage.ids() == ["m1", "m2", "m3"]
    assert sorted(await stage.pushed()) == ["m1", "m2", "m3"]


async def test_poison_goes_to_the_dead_letters_and_the_rest_flows(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 8."""
    route, tries = stage.online.route, 0

    async def choke(deliveries: Sequence[Delivery]) -> list[Routed]:
        nonlocal tries
        if any(delivery.message and delivery.message.id == "poison" for delivery in deliveries):
            tries += len(deliveries) == 1
            raise ZeroDivisionError
        return await route(deliveries)

    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: choke(deliveries))
    async with running(stage):
        for id_, user in (("poison", BOB), ("m1", BOB), ("other", EVE), ("m2", BOB)):
            await stage.producer.publish(stage.message(id_, user))
        await routed(stage)
    assert await stage.letters() == [("poison", "attempts-exhausted")]
    assert tries == 5
    assert (await stage.ids(), await stage.ids(EVE)) == (["m1", "m2"], ["other"])


async def test_a_call_that_never_answers_holds_up_its_recipient_only(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 11: it times out, is tried again, and other recipients go on meanwhile."""
    put, stuck = stage.cold.put, asyncio.Event()

    async def hang_once(messages: Sequence[Queued]) -> list[Queued]:
        if messages[0].message.recipient == BOB and not stuck.is_set():
            stuck.set()
            raise TimeoutError(f"after {CALL_SECONDS} s")
        return await put(messages)

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: hang_once(messages))
    async with running(stage):
        await stage.producer.publish(stage.message("m1"))
        await stuck.wait()
        await stage.producer.publish(stage.message("m2"))
        await stage.producer.publish(stage.message("other", EVE))

        async def other_is_there() -> bool:
            return await stage.ids(EVE) == ["other"]

        await eventually(stage, other_is_there)
        await routed(stage)
    assert await stage.ids() == ["m1", "m2"]


async def test_a_dependency_that_is_down_counts_against_no_message(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    route, failures = stage.online.route, 0

    async def down(deliveries: Sequence[Delivery]) -> list[Routed]:
        nonlocal failures
        failures += 1
        if failures < 20:
            raise Unavailable("down")
        return await route(deliveries)

    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: down(deliveries))
    async with running(stage):
        await stage.producer.publish(stage.message("m1"))
        await routed(stage)
    assert await stage.letters() == []
    assert await stage.ids() == ["m1"]


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
            await stage.producer.publish(stage.message("typing", ephemeral=True))
            await stage.producer.publish(stage.message("m1"))

            async def readable() -> bool:
                return await stage.hot() == ["typing", "m1"]

            await eventually(stage, readable)
            await eventually(stage, lambda: waiting(stage, 1))
            refusing = False
            await routed(stage)
        assert (await stage.in_cold(), await stage.pushed()) == (["m1"], [])


class Line:
    """The line to the online store, which a test cuts. What hangs on it is the real store."""

    def __init__(self, stage: Stage, patch: pytest.MonkeyPatch) -> None:
        self.cut = False
        for name in ("route", "settle", "probe"):
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
        await stage.producer.publish(stage.message("m1"))
        await stage.producer.publish(stage.message("typing", ephemeral=True))
        await stage.producer.publish(stage.message("other", EVE))

        async def announced() -> bool:
            return sorted(await stage.pushed()) == ["m1", "other"]

        await eventually(stage, announced)
        assert await stage.in_cold() == ["m1"]
        await eventually(stage, lambda: waiting(stage, 2))  # the ingress keeps what the store has not been told of
        await stage.producer.publish(stage.message("m2"))
        line.cut = False
        await routed(stage)
        await stage.producer.publish(stage.message("m3"))
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
        await stage.producer.publish(stage.message("m1"))

        async def written() -> bool:
            return await stage.in_cold() == ["m1"]

        await eventually(stage, written)
    line.cut = False
    async with running(stage):
        await routed(stage)
        await stage.producer.publish(stage.message("m2"))
        await routed(stage)
        assert await stage.ids() == ["m1", "m2"]
        await stage.queue.acknowledge(BOB, ["m1", "m2"])
    assert (await stage.ids(), await stage.in_cold()) == ([], [])


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
        await stage.producer.publish(stage.message(id_))
    async with running(stage):
        await routed(stage)
    assert failures == 3
    assert await stage.letters() == [("poison", "attempts-exhausted")]
    assert await stage.ids() == ["m1"]


async def test_an_outage_leaves_a_message_all_its_own_tries(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    route, calls = stage.online.route, 0

    async def down_then_odd(deliveries: Sequence[Delivery]) -> list[Routed]:
        nonlocal calls
        calls += 1
        if calls <= 20:
            raise Unavailable("down")
        if calls <= 24:
            raise ZeroDivisionError
        return await route(deliveries)

    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: down_then_odd(deliveries))
    async with running(stage):
        await stage.producer.publish(stage.message("m1"))
        await routed(stage)
    assert await stage.letters() == []
    assert await stage.ids() == ["m1"]


async def test_what_is_done_is_not_done_again_when_the_rest_is_repeated(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 2: a message that was refused would be routed after all, once there is room for it."""
    put, route, seen = stage.cold.put, stage.online.route, list[list[str]]()

    async def fail_once(messages: Sequence[Queued]) -> list[Queued]:
        if len(seen) == 1:
            raise Unavailable("down")
        return await put(messages)

    async def watch(deliveries: Sequence[Delivery]) -> list[Routed]:
        seen.append([delivery.message.id for delivery in deliveries if delivery.message])
        return await route(deliveries)

    await stage.go("taken", EVE)
    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: fail_once(messages))
    monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: watch(deliveries))
    await stage.producer.publish(stage.message("taken"))
    await stage.producer.publish(stage.message("m1"))
    async with running(stage):
        await routed(stage)
    assert seen == [["taken", "m1"], ["m1"]]
    assert await stage.letters() == [("taken", Outcome.ID_CONFLICT.value)]


async def test_what_is_refused_is_a_dead_letter(stage: Stage) -> None:
    await stage.go("taken")
    async with running(stage):
        await stage.producer.publish(stage.message("taken", EVE))
        await routed(stage)
    assert await stage.letters() == [("taken", Outcome.ID_CONFLICT.value)]


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
            await stage.producer.publish(stage.message("m1"))
            await stage.producer.publish(stage.message("m2"))
            await reached.wait()
    async with running(stage):
        await routed(stage)
    assert await stage.ids() == ["m1", "m2"]


async def test_one_consumer_at_a_time(stage: Stage) -> None:
    """RACES 5: a second process stands by, and goes on with the oldest that is left."""
    backend = await stage.factory.embedded()
    await stage.producer.publish(stage.message("m1"))
    await stage.producer.publish(stage.message("m2"))
    async with backend.consumer() as standby, asyncio.timeout(TURN_SECONDS):
        async with backend.consumer() as consumer:
            (first, _) = await consumer.receive(10)
            await consumer.ack([first])
            waiting = asyncio.create_task(standby.receive(10))
            for _ in range(20):
                stage.clock.advance(1)
                await asyncio.sleep(0)
            assert not waiting.done()
        while not waiting.done():
            stage.clock.advance(1)
            await asyncio.sleep(0)
    assert [delivery.message and delivery.message.id for delivery in waiting.result()] == ["m2"]
