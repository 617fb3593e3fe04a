"""What is kept only for a time does not pile up, however fast it comes."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.backends.embedded.backend import EmbeddedBackend
from router.backends.embedded.push import EXPIRED_MORE, KEEP_SECONDS
from router.config import Embedded
from router.dead_reasons import DeadReason
from router.factory import Factory
from router.messages import DeadLetter, Outcome
from tests.contract.stage import BOB, EVE, staged
from tests.embedded.steps import steps_of
from tests.support.backends import opened
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


LETTER_BYTES = 1024
"""What a letter counts beside its body."""
MONTH_SECONDS = Embedded().dead_letter_days * 86_400


class Letters:
    """The dead letters of a router that keeps ``most`` of this size."""

    size = 1000

    def __init__(self, stores: EmbeddedStores, clock: ManualClock, most: float) -> None:
        config = stores.config()
        kept = config.embedded.model_copy(update={"dead_letter_bytes": int(most * (self.size + LETTER_BYTES))})
        self.factory = Factory(config.model_copy(update={"embedded": kept}), clock=clock)
        self._stores = stores

    async def bury(self, *ids: str, user: str = BOB) -> None:
        body = b"x" * self.size
        letters = [DeadLetter(id_, user, DeadReason.QUEUE_FULL, "full", body, 1, 1) for id_ in ids]
        await (await self.factory.dead_letters()).publish(letters)

    async def ids(self) -> list[str]:
        return [id_ for id_, _ in await self._stores.letters(self.factory)]

    def dropped(self, reason: str) -> float | None:
        return self.factory.metrics.registry.get_sample_value("router_messages_dropped_total", {"reason": reason})


async def test_dead_letters_have_a_cap(tmp_path: Path) -> None:
    """The oldest go, are counted, and the log says so; what is removed makes room."""
    letters = Letters(EmbeddedStores(tmp_path), ManualClock(), 3.5)
    async with letters.factory:
        with capture_logs() as logged:
            await letters.bury("a", "b", "c")
        assert logged == []
        with capture_logs() as logged:
            await letters.bury("d", "e")
        assert await letters.ids() == ["c", "d", "e"]
        (told,) = logged
        assert (told["log_level"], told["dropped"], told["limit"]) == ("warning", 2, "embedded.dead_letter_bytes")
        assert letters.dropped("letter-bytes") == 2
        box = await letters.factory.dead_letter_box()
        await box.remove([(await box.list(0, 1))[0][0]])
        await letters.bury("f")
        assert await letters.ids() == ["d", "e", "f"]


async def test_the_dead_letters_of_one_recipient_push_out_nobody_elses(tmp_path: Path) -> None:
    letters = Letters(EmbeddedStores(tmp_path), ManualClock(), 4)
    async with letters.factory:
        await letters.bury("eve's", user=EVE)
        for number in range(20):
            await letters.bury(f"m{number}")
        assert await letters.ids() == ["eve's", "m17", "m18", "m19"]


async def test_without_a_cap_dead_letters_are_kept(tmp_path: Path) -> None:
    letters = Letters(EmbeddedStores(tmp_path), ManualClock(), 0)
    async with letters.factory:
        await letters.bury(*map(str, range(300)))
        assert len(await letters.ids()) == 300


async def test_a_cap_that_was_lowered_holds_up_nobody_for_long(tmp_path: Path) -> None:
    stores, clock = EmbeddedStores(tmp_path), ManualClock()
    before, now = Letters(stores, clock, 1000), Letters(stores, clock, 2)
    async with before.factory:
        await before.bury(*map(str, range(300)))
    async with now.factory:
        await now.bury("a")
        assert len(await now.ids()) == 300 - EXPIRED_MORE, "so many go with each that comes"
        for id_ in "bcd":
            await now.bury(id_)
        assert await now.ids() == ["c", "d"]


async def test_dead_letters_have_their_time(tmp_path: Path) -> None:
    clock = ManualClock()
    async with staged(EmbeddedStores(tmp_path), clock) as stage:
        letters = await stage.factory.dead_letters()

        async def bury(id_: str) -> None:
            await letters.publish([DeadLetter(id_, BOB, DeadReason.QUEUE_FULL, "full", b"{}", 1, clock.now())])

        await bury("old")
        clock.advance(MONTH_SECONDS - 1)
        await bury("younger")
        clock.advance(2)
        await bury("new")
        assert await stage.letters() == [("younger", "queue-full"), ("new", "queue-full")]
        dropped = stage.factory.metrics.registry.get_sample_value(
            "router_messages_dropped_total", {"reason": "letter-age"}
        )
        assert dropped == 1


@pytest.mark.usefixtures("piped")
async def test_commands_have_their_time_however_many_come_at_once(tmp_path: Path) -> None:
    clock = ManualClock()
    async with staged(EmbeddedStores(tmp_path), clock) as stage:
        outbox = await (await opened(stage.factory, EmbeddedBackend)).outbox()

        async def publish(name: str) -> None:
            await outbox.publish([stage.message(f"{name}{number}") for number in range(256)])

        for name in ("a", "b"):
            await publish(name)
        clock.advance(KEEP_SECONDS + 1)
        for name in ("c", "d"):
            await publish(name)
        assert {entry.id[0] for entry in await outbox.list(0, 1000)} == {"c", "d"}


async def test_commands_of_mail_that_was_routed_at_once_have_their_time(tmp_path: Path) -> None:
    """A week; their mail stays."""
    clock = ManualClock()
    async with staged(EmbeddedStores(tmp_path), clock, cap=1000) as stage:
        stage.factory.keeper.look()
        clock.advance(2 * 3600)
        await stage.producer.publish([stage.message(f"old {number}") for number in range(EXPIRED_MORE)])
        clock.advance(KEEP_SECONDS + 10)
        for number in range(EXPIRED_MORE):
            await stage.producer.publish([stage.message(f"new {number}", EVE)])
        assert {id_[:3] for id_ in await stage.pushed()} == {"new"}
        assert len(await stage.in_cold()) == EXPIRED_MORE


@pytest.mark.usefixtures("piped")
async def test_a_record_outlasts_the_copy_that_it_hides(tmp_path: Path) -> None:
    """RACES 24: acknowledged, while its copy in cold cannot be deleted for longer than ids are remembered."""
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        await stage.go("m1")
        await stage.online.ack(BOB, ["m1"])
        stage.clock.advance(2 * 3600)
        await stage.online.purge(10, stage.clock.now())
        assert (await stage.ids(), await stage.in_cold()) == ([], ["m1"])


async def test_an_acknowledgement_is_on_disk_when_it_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After power loss too, what was acknowledged does not come back."""
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        await stage.connect()
        await stage.go("m1")
        steps = steps_of((await opened(stage.factory, EmbeddedBackend))._database, monkeypatch)
        await stage.queue.acknowledge(BOB, ["m1"])
        assert steps[-2:] == ["COMMIT", "sync"]
