"""``CompositeMessageQueue.next``: acknowledge, then fetch, in one exchange. A part of ``queues.QueueContract``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from router.errors import Unavailable
from router.interfaces import Place
from router.messages import ColdPage, HotPage, Lane, Outcome, Queued
from tests.contract.answers import CUT, again_after, waiting
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Stage, names, queue_of

pytestmark = pytest.mark.anyio
STEP = 210
"""More ids than a store acknowledges in one step."""


async def following(stage: Stage, ids: Sequence[str], limit: int = 500) -> list[str]:
    """The page behind ``ids``, which are saved."""
    return names(await stage.queue.next(BOB, ids, limit))


class ExchangeContract:
    """The page behind what is acknowledged with the same call."""

    @pytest.mark.parametrize("tier", ["cold", "hot", "both"])
    async def test_a_queue_is_drained_by_one_call_a_page(self, stage: Stage, tier: str) -> None:
        """RACES 52, 30: each page is what a fetch after the acknowledgement returns, and nothing is left."""
        wanted = [f"m{number}" for number in range(8)]
        cold = {"cold": 8, "hot": 0, "both": 5}[tier]
        for id_ in wanted[:cold]:
            await stage.go(id_, keyed=True)
        await stage.connect()
        for id_ in wanted[cold:]:
            await stage.go(id_, keyed=True)
        acked, fetched = (stage.count(f"router_{what}_total") for what in ("ids_acknowledged", "messages_fetched"))
        read, page = list[str](), list[str]()
        while page := await following(stage, page, 3):
            assert await stage.ids(limit=3) == page
            read += page
        assert read == wanted
        assert (await stage.hot(), await stage.in_cold()) == ([], [])
        assert stage.count("router_ids_acknowledged_total") - acked == 8
        assert stage.count("router_messages_fetched_total") - fetched == 16, "as by a call for each"
        assert await stage.go(wanted[0], keyed=True) is Outcome.DUPLICATE

    async def test_a_page_is_the_same_as_that_of_a_fetch(self, stage: Stage) -> None:
        """Both lanes, both tiers, and all that a page says of each message."""
        for lane in Lane:
            await stage.go(f"cold {lane}", lane=lane)
        await stage.connect()
        for lane in Lane:
            await stage.go(f"hot {lane}", lane=lane, size=3000)
        await stage.go("gone")
        page = await stage.queue.next(BOB, ["gone"], 500)
        assert len(page) == 4
        assert page == await stage.queue.fetch(BOB, 500)

    async def test_a_call_without_ids_is_a_fetch(self, stage: Stage) -> None:
        await stage.go("m1")
        assert await following(stage, []) == await following(stage, []) == ["m1"]

    async def test_exactly_these_are_acknowledged(self, stage: Stage) -> None:
        """RACES 29, 31: whatever else is named."""
        await stage.go("hers", EVE)
        for number in range(3):
            await stage.go(f"cold {number}")
        await stage.connect()
        for number in range(3):
            await stage.go(f"hot {number}")
        ids = ["hot 1", "cold 2", "hot 1", "unknown", "hers", "cold 0", "", "a/m1", ".."]
        assert await following(stage, ids) == ["cold 1", "hot 0", "hot 2"]
        assert await following(stage, ["cold 2", "unknown"]) == ["cold 1", "hot 0", "hot 2"]
        assert await stage.ids(EVE) == ["hers"]

    async def test_what_came_to_cold_without_the_store_is_gone_too(self, stage: Stage) -> None:
        """RACES 52, 10: its pipeline has still to report it."""
        await stage.go("before")
        now = stage.clock.now()
        unreported = [
            Queued(stage.message(id_), now + number, now, unreported=True) for number, id_ in enumerate(["m1", "m2"])
        ]
        assert await stage.cold.put(unreported) == []
        assert await stage.ids() == ["before", "m1", "m2"]
        assert await following(stage, ["m1"]) == ["before", "m2"]
        assert (await stage.online.settle(unreported)).acked == unreported[:1], "it does not come back"
        assert await stage.ids() == ["before", "m2"]

    async def test_many_ids(self, many: Stage) -> None:
        await many.connect()
        await many.route(*(many.message(f"m{number}") for number in range(STEP + 2)))
        assert await following(many, [f"m{number}" for number in range(STEP)]) == [f"m{STEP}", f"m{STEP + 1}"]

    @pytest.mark.parametrize("call", ["ack_and_read", "read"])
    async def test_a_failure_loses_nothing(self, stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        """RACES 52: before and behind the acknowledgement; the call fails, and is repeated."""
        await self._fails_and_loses_nothing(stage, monkeypatch, call)

    async def test_a_failure_before_copies_are_deleted_loses_nothing(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RACES 52: between the acknowledgement and the page."""
        await self._fails_and_loses_nothing(stage, monkeypatch, "delete")

    async def _fails_and_loses_nothing(self, stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        for id_ in ("m1", "m2"):
            await stage.go(id_)
        assert await stage.ids(limit=1) == ["m1"]
        part = stage.online if call == "ack_and_read" else stage.cold

        async def fail(*_: object, **__: object) -> None:
            raise Unavailable("simulated")

        with monkeypatch.context() as patch:
            patch.setattr(part, call, fail)
            queue = queue_of(stage)
            with pytest.raises(Unavailable):
                await queue.next(BOB, ["m1"], 500)
        assert await stage.ids() == (["m1", "m2"] if call == "ack_and_read" else ["m2"])
        assert await following(stage, ["m1"]) == ["m2"]

    async def test_mail_that_moves_meanwhile_is_in_the_page(self, stage: Stage) -> None:
        """RACES 25: to cold, between the acknowledgement with the look at hot, and the look at cold."""
        await stage.go("cold")
        await stage.connect()
        for id_ in ("m1", "m2"):
            await stage.go(id_)
        assert await stage.ids() == ["cold", "m1", "m2"]
        read = stage.cold.read

        async def read_later(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
            await stage.migrator.migrate(BOB, online_too=True)
            return await read(user, limit, max_bytes, after)

        stage.cold.read = read_later  # type: ignore[method-assign]  # the moment that the test forces
        queue = queue_of(stage)
        assert names(await queue.next(BOB, ["m1"], 500)) == ["cold", "m2"]

    async def test_it_answers_pokes_as_a_fetch_does(self, stage: Stage) -> None:
        """RACES 41: a page that is cut short is poked for, and the last one ends that."""
        for number in range(5):
            await stage.go(f"m{number}")
        phone = await stage.connect()
        page = await stage.ids(limit=2)
        assert await again_after(stage, phone, 1.9) == 0
        assert (page := await following(stage, page, 2)) == ["m2", "m3"]
        assert await again_after(stage, phone, 1.9) == 0, "it saves"
        assert await again_after(stage, phone, CUT) == 1, "it has read one page, and stopped"
        assert (page := await following(stage, page, 2)) == ["m4"]
        assert await following(stage, page, 2) == []
        assert not await waiting(stage)
        assert await again_after(stage, phone, 2, 15, 60) == 0

    async def test_who_is_online_has_it_of_the_online_store_alone(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While cold is known to be empty: docs/specification.md#online-store-alone."""

        async def fail(*_: object, **__: object) -> None:
            raise Unavailable("simulated")

        await stage.connect()
        assert await stage.ids() == []
        for name in ("read", "delete", "find"):
            monkeypatch.setattr(stage.queue._cold, name, fail)
        for id_ in ("m1", "m2"):
            assert await stage.go(id_) is Outcome.HOT
        assert await following(stage, ["m1"]) == ["m2"]
        assert await following(stage, ["m2"]) == []

    async def test_the_store_reads_after_it_has_acknowledged(self, stage: Stage) -> None:
        """One call of the seam: what cold may hold, and the head of hot without it; then new mail pokes again."""
        await stage.go("cold")
        await stage.connect()
        for id_ in ("m1", "m2", "typing"):
            await stage.go(id_, ephemeral=id_ == "typing")
        owed, page = await stage.online.ack_and_read(BOB, ["m1", "cold", "unknown"], 1, PAGE_BYTES)
        assert sorted(owed) == ["cold", "unknown"] or (owed, await stage.in_cold()) == ([], []), "who deletes it?"
        assert names(page.messages) == ["m2"]
        assert page.cut_at
        expected = await stage.online.read(BOB, 1, PAGE_BYTES, again=True)
        assert _unmarked(page) == _unmarked(expected)
        stage.clock.advance(10)
        assert await following(stage, ["m2"]) == [], "ephemeral mail has expired"


def _unmarked(page: HotPage) -> tuple[list[Queued], frozenset[Lane], bool, int]:
    return page.messages, page.more, page.cold_empty, page.cold_version
