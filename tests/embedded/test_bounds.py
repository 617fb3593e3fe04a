"""What is kept only for a time does not pile up, however fast it comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.backends.embedded.push import KEEP_LETTERS_SECONDS, KEEP_SECONDS
from router.messages import DeadLetter, DeadReason, Outcome
from tests.contract.stage import BOB, staged
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio


async def test_a_purge_leaves_nothing_that_is_due(tmp_path: Path) -> None:
    clock = ManualClock()
    async with staged(EmbeddedStores(tmp_path), clock) as stage:
        await stage.connect()
        ids = [f"m{number}" for number in range(7)]
        for id_ in ids:
            await stage.go(id_)
            await stage.go("typing" + id_, ephemeral=True)
        await stage.queue.acknowledge(BOB, ids)
        clock.advance(3601)
        assert await stage.online.purge(3, stage.clock.now()) == len(ids)
        await stage.connect()
        assert [await stage.go(id_) for id_ in ids] == [Outcome.HOT] * len(ids)


async def test_dead_letters_have_their_time(tmp_path: Path) -> None:
    clock = ManualClock()
    async with staged(EmbeddedStores(tmp_path), clock) as stage:
        letters = await stage.factory.dead_letters()

        async def bury(id_: str) -> None:
            await letters.publish([DeadLetter(id_, BOB, DeadReason.QUEUE_FULL, "full", b"{}", 1, clock.now())])

        await bury("old")
        clock.advance(KEEP_LETTERS_SECONDS - 1)
        await bury("younger")
        clock.advance(2)
        await bury("new")
        assert await stage.letters() == [("younger", "queue-full"), ("new", "queue-full")]


async def test_commands_have_their_time_however_many_come_at_once(tmp_path: Path) -> None:
    clock = ManualClock()
    async with staged(EmbeddedStores(tmp_path), clock) as stage:
        outbox = await stage.factory.outbox()

        async def publish(name: str) -> None:
            await outbox.publish([stage.message(f"{name}{number}") for number in range(256)])

        for name in ("a", "b"):
            await publish(name)
        clock.advance(KEEP_SECONDS + 1)
        for name in ("c", "d"):
            await publish(name)
        assert {entry.id[0] for entry in await outbox.list(0, 1000)} == {"c", "d"}


async def test_a_record_outlasts_the_copy_that_it_hides(tmp_path: Path) -> None:
    """RACES 24: acknowledged, while its copy in cold cannot be deleted for longer than ids are remembered."""
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        await stage.go("m1")
        await stage.online.ack(BOB, ["m1"])
        stage.clock.advance(2 * 3600)
        await stage.online.purge(10, stage.clock.now())
        assert (await stage.ids(), await stage.in_cold()) == ([], ["m1"])


async def test_an_acknowledgement_is_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    """After power loss too, what was acknowledged does not come back."""
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        await stage.connect()
        await stage.go("m1")
        levels = list[str]()
        (await stage.factory.embedded())._database._writer.set_trace_callback(levels.append)
        await stage.queue.acknowledge(BOB, ["m1"])
        assert levels[0] == "PRAGMA synchronous=FULL"
