"""RACES 42: damage in the one file: in rows of every kind, in whatever field, and in bytes of the file itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from router.backends.embedded import schema
from router.backends.embedded.rows import cold_message, hot_message
from router.checksum import is_whole
from router.core import damage
from router.messages import DeadLetter, HotPage, Outcome, Queued
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.damage import execute, publish_damaged, spoil
from tests.support.pipelines import TURN_SECONDS, eventually, routed, running
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
SOUND = ("m1", 1, 5, 6, 7, 0, 0, 1, None, b"{}")


async def test_a_damaged_id_deletes_no_other_message(stage: Stage) -> None:
    """One bit makes m3 of m1; the place says which row it is."""
    await stage.connect()
    for id_ in ("m1", "m2", "m3"):
        await stage.go(id_)
    assert execute(stage, "UPDATE hot SET id = 'm3' WHERE id = 'm1'") == 1
    assert await stage.ids() == ["m2", "m3"]
    await stage.queue.acknowledge(BOB, ["m2", "m3"])
    assert await stage.ids() == []
    assert (await stage.hot(), await stage.letters()) == ([], [("m3", "damaged")])
    assert await stage.go("m1") is Outcome.DUPLICATE, "the record knows which it was"


async def test_of_a_page_the_other_message_may_be_out_of_sight(stage: Stage) -> None:
    await stage.connect()
    for id_ in ("m1", "m2", "m3"):
        await stage.go(id_)
    execute(stage, "UPDATE hot SET id = 'm3' WHERE id = 'm1'")
    assert await stage.ids(limit=1) == ["m2"]
    assert await stage.ids() == ["m2", "m3"]
    assert await stage.letters() == [("m3", "damaged")]


@pytest.mark.parametrize("tier", ["hot", "cold"])
async def test_a_damaged_recipient_is_nobody(stage: Stage, tier: str) -> None:
    """It is in another user's queue now, who does not get it."""
    for user in (BOB, EVE) if tier == "hot" else ():
        await stage.connect(user, user)
    for id_, user in (("m1", BOB), ("m2", BOB), ("own", EVE)):
        stage.clock.advance(1)
        await stage.go(id_, user)
    assert execute(stage, f"UPDATE {tier} SET user = ? WHERE id = 'm1'", EVE) == 1
    assert await stage.ids(EVE) == ["own"]
    assert await stage.ids() == ["m2"]
    assert await stage.letters() == [("m1", "damaged")]


@pytest.mark.parametrize("field", ["id = 'other'", "recipient = 'urn:sm:user:bom'", "lane = 7"])
async def test_any_field_of_the_ingress(stage: Stage, field: str) -> None:
    for id_ in ("m1", "m2"):
        await stage.producer.publish([stage.message(id_)])
    assert execute(stage, f"UPDATE ingress SET {field} WHERE id = 'm1'") == 1
    async with running(stage):
        await routed(stage)
    assert await stage.ids() == ["m2"]
    ((_, reason),) = await stage.letters()
    assert reason == "damaged"


async def test_a_place_on_the_way_to_cold_is_free_again(stage: Stage) -> None:
    """RACES 42: its pipeline died before the cold write, and what the ingress brings again is damaged: readers wait
    for nothing any more."""
    message = stage.message("m1")
    await publish_damaged(stage, message)
    assert [routed.outcome for routed in await stage.route(message)] == [Outcome.COLD]
    assert await stage.go("m2") is Outcome.COLD
    assert await stage.ids() == [], "m2 must not overtake"
    async with running(stage):

        async def freed() -> bool:
            return await stage.ids() == ["m2"] and await stage.letters() == [("m1", "damaged")]

        await eventually(stage, freed)


async def test_a_place_on_the_way_to_cold_holds_what_came_there(stage: Stage) -> None:
    """RACES 42: its pipeline died after the cold write; that the ingress brings it again damaged costs nobody mail."""
    message = stage.message("m1")
    await publish_damaged(stage, message)
    (routed,) = await stage.route(message)
    assert await stage.cold.put([Queued(message, routed.sequence, routed.queued_at)]) == []
    assert await stage.go("m2") is Outcome.COLD
    async with running(stage):

        async def told() -> bool:
            return await stage.letters() == [("m1", "damaged")]

        await eventually(stage, told)
    assert await stage.ids() == ["m1", "m2"]
    assert (await stage.online.read(BOB, 1, 1)).pending == []


@pytest.mark.parametrize("sequence_more", [-3, 3])
async def test_a_place_on_the_way_to_cold_takes_what_came_to_another(stage: Stage, sequence_more: int) -> None:
    """RACES 42: a pipeline that could not ask the online store for its place wrote it to cold, and died; other mail
    stands between the two places."""
    message = stage.message("m1")
    await publish_damaged(stage, message)
    (routed,) = await stage.route(message)
    others = [Queued(stage.message(id_), routed.sequence + more, 1) for id_, more in (("a", -1), ("b", 1))]
    copy = Queued(message, routed.sequence + sequence_more, routed.queued_at, unreported=True)
    assert await stage.cold.put([copy, *others]) == []
    async with running(stage):

        async def told() -> bool:
            return await stage.letters() == [("m1", "damaged")]

        await eventually(stage, told)
    assert await stage.ids() == (["m1", "a", "b"] if sequence_more < 0 else ["a", "m1", "b"])
    assert (await stage.online.read(BOB, 1, 1)).pending == []


