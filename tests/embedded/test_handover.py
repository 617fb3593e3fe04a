"""What one process leaves to another, or to itself: found by simulation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from router.backends.embedded import ingress
from router.backends.embedded.backend import EmbeddedBackend
from router.backends.embedded.signals import Signals
from router.errors import Unavailable
from router.messages import Outcome
from tests.contract.stage import BOB, PAGE_BYTES, Stage, moved_by_a_wrong_clock, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("piped")]


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as opened:
        yield opened


async def backend(stage: Stage) -> EmbeddedBackend:
    return await opened(stage.factory, EmbeddedBackend)


async def test_a_consumer_that_nobody_wakes_looks_by_itself(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 2: who published died before it could wake anybody; its message is durable all the same."""
    monkeypatch.setattr(ingress, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(Signals, "notify", lambda *_: None)
    async with (await backend(stage)).consumer() as consumer, asyncio.timeout(60):
        receiving = asyncio.create_task(consumer.receive(10))
        await asyncio.sleep(0)
        await stage.producer.publish([stage.message("m1")])
        (delivery,) = await receiving
    assert delivery.message is not None
    assert delivery.message.id == "m1"


async def test_a_consumer_that_stands_by_is_woken_when_the_other_one_ends(stage: Stage) -> None:
    """One that has stopped standing by does not get the lock in its place."""
    store = await backend(stage)
    await stage.producer.publish([stage.message("m1")])
    async with AsyncExitStack() as first, AsyncExitStack() as gone, store.consumer() as second, asyncio.timeout(60):
        await (await first.enter_async_context(store.consumer())).receive(10)
        waiting = asyncio.create_task((await gone.enter_async_context(store.consumer())).receive(10))
        standing_by = asyncio.create_task(second.receive(10))
        await asyncio.sleep(0)
        assert [task.done() for task in (waiting, standing_by)] == [False, False]
        waiting.cancel()
        await asyncio.wait([waiting])
        await gone.aclose()
        await first.aclose()
        (delivery,) = await standing_by
        assert delivery.delivered_before


async def test_what_another_consumer_may_have_delivered_counts_as_delivered(stage: Stage) -> None:
    """RACES 2: a pipeline that died may have written it to cold without the online store."""
    await stage.producer.publish([stage.message("m1")])
    async with (await backend(stage)).consumer() as consumer:
        await consumer.receive(10)
        await stage.producer.publish([stage.message("m2")])
        (fresh,) = await consumer.receive(10)
    async with (await backend(stage)).consumer() as successor:
        again = await successor.receive(10)
    assert (fresh.delivered_before, [delivery.delivered_before for delivery in again]) == (False, [True, True])
    assert [delivery.attempt for delivery in again] == [1, 1], "that it was lost is no try of the message's own"


async def test_what_was_handed_back_survives_a_read_that_fails(stage: Stage) -> None:
    """It is behind the consumer's cursor: whoever forgot it would leave it until the next start."""
    await stage.producer.publish([stage.message("m1")])
    database = (await backend(stage))._database
    async with (await backend(stage)).consumer() as consumer, asyncio.timeout(60):
        await consumer.nack(await consumer.receive(10))
        database._reader.set_progress_handler(lambda: 1, 1)
        with pytest.raises(Unavailable, match="interrupted"):
            await consumer.receive(10)
        database._reader.set_progress_handler(None, 1)
        (again,) = await consumer.receive(10)
    assert (again.message is not None, again.attempt) == (True, 2)


async def test_a_recipient_who_gets_mail_meanwhile_is_not_forgotten(stage: Stage) -> None:
    """The sweeper finds a user of whom nothing is queued; before it forgets them, a message is routed."""
    assert await stage.go("m0") is Outcome.COLD
    await stage.queue.acknowledge(stage.message("m0").recipient, ["m0"])
    stage.clock.advance(10)
    assert await stage.ids() == []
    routing = asyncio.create_task(stage.route(stage.message("m1")))
    await asyncio.sleep(0)
    await stage.online.purge(100, stage.clock.now())
    (routed,) = await routing
    await stage.store(stage.message("m1"), routed)
    assert await stage.ids() == ["m1"]
    reader = (await backend(stage))._database
    assert reader.read(lambda db: db.execute("SELECT cold, pending FROM recipient").fetchall()) == [(1, 0)]


@pytest.mark.parametrize("comes_online", [False, True])
async def test_a_recipient_who_was_forgotten_has_no_version_again(stage: Stage, comes_online: bool) -> None:
    """A fetch found cold empty; before it says so, its user is forgotten, and gets mail anew."""
    assert await stage.go("m0") is Outcome.COLD
    await stage.queue.acknowledge(BOB, ["m0"])
    seen = await stage.online.read(BOB, 10, PAGE_BYTES)
    stage.clock.advance(10)
    await stage.online.purge(100, stage.clock.now())
    if comes_online:
        await stage.online.disconnect([await stage.connect()])
    assert await stage.go("m1") is Outcome.COLD
    await stage.online.note_cold_empty(BOB, seen.cold_version)
    assert await stage.ids() == ["m1"]


async def test_a_migration_lease_of_a_clock_that_was_ahead_keeps_no_user(stage: Stage) -> None:
    await moved_by_a_wrong_clock(stage)
    for seconds in (61, 3601, 3601, 61):
        stage.clock.advance(seconds)
        await stage.sweeper.sweep()
    reader = (await backend(stage))._database
    assert reader.read(lambda db: db.execute("SELECT user FROM recipient").fetchall()) == []
