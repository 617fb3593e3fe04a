"""RACES 42: what every pair of stores does with mail that is damaged in them; it is never served. A backend's test
subclasses this unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from router.checksum import checksum
from router.errors import Unavailable
from router.interfaces import DeadLetters
from router.messages import DeadLetter, Lane, Message, MigrationResult, Outcome, Queued
from tests.contract.stage import BOB, PAGE_BYTES, Stage, names
from tests.support.damage import Change, Tier, cut_off, flipped, spoil

pytestmark = pytest.mark.anyio
TIERS = pytest.mark.parametrize("tier", ["hot", "cold"])


async def fill(stage: Stage, tier: Tier, *ids: str, keyed: bool = False) -> None:
    if tier == "hot":
        await stage.connect()
    for id_ in ids:
        await stage.go(id_, keyed=keyed)


def damaged(stage: Stage) -> float:
    return stage.count("router_dead_letters_total", reason="damaged")


def of(stage: Stage, id_: str, envelope: bytes, *, summed: bool = True) -> Queued:
    """A message for BOB, in the place of now."""
    now = stage.clock.now()
    sum_ = checksum(id_, BOB, envelope) if summed else None
    message = replace(stage.message(id_), envelope=envelope, checksum=sum_)
    return Queued(message, now, now)


async def cold_messages(stage: Stage) -> list[tuple[Message, int]]:
    return [(queued.message, queued.sequence) for queued in (await stage.cold.read(BOB, 10, PAGE_BYTES)).messages]


async def written_again(stage: Stage, *ids: str) -> None:
    """To cold, by a pipeline that could not ask the online store for places, and told it later."""
    for id_ in ids:
        queued = in_place_of_now(stage, id_)
        assert await stage.cold.put([queued]) == []
        await stage.online.settle([queued])


def in_place_of_now(stage: Stage, id_: str) -> Queued:
    stage.clock.advance(1)
    queued = Queued(stage.message(id_), stage.clock.now(), stage.clock.now())
    stage.clock.advance(1)
    return queued


async def closed(stage: Stage, patch: pytest.MonkeyPatch) -> None:
    """Nobody takes dead letters."""

    async def publish(_: DeadLetters, letters: Sequence[DeadLetter]) -> None:
        raise Unavailable("simulated")

    patch.setattr(type(await stage.factory.dead_letters()), "publish", publish)


class DamageContract:
    """One message of several is damaged."""

    @TIERS
    @pytest.mark.parametrize("change", [flipped, cut_off])
    async def test_a_damaged_message_becomes_a_dead_letter_and_others_are_served(
        self, stage: Stage, tier: Tier, change: Change
    ) -> None:
        await fill(stage, tier, "m1", "m2", "m3", keyed=True)
        await spoil(stage, tier, "m2", change)
        assert await stage.ids() == ["m1", "m3"]
        assert await stage.ids() == ["m1", "m3"]
        assert await stage.letters() == [("m2", "damaged")]
        assert damaged(stage) == 1
        assert [*await stage.hot(), *await stage.in_cold()] == ["m1", "m3"], "it has left the queue"
        assert await stage.go("m2", keyed=True) is Outcome.DUPLICATE, "and does not come back"
        await stage.queue.acknowledge(BOB, ["m1", "m3"])
        assert await stage.ids() == []

    async def test_a_pipeline_that_tells_of_it_too_late_is_told_that_it_is_gone(self, stage: Stage) -> None:
        """It was written to cold while the online store could not be asked: it must not count as mail in cold then."""
        unreported = replace(in_place_of_now(stage, "m1"), unreported=True)
        assert await stage.cold.put([unreported]) == []
        await spoil(stage, "cold", "m1")
        assert await stage.ids() == []
        assert await stage.letters() == [("m1", "damaged")]
        assert (await stage.online.settle([unreported])).acked == [unreported]

    @TIERS
    async def test_a_damaged_message_takes_no_place_in_a_page(self, stage: Stage, tier: Tier) -> None:
        sent = [f"m{number}" for number in range(6)]
        await fill(stage, tier, *sent)
        for id_ in sent[:3]:
            await spoil(stage, tier, id_)
        assert await stage.ids(limit=2) == sent[3:5]
        assert sorted(await stage.letters()) == [(id_, "damaged") for id_ in sent[:3]]

    @TIERS
    async def test_without_dead_letters_it_stays_and_is_not_served(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, tier: Tier
    ) -> None:
        sent = [f"m{number}" for number in range(6)]
        await fill(stage, tier, *sent)
        for id_ in sent[:3]:
            await spoil(stage, tier, id_)
        with monkeypatch.context() as patch:
            await closed(stage, patch)
            assert await stage.ids(limit=2) == sent[3:5]
            assert [*await stage.hot(), *await stage.in_cold()] == sent
        assert await stage.ids(limit=2) == sent[3:5]
        assert sorted(await stage.letters()) == [(id_, "damaged") for id_ in sent[:3]]

    @TIERS
    async def test_it_takes_no_place_that_is_kept_for_normal_mail(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, tier: Tier
    ) -> None:
        """RACES 48: though it cannot be removed."""
        await fill(stage, tier, "m0", "m1", "m2", "m3", "m4")
        for id_ in ("m0", "m1", "m2"):
            await spoil(stage, tier, id_)
        express = [f"e{number}" for number in range(9)]
        for id_ in express:
            await stage.go(id_, lane=Lane.EXPRESS)
        await closed(stage, monkeypatch)
        assert await stage.ids(limit=5) == [*express[:4], "m3"]

    async def test_the_copy_in_cold_is_served_instead(self, doubled: Stage) -> None:
        await fill(doubled, "hot", "m1", "m2", "m3")
        await spoil(doubled, "hot", "m2")
        assert await doubled.ids() == ["m1", "m2", "m3"]
        assert await doubled.hot() == ["m1", "m2", "m3"], "nobody has announced it"
        assert await doubled.in_cold() == ["m1", "m2", "m3"]
        await doubled.queue.acknowledge(BOB, ["m1", "m2", "m3"])
        assert (await doubled.ids(), await doubled.in_cold(), await doubled.letters()) == ([], [], [])

    async def test_nothing_is_looked_for_whose_whole_copy_is_served(
        self, doubled: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is damaged in hot stays until the next move, and each fetch meets it."""
        await fill(doubled, "hot", "m1", "m2")
        await written_again(doubled, "m3")
        await doubled.go("m4")
        for id_ in ("m1", "m4"):
            await spoil(doubled, "hot", id_)
        looks = list[str]()

        async def look(user: str, queued: Queued) -> Queued | None:
            looks.append(queued.message.id)
            return queued

        with monkeypatch.context() as patch:
            patch.setattr(doubled.migrator.damage, "copy_in_cold", look)
            assert await doubled.ids() == await doubled.ids() == ["m1", "m2", "m3", "m4"]
        assert looks == []

    async def test_the_hot_copy_is_served_instead_and_mends_the_other(self, doubled: Stage) -> None:
        await fill(doubled, "hot", "m1", "m2", "m3")
        await spoil(doubled, "cold", "m2")
        assert await doubled.ids() == ["m1", "m2", "m3"]
        await doubled.migrator.migrate(BOB, online_too=True)
        assert await doubled.hot() == []
        assert await doubled.ids() == ["m1", "m2", "m3"]
        assert await doubled.letters() == []

    async def test_both_copies_are_damaged(self, doubled: Stage) -> None:
        await fill(doubled, "hot", "m1", "m2", "m3")
        for tier in ("hot", "cold"):
            await spoil(doubled, tier, "m2")
        assert await doubled.ids() == ["m1", "m3"]
        assert await doubled.letters() == [("m2", "damaged")]
        assert (await doubled.hot(), await doubled.in_cold()) == (["m1", "m3"], ["m1", "m3"])

    @pytest.mark.parametrize("behind", [0, 3])
    @pytest.mark.parametrize("limit", [1, 500])
    async def test_a_copy_elsewhere_in_cold_comes_to_its_place(self, stage: Stage, limit: int, behind: int) -> None:
        """The ingress brought it again while the online store could not be asked: cold has it at a later place."""
        await fill(stage, "hot", "m1", "m2", "m3")
        await written_again(stage, *(f"c{number}" for number in range(behind)), "m1")
        await spoil(stage, "hot", "m1")
        sent = ["m1", "m2", "m3", *(f"c{number}" for number in range(behind))]
        assert await stage.ids(limit=limit) == sent[:limit]
        assert (await stage.ids(), await stage.letters()) == (sent, [])
        await stage.queue.acknowledge(BOB, sent)
        assert (await stage.ids(), await stage.hot(), await stage.in_cold()) == ([], [], [])

    @pytest.mark.parametrize("limit", [1, 500])
    async def test_a_copy_elsewhere_in_hot_mends_the_first(self, stage: Stage, limit: int) -> None:
        """It came to cold while the online store could not be asked; then the ingress brought it again."""
        unreported = in_place_of_now(stage, "m1")
        assert await stage.cold.put([unreported]) == []
        await fill(stage, "hot", "m2", "m1")
        await stage.online.settle([unreported])
        await spoil(stage, "cold", "m1")
        assert await stage.ids(limit=limit) == ["m1", "m2"][:limit]
        assert (await stage.ids(), await stage.letters()) == (["m1", "m2"], [])
        assert (await stage.in_cold(), await stage.hot()) == (["m1"], ["m2", "m1"])

    async def test_it_moves_to_the_place_of_the_damaged_one(self, stage: Stage) -> None:
        await fill(stage, "hot", "m1", "m2", "m3")
        await written_again(stage, "m1")
        await spoil(stage, "hot", "m1")
        await stage.migrator.migrate(BOB, online_too=True)
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m1", "m2", "m3"])
        assert (await stage.ids(), await stage.letters()) == (["m1", "m2", "m3"], [])
        assert sorted(await stage.pushed()) == ["m1", "m2", "m3"], "each is announced"

    async def test_a_damaged_hot_message_goes_if_cold_has_a_copy_at_an_earlier_place(self, stage: Stage) -> None:
        unreported = in_place_of_now(stage, "m1")
        assert await stage.cold.put([unreported]) == []
        await fill(stage, "hot", "m2", "m1")
        await stage.online.settle([unreported])
        await spoil(stage, "hot", "m1")
        assert await stage.ids() == ["m1", "m2"]
        await stage.migrator.migrate(BOB, online_too=True)
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m1", "m2"])
        assert (await stage.ids(), await stage.letters()) == (["m1", "m2"], [])

    @pytest.mark.parametrize("summed", [True, False])
    async def test_the_first_under_an_id_stays_in_cold(self, stage: Stage, summed: bool) -> None:
        """A retry may have been encrypted again, while the first one is served already; it may only come before it."""
        first, retry = of(stage, "m1", b"first", summed=summed), of(stage, "m1", b"encrypted again")
        assert await stage.cold.put([first]) == []
        for sequence in (first.sequence, first.sequence + 1):
            assert await stage.cold.put([replace(retry, sequence=sequence)]) == []
            assert await cold_messages(stage) == [(first.message, first.sequence)]
        assert await stage.cold.put([replace(retry, sequence=first.sequence - 1)]) == []
        assert await cold_messages(stage) == [(first.message, first.sequence - 1)]

    @pytest.mark.parametrize("change", [flipped, cut_off])
    async def test_a_damaged_copy_is_written_anew(self, stage: Stage, change: Change) -> None:
        message = of(stage, "m1", b"as it was accepted")
        assert await stage.cold.put([message]) == []
        await spoil(stage, "cold", "m1", change)
        assert await stage.cold.put([replace(message, sequence=message.sequence + 1)]) == []
        assert await cold_messages(stage) == [(message.message, message.sequence)]
        assert (await stage.cold.totals(BOB)).bytes == len(message.message.envelope)

    @pytest.mark.parametrize("again", ["put", "repair"])
    async def test_what_is_written_anew_is_still_to_be_told(self, stage: Stage, again: str) -> None:
        message = of(stage, "m1", b"as it was accepted")
        assert await stage.cold.put([replace(message, unreported=True)]) == []
        await spoil(stage, "cold", "m1")
        await (stage.cold.put([message]) if again == "put" else stage.cold.repair(BOB, [message]))
        assert await cold_messages(stage) == [(message.message, message.sequence)]
        assert names(await stage.cold.unreported(stage.clock.now(), 10)) == ["m1"]

    async def test_a_damaged_hot_message_is_not_moved_to_cold(self, stage: Stage) -> None:
        await fill(stage, "hot", "m1", "m2", "m3")
        await spoil(stage, "hot", "m2")
        migrated = await stage.migrator.migrate(BOB, online_too=True)
        assert (migrated.moved, migrated.result) == (2, MigrationResult.DONE)
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m1", "m3"])
        assert await stage.letters() == [("m2", "damaged")]
        assert sorted(await stage.pushed()) == ["m1", "m3"], "nobody is told of it"

    async def test_a_damaged_hot_message_does_not_replace_a_whole_copy_in_cold(self, doubled: Stage) -> None:
        await fill(doubled, "hot", "m1", "m2", "m3")
        await spoil(doubled, "hot", "m2")
        await doubled.migrator.migrate(BOB, online_too=True)
        assert await doubled.hot() == []
        assert await doubled.ids() == ["m1", "m2", "m3"]
        assert await doubled.letters() == []

    async def test_without_dead_letters_the_rest_moves(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        await fill(stage, "hot", "m1", "m2", "m3")
        await spoil(stage, "hot", "m1")
        with monkeypatch.context() as patch:
            await closed(stage, patch)
            with pytest.raises(Unavailable):
                await stage.migrator.migrate(BOB, online_too=True)
        assert (await stage.hot(), await stage.in_cold()) == (["m1"], ["m2", "m3"])
        await stage.migrator.migrate(BOB, online_too=True)
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m2", "m3"])
        assert await stage.letters() == [("m1", "damaged")]

    async def test_the_whole_copy_is_announced_when_it_is_left(self, doubled: Stage) -> None:
        """Sweepers announce what is whole, and count the damaged one as announced."""
        phone = await doubled.connect()
        await fill(doubled, "hot", "m1", "m2")
        await spoil(doubled, "hot", "m1")
        for _ in range(2):
            doubled.clock.advance(31)
            await doubled.online.renew([phone])
        await doubled.sweeper.sweep()
        assert await doubled.pushed() == ["m2"]
        await doubled.online.disconnect([phone])
        await doubled.migrator.migrate(BOB)
        assert sorted(await doubled.pushed()) == ["m1", "m2"]

    async def test_a_damaged_hot_message_is_not_announced(self, stage: Stage) -> None:
        await fill(stage, "hot", "m1", "m2", "m3")
        await spoil(stage, "hot", "m2")
        stage.clock.advance(61)
        await stage.connect()
        await stage.sweeper.sweep()
        assert await stage.pushed() == ["m1", "m3"]
