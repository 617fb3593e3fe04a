"""Both lanes have their part of each page (docs/specification.md#pages). A part of ``queues.QueueContract``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from router.core import user_queue as queues
from router.messages import ColdPage, HotPage, Lane, Message, Outcome, Queued, Settled
from tests.contract.answers import CUT, again_after, one_page
from tests.contract.stage import BOB, PAGE_BYTES, Stage, names

pytestmark = pytest.mark.anyio
EXPRESS, NORMAL = Lane.EXPRESS, Lane.NORMAL
SIZE = 1000
"""Bytes of an envelope where bytes are counted."""


async def arrive(stage: Stage, messages: Sequence[Message]) -> None:
    """Route these at once, and do all that is owed for them."""
    routed = await stage.route(*messages)
    pairs = zip(messages, routed, strict=True)
    owed = [Queued(message, one.sequence, one.queued_at) for message, one in pairs if one.outcome is Outcome.COLD]
    if owed:
        assert await stage.cold.put(owed) == []
        assert await stage.online.settle(owed) == Settled([], [])


class Mail:
    """Mail of both lanes for one recipient, and what of it waits."""

    def __init__(self, stage: Stage, size: int = 0) -> None:
        self._stage = stage
        self._size = size
        self._count = 0
        self.express: list[str] = []
        self.normal: list[str] = []

    async def come(self, express: int = 0, normal: int = 0) -> None:
        made = [self._made(self.express, EXPRESS) for _ in range(express)]
        await arrive(self._stage, made + [self._made(self.normal, NORMAL) for _ in range(normal)])

    def _made(self, lane: list[str], which: Lane) -> Message:
        self._count += 1
        lane.append(f"{'en'[which]}{self._count:03}")
        return self._stage.message(lane[-1], lane=which, size=self._size)

    def page(self, express: int, normal: int) -> list[str]:
        """The first of each lane, which leave the queue."""
        page = self.express[:express] + self.normal[:normal]
        del self.express[:express], self.normal[:normal]
        return page


def head(page: HotPage | ColdPage) -> tuple[list[str], set[Lane]]:
    return names(page.messages), set(page.more)


class LaneContract:
    """Express mail comes first, and takes no normal mail its part."""

    @pytest.mark.parametrize("tier", ["hot", "cold", "both", "moving"])
    async def test_a_flood_of_express_mail_holds_up_nobody_elses(self, many: Stage, tier: str) -> None:
        """RACES 48: more comes between two pages than one of them holds."""
        mail = Mail(many)
        if tier in ("cold", "both"):
            await mail.come(express=12, normal=3)
        if tier != "cold":
            await many.connect()
        await mail.come(express=12, normal=3 if tier == "both" else 5)
        if tier == "moving":
            await many.online.begin_move(BOB, "somebody", 8, PAGE_BYTES, online_too=True)
        while mail.normal:
            await mail.come(express=12)
            assert await one_page(many, 10) == mail.page(10 - min(2, len(mail.normal)), 2)
        assert await many.ids() == mail.express

    @pytest.mark.parametrize("online", [False, True])
    async def test_what_one_lane_leaves_of_a_page_is_the_others(self, many: Stage, online: bool) -> None:
        if online:
            await many.connect()
        mail = Mail(many)
        await mail.come(express=3, normal=16)
        assert await one_page(many, 10) == mail.page(3, 7)
        await mail.come(express=17)
        assert await one_page(many, 10) == mail.page(8, 2)
        assert await one_page(many, 3) == mail.page(2, 1)
        assert await one_page(many, 2) == mail.page(1, 1)
        assert await one_page(many, 10) == mail.page(6, 4)
        assert await one_page(many, 10) == mail.page(0, 1)

    @pytest.mark.parametrize("online", [False, True])
    async def test_bytes_are_shared_like_places(
        self, many: Stage, online: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queues, "PAGE_BYTES", 10 * SIZE)
        if online:
            await many.connect()
        mail = Mail(many, size=SIZE)
        await mail.come(express=12, normal=5)
        assert await one_page(many, 50) == mail.page(8, 2)
        monkeypatch.setattr(queues, "PAGE_BYTES", SIZE - 1)
        assert await one_page(many, 50) == mail.page(1, 1), "the first message of each lane fits"
        monkeypatch.setattr(queues, "PAGE_BYTES", 6 * SIZE)
        assert await one_page(many, 50) == mail.page(3, 2)

    async def test_normal_mail_that_waits_for_a_cold_write_leaves_its_places(self, many: Stage) -> None:
        """RACES 6: n1 is on its way to cold, n2 is hot and may not be returned before it."""
        message = many.message("n1")
        (routed,) = await many.route(message)
        await many.connect()
        await many.go("n2")
        mail = Mail(many)
        await mail.come(express=15)
        assert await many.ids(limit=10) == mail.express[:10]
        await many.store(message, routed)
        assert await one_page(many, 10) == [*mail.express[:8], "n1", "n2"]

    @pytest.mark.parametrize("online", [False, True])
    async def test_pages_of_one_place_starve_no_lane(self, many: Stage, online: bool) -> None:
        if online:
            await many.connect()
        mail = Mail(many)
        await mail.come(express=30, normal=30)
        served: list[str] = []
        while mail.express and mail.normal:
            page = await many.ids(limit=1)
            assert page == await one_page(many, 1), "a fetch that is repeated returns the same"
            assert page in (mail.express[:1], mail.normal[:1])
            (mail.express if page == mail.express[:1] else mail.normal).pop(0)
            served += page
        normal = sum(id_.startswith("n") for id_ in served)
        assert 1 <= normal <= len(served) / 2

    async def test_copies_of_acknowledged_mail_take_no_lanes_places(self, many: Stage) -> None:
        """RACES 24: the API died between the two tiers."""
        mail = Mail(many)
        await mail.come(express=25, normal=12)
        await many.online.ack(BOB, mail.page(12, 6))
        assert await many.ids(limit=10) == mail.page(8, 2)

    async def test_a_page_without_the_rest_of_a_lane_is_cut_short(self, many: Stage) -> None:
        """RACES 41: though its store has seen the rest."""
        phone = await many.connect()
        mail = Mail(many)
        await mail.come(express=9, normal=2)
        assert await one_page(many, 10) == mail.page(8, 2)
        assert await again_after(many, phone, CUT) == 1
        assert await one_page(many, 10) == mail.page(1, 0)
        assert await again_after(many, phone, CUT, CUT) == 0

    @pytest.mark.parametrize("online", [False, True])
    async def test_a_store_reads_the_heads_of_both_lanes(self, many: Stage, online: bool) -> None:
        """Enough for whatever the other tier has."""
        if online:
            await many.connect()
        mail, nothing = Mail(many, size=SIZE), set[Lane]()

        async def read(limit: int, size: int = PAGE_BYTES) -> tuple[list[str], set[Lane]]:
            return head(await (many.online if online else many.cold).read(BOB, limit, size))

        await mail.come(normal=12)
        assert await read(12) == (mail.normal, nothing)
        assert await read(10) == (mail.normal[:10], {NORMAL})
        await mail.come(express=7)
        assert await read(10) == (mail.express + mail.normal[:3], {NORMAL})
        assert await read(6) == (mail.express[:6] + mail.normal[:1], {EXPRESS, NORMAL})
        assert await read(1) == (mail.express[:1] + mail.normal[:1], {EXPRESS, NORMAL})
        assert await read(50, 5 * SIZE) == (mail.express[:5] + mail.normal[:1], {EXPRESS, NORMAL})
        assert await read(50, 10 * SIZE) == (mail.express + mail.normal[:3], {NORMAL})
        assert await read(19, 19 * SIZE) == (mail.express + mail.normal, nothing)
        await many.queue.acknowledge(BOB, mail.page(0, 12))
        assert await read(5) == (mail.express[:5], {EXPRESS})
        assert await read(7) == (mail.express, nothing)

    async def test_a_part_behind_a_place_is_in_one_order(self, many: Stage) -> None:
        mail = Mail(many)
        await mail.come(express=4, normal=4)
        page = await many.cold.read(BOB, 3, PAGE_BYTES, (-1, -1))
        assert head(page) == (mail.express[:3], {EXPRESS})
        page = await many.cold.read(BOB, 3, PAGE_BYTES, page.messages[-1].place)
        assert head(page) == (mail.express[3:] + mail.normal[:2], {NORMAL})
        page = await many.cold.read(BOB, 3, PAGE_BYTES, page.messages[-1].place)
        assert head(page) == (mail.normal[2:], set())

    async def test_expired_ephemeral_mail_takes_no_lanes_places(self, many: Stage) -> None:
        await many.connect()
        typing = [many.message(f"t{lane}{n}", lane=lane, ephemeral=True) for lane in Lane for n in range(6)]
        await arrive(many, typing)
        many.clock.advance(10)
        mail = Mail(many)
        await mail.come(express=6, normal=6)
        assert await many.ids(limit=5) == mail.express[:4] + mail.normal[:1]

    async def test_acknowledged_express_mail_that_is_still_in_cold_takes_no_place(self, stage: Stage) -> None:
        await stage.go("e1", lane=Lane.EXPRESS)
        for id_ in ("n1", "n2", "n3", "n4"):
            await stage.go(id_)
        await stage.online.ack(BOB, ["e1"])
        assert await stage.in_cold() == ["e1", "n1", "n2", "n3", "n4"], "nobody has deleted it yet"
        assert await stage.ids(limit=3) == ["n1", "n2", "n3"]
