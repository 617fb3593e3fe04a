"""``ColdQueue.find``, and what is made of it. Part of ``QueueContract``."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from router.checksum import NEVER, is_whole
from router.interfaces import MOST_IDS
from router.messages import ColdPage, Lane, Queued
from tests.contract.stage import BOB, EVE, Stage, names
from tests.support.damage import spoil

NEARLY = ["M1", " m1", "m1 ", "m1\0", "m1\0x", "%6D1", "m%", "a/m1", ".", "..", "__m1__", "", "m1" * 3000]
"""Ids that are not m1."""


async def written(stage: Stage, *ids: str, user: str = BOB) -> list[Queued]:
    """To cold, by a pipeline that could not ask the online store for places."""
    queued = list[Queued]()
    for number, id_ in enumerate(ids):
        stage.clock.advance(1)
        now = stage.clock.now()
        message = stage.message(id_, user, lane=Lane(number % 2), keyed=number == 1, size=1000 + number)
        queued.append(Queued(message, now, now + 7, True, attempts=number + 1))
    assert await stage.cold.put(queued) == []
    return queued


def bare(queued: Queued) -> Queued:
    message = queued.message
    return replace(queued, message=replace(message, envelope=b"", checksum=NEVER), left_out=len(message.envelope))


class FindContract:
    """Which of some ids one user's cold queue holds."""

    @pytest.mark.parametrize("envelopes", [False, True])
    async def test_what_is_there_is_found_as_it_is_read(self, stage: Stage, envelopes: bool) -> None:
        """In both lanes; each once, and nothing else; without envelopes, all but these is the same."""
        await stage.connect()
        await stage.go("hot")
        there = await written(stage, "m1", "m2", "m3", "m4")
        found = await stage.cold.find(BOB, ["m3", "unknown", "m1", "m3", "hot", "m2"], envelopes=envelopes)
        found.sort(key=lambda queued: queued.message.id)
        assert found == (there[:3] if envelopes else [bare(queued) for queued in there[:3]])
        assert [is_whole(one.message) for one in found] == [envelopes] * 3, "nobody takes the others for mail"

    async def test_nobody_finds_mail_of_others(self, stage: Stage) -> None:
        """RACES 29, 49: also under an id that both have."""
        await written(stage, "m1", "hers", user=EVE)
        assert await stage.cold.find(BOB, ["m1", "hers"], envelopes=True) == []
        (own,) = await written(stage, "m1")
        assert await stage.cold.find(BOB, ["m1", "hers"], envelopes=True) == [own]

    async def test_an_id_is_found_by_all_of_it(self, stage: Stage) -> None:
        """RACES 31: ids of clients may be anything."""
        await written(stage, "m1")
        assert await stage.cold.find(BOB, NEARLY) == []
        assert names(await stage.cold.find(BOB, [*NEARLY, "m1"])) == ["m1"]

    async def test_find_refuses_more_ids_than_its_bound(self, stage: Stage) -> None:
        ids = [f"m{number}" for number in range(MOST_IDS)]
        await written(stage, ids[0], ids[-1])
        assert sorted(names(await stage.cold.find(BOB, ids))) == sorted([ids[0], ids[-1]])
        assert len(await stage.cold.find(BOB, [*ids, *ids])) == 2, "each counts once"
        with pytest.raises(ValueError, match=f"{MOST_IDS + 1} ids"):
            await stage.cold.find(BOB, [*ids, "one more"])
        assert await stage.cold.find(BOB, []) == []

    async def test_what_is_damaged_is_found_as_it_is(self, stage: Stage) -> None:
        await written(stage, "m1")
        await spoil(stage, "cold", "m1")
        (bare,) = await stage.cold.find(BOB, ["m1"])
        (found,) = await stage.cold.find(BOB, ["m1"], envelopes=True)
        assert (is_whole(found.message), found.damaged, found.place) == (False, False, bare.place)

    async def test_an_acknowledgement_reads_no_page(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """However much is in cold, and whoever it is unknown to."""
        await stage.go("cold")
        await written(stage, "m1", "m2")

        async def fail(*_: object, **__: object) -> ColdPage:
            raise AssertionError("a page was read")

        with monkeypatch.context() as patch:
            patch.setattr(type(stage.cold), "read", fail)
            await stage.queue.acknowledge(BOB, ["m1", "unknown", "cold"])
        assert await stage.in_cold() == ["m2"]
        assert await stage.online.acked(BOB, ["m1", "unknown", "cold"]) == {"m1", "cold"}

    async def test_what_is_behind_the_longest_page_is_acknowledged_and_remembered(self, stage: Stage) -> None:
        """RACES 3, 10: a client may have fetched it before what stands before it now came there."""
        first = [Queued(stage.message(f"a{number}"), number + 1, stage.clock.now()) for number in range(510)]
        assert await stage.cold.put(first) == []
        _, last = await written(stage, "express", "m1")
        await stage.queue.acknowledge(BOB, ["m1"])
        assert (await stage.online.settle([last])).acked == [last], "it does not come back"
        assert await stage.in_cold() == ["express", *names(first)]