@pytest.mark.parametrize("tier", ["hot", "cold", "pending"])
@pytest.mark.parametrize("value", [6, -1, 99])
async def test_a_record_in_no_state_costs_no_mail(stage: Stage, tier: str, value: int) -> None:
    """The ingress brings the message again, which may be anywhere: it is served, and gone once it is acknowledged."""
    if tier == "hot":
        await stage.connect()
    message = stage.message("m1")
    await stage.producer.publish([message])
    await (stage.route(message) if tier == "pending" else stage.go("m1"))
    assert execute(stage, f"UPDATE route SET state = {value}") == 1
    async with running(stage):
        await routed(stage)
    assert (await stage.ids(), await stage.letters()) == (["m1"], [])
    await stage.queue.acknowledge(BOB, ["m1"])
    assert (await stage.ids(), await stage.hot(), await stage.in_cold()) == ([], [], [])
    assert await stage.go("m1") is Outcome.DUPLICATE


@pytest.mark.parametrize("value", [6, -1])
async def test_mail_with_a_record_in_no_state_is_acknowledged(stage: Stage, value: int) -> None:
    await stage.connect()
    await stage.go("m1")
    execute(stage, f"UPDATE route SET state = {value}")
    await stage.queue.acknowledge(BOB, ["m1"])
    assert (await stage.ids(), await stage.hot()) == ([], [])


@pytest.mark.parametrize("column", range(len(SOUND)))
@pytest.mark.parametrize("value", [None, "text", b"\xff\xfe", 7, -1, 2.5])
def test_any_type_in_any_column_is_read(column: int, value: object) -> None:
    """A flipped bit in a row's head makes a text of an integer, or nothing."""
    row = [*SOUND[:column], value, *SOUND[column + 1 :]]
    hot = hot_message(BOB, row, 0)
    cold = cold_message(BOB, [*row[:5], *row[6:]])
    for queued in (hot, cold):
        assert isinstance(queued.message.envelope, bytes)
        assert isinstance(queued.message.id, str)
        assert queued.place >= (0, 0) or value == -1
    if column == 9 and value != b"\xff\xfe":
        assert not is_whole(hot.message)


async def test_a_text_that_is_no_utf8_is_read(stage: Stage) -> None:
    await stage.go("m1")
    await stage.go("m2")
    execute(stage, "UPDATE cold SET id = CAST(x'6dff' AS TEXT) WHERE id = 'm1'")
    assert await stage.ids() == ["m2"]
    assert [reason for _, reason in await stage.letters()] == ["damaged"]


async def test_what_an_earlier_version_stored_is_served(stage: Stage) -> None:
    await stage.go("m1")
    await stage.connect()
    await stage.go("m2")
    for tier in ("hot", "cold"):
        assert execute(stage, f"UPDATE {tier} SET checksum = NULL") == 1
    assert await stage.ids() == ["m1", "m2"]
    await stage.migrator.migrate(BOB, online_too=True)
    assert await stage.ids() == ["m1", "m2"]


async def test_a_flipped_bit_in_the_file(tmp_path: Path) -> None:
    """RACES 42: as it was found, in the data file itself, while nobody ran."""
    stores, clock = EmbeddedStores(tmp_path), ManualClock()
    async with staged(stores, clock) as before:
        for id_ in ("m1", "m2"):
            await before.go(id_)
        envelope = before.message("m1").envelope
    path = tmp_path / schema.FILE_NAME
    content = bytearray(path.read_bytes())
    content[content.index(envelope) + 20] ^= 4
    path.write_bytes(content)
    async with staged(stores, clock) as after:
        (left,) = await after.ids()
        ((lost, reason),) = await after.letters()
        assert ({left, lost}, reason) == ({"m1", "m2"}, "damaged")


class Silent:
    """Dead letters that do not answer until they are told to. Counts how often they were asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def publish(self, letters: Sequence[DeadLetter]) -> None:
        self.asked += 1
        await self.answers.wait()


async def test_no_fetch_waits_long_for_dead_letters(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is whole is served, without asking again; what is damaged leaves once they answer, and a client who is
    connected is asked to fetch again for that."""
    await stage.connect()
    for id_ in ("m1", "m2"):
        await stage.go(id_)
    await spoil(stage, "hot", "m1")
    with monkeypatch.context() as patch:
        silent = Silent()
        patch.setattr(type(await stage.factory.dead_letters()), "publish", lambda _, letters: silent.publish(letters))
        patch.setattr(damage, "REPAIR_SECONDS", 0.01)
        async with asyncio.timeout(TURN_SECONDS):
            for _ in range(3):
                assert await stage.ids() == ["m2"]
            assert silent.asked == 1
            assert await stage.hot() == ["m1", "m2"]
            assert [user.cut_at > 0 for user in await stage.online.hot_users("", 10)] == [True]
            silent.answers.set()
            await stage.factory.tasks.settled()
            assert await stage.hot() == ["m2"]
    assert await stage.ids() == ["m2"]
    assert silent.asked == 1
    assert [user.cut_at for user in await stage.online.hot_users("", 10)] == [0]


async def test_what_is_damaged_between_two_looks_of_a_fetch_is_not_taken_for_moved(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 42: the first look found it whole in hot, and that was its only copy."""
    await stage.go("m1")
    await stage.connect()
    await stage.go("m2")
    read = stage.online.read

    async def damaged_after(*arguments: Any, **options: Any) -> HotPage:
        page = await read(*arguments, **options)
        if not options.get("again"):
            await spoil(stage, "hot", "m2")
        return page

    with monkeypatch.context() as patch:
        patch.setattr(stage.online, "read", damaged_after)
        assert await stage.ids() == ["m1"]
    assert (await stage.hot(), await stage.letters()) == (["m2"], [])
    assert await stage.ids() == ["m1"]
    assert (await stage.hot(), await stage.letters()) == ([], [("m2", "damaged")])
