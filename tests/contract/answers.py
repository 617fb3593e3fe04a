"""What answers a poke: only a fetch that came to the end of the queue. A part of ``queues.QueueContract``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from router.core import user_queue as queues
from router.core.sweeper import CUT_SECONDS
from router.errors import Unavailable
from router.interfaces import Place
from router.messages import ColdPage, Connection, Lane, MoveRefused, Queued
from tests.contract.stage import BOB, PAGE_BYTES, Stage, names, queue_of

pytestmark = pytest.mark.anyio
REPEATED = "router_pokes_total"
CUT = CUT_SECONDS + 0.001
"""Each mark is later than the one before, and so by a few microseconds than the clock here."""


async def again_after(stage: Stage, connection: Connection, *spans: float) -> float:
    """How many pokes sweepers repeat, of those who sweep after each of ``spans`` seconds."""
    before = stage.count(REPEATED, kind="repeat")
    for seconds in spans:
        stage.clock.advance(seconds)
        await stage.online.renew([connection])
        await stage.sweeper.sweep()
    return stage.count(REPEATED, kind="repeat") - before


async def one_page(stage: Stage, limit: int) -> list[str]:
    """What an existing client does for each poke: a page, saved and acknowledged."""
    page = await stage.ids(limit=limit)
    await stage.queue.acknowledge(BOB, page)
    return page


async def waiting(stage: Stage) -> bool:
    """Whether anybody is to be poked, or has hot mail."""
    return await stage.online.hot_users("", 10) != []


class AnswerContract:
    """One page a poke, and what else a page that was cut short means."""

    @pytest.mark.parametrize("tier", ["cold", "hot", "both", "moving"])
    async def test_one_page_a_poke_drains_a_queue(self, stage: Stage, tier: str) -> None:
        """RACES 41: whichever tier the rest is in; each poke but the first comes 2 s after the acknowledgement."""
        wanted = [f"m{number}" for number in range(7)]
        if tier in ("cold", "both"):
            for id_ in wanted[: 7 if tier == "cold" else 4]:
                await stage.go(id_)
        phone = await stage.connect()
        for id_ in {"cold": [], "both": wanted[4:]}.get(tier, wanted):
            await stage.go(id_)
        if tier == "moving":
            await stage.online.begin_move(BOB, "somebody", 5, PAGE_BYTES, online_too=True)
        read = await one_page(stage, 3)
        for _ in range(2):
            assert await again_after(stage, phone, 1) == 0, "it may be about to fetch by itself"
            assert await again_after(stage, phone, 1.1) == 1
            read += await one_page(stage, 3)
        assert read == wanted
        assert not await waiting(stage)
        assert await again_after(stage, phone, 2, 15, 60) == 0

    async def test_a_page_cut_by_its_bytes_is_cut(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """RACES 41."""
        monkeypatch.setattr(queues, "PAGE_BYTES", 1)
        await stage.go("cold")
        phone = await stage.connect()
        for id_ in ("m1", "m2"):
            await stage.go(id_)
        read = await one_page(stage, 50)
        for _ in range(2):
            assert await again_after(stage, phone, CUT) == 1
            read += await one_page(stage, 50)
        assert read == ["cold", "m1", "m2"]
        assert not await waiting(stage)

    @pytest.mark.parametrize("lane", list(Lane))
    @pytest.mark.parametrize("cold", [True, False])
    async def test_who_drains_is_not_poked_again(self, stage: Stage, cold: bool, lane: Lane) -> None:
        """RACES 41: fetches again within 2 s of each fetch and acknowledgement, however long it takes in all; what is
        hot, and was fetched to the end, is poked for after 15 s all the same."""
        phone = None if cold else await stage.connect()
        for number in range(8 if cold else 3):
            await stage.go(f"m{number}", lane=lane)
        phone = phone or await stage.connect()
        assert await again_after(stage, phone, 1) == 0
        while page := await stage.ids(limit=1):
            assert await again_after(stage, phone, 1.9) == 0, "it saves"
            await stage.queue.acknowledge(BOB, page)
            assert await again_after(stage, phone, 1.9) == 0, "it rests"
        assert not await waiting(stage)
        assert await again_after(stage, phone, 2, 2, 60) == 0

    async def test_a_cut_page_that_nobody_had_to_be_poked_for(self, stage: Stage) -> None:
        """RACES 41: all was fetched before, and not acknowledged; then somebody takes a part of it."""
        await stage.connect()
        for number in range(3):
            await stage.go(f"m{number}")
        await stage.migrator.migrate(BOB, online_too=True)
        phone = await stage.connect()
        assert len(await stage.ids()) == 3
        assert not await waiting(stage)
        assert await one_page(stage, 1) == ["m0"]
        assert await again_after(stage, phone, CUT) == 1
        assert await one_page(stage, 3) == ["m1", "m2"]
        assert not await waiting(stage)

    @pytest.mark.parametrize("poked", ["connected", "poked"])
    async def test_a_fetch_that_dies_answers_nothing(self, stage: Stage, poked: str) -> None:
        """RACES 18, 41: it has looked at hot, and its client gets nothing, which may not come back by itself."""
        if poked == "connected":
            await stage.go("m1")
        phone = await stage.connect()
        if poked == "poked":
            await stage.go("m1")
            await stage.migrator.migrate(BOB, online_too=True)

        async def fail(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
            raise Unavailable("down")

        read, stage.cold.read = stage.cold.read, fail  # type: ignore[method-assign]  # the moment that the test forces
        fetching = queue_of(stage)
        with pytest.raises(Unavailable):
            await fetching.fetch(BOB, 50)
        stage.cold.read = read  # type: ignore[method-assign]  # and its end
        assert await again_after(stage, phone, CUT) == 1
        assert await again_after(stage, phone, CUT) == 0, "from here on as any poke"
        assert await again_after(stage, phone, 13) == 1
        assert await stage.ids() == ["m1"]
        assert not await waiting(stage)

    @pytest.mark.parametrize("end", ["closed", "expired", "noticed"])
    async def test_what_a_device_fetched_and_left_is_poked_for(self, stage: Stage, end: str) -> None:
        """RACES 41: it came to the end of cold, acknowledged nothing and is gone; the other one waits."""
        await stage.go("m1")
        phone, tablet = await stage.connect(), await stage.connect(name="tablet")
        assert await stage.ids() == ["m1"]
        assert not await waiting(stage)
        if end == "closed":
            assert await stage.online.disconnect([tablet]) == []
        for _ in range(0 if end == "closed" else 2):
            stage.clock.advance(0.6 * stage.factory.config.online.lease_seconds)
            await stage.online.renew([phone])
        if end == "expired":
            assert await stage.online.expire(10) == []
        elif end == "noticed":
            assert await stage.online.begin_move(BOB, "migrator", 5, PAGE_BYTES, online_too=False) is MoveRefused.ONLINE
        assert await again_after(stage, phone, 1) == 0, "it may be about to fetch by itself"
        assert await again_after(stage, phone, 1.1, 1.1) == 1
        assert await stage.ids() == ["m1"]
        assert not await waiting(stage)

    async def test_devices_that_leave_put_no_poke_off(self, stage: Stage) -> None:
        """RACES 41: a page was cut short; others of its user leave before its poke is due."""
        for id_ in ("m1", "m2"):
            await stage.go(id_)
        phone = await stage.connect()
        others = [await stage.connect(name=name) for name in ("tablet", "laptop")]
        assert await stage.ids(limit=1) == ["m1"]
        for other in others:
            assert await again_after(stage, phone, 0.9) == 0
            await stage.online.disconnect([other])
        assert await again_after(stage, phone, 0.3) == 1

    async def test_who_connects_to_waiting_mail_and_does_not_fetch_is_poked_again(self, stage: Stage) -> None:
        """RACES 18, 41: the request that the first poke asked for may have been lost on its way."""
        await stage.go("m1")
        phone = await stage.connect()
        assert await again_after(stage, phone, 1) == 0
        assert await again_after(stage, phone, 1.1) == 1
        assert await again_after(stage, phone, 2, 2) == 0, "from here on as any poke"

    async def test_a_repeated_poke_stands_for_a_cut_page(self, stage: Stage) -> None:
        """RACES 41: no mark stays behind, which a fetch at a node of an older version does not take away."""
        for id_ in ("m1", "m2"):
            await stage.go(id_)
        phone = await stage.connect()
        assert await stage.ids(limit=1) == ["m1"]
        assert await again_after(stage, phone, CUT) == 1
        assert [(user.fetched, user.cut_at) for user in await stage.online.hot_users("", 10)] == [(False, 0)]

    async def test_an_earlier_fetch_does_not_answer_for_a_later_one(self, stage: Stage) -> None:
        """RACES 41: of two devices one comes to the end of what there was, while the other leaves some of what came."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.migrator.migrate(BOB, online_too=True)
        earlier = await stage.online.read(BOB, 50, PAGE_BYTES)
        assert earlier.cut_at, "whether it comes to the end shows in cold"
        await stage.go("m2")
        later = await stage.online.read(BOB, 1, PAGE_BYTES)
        assert later.cut_at not in (0, earlier.cut_at), "also within a microsecond"
        await stage.online.note_end(BOB, earlier.cut_at)
        assert await again_after(stage, phone, CUT) == 1
        await stage.online.note_end(BOB, later.cut_at)
        assert await waiting(stage), "it was poked since"

    async def test_new_mail_is_poked_for_behind_a_cut_page(self, stage: Stage) -> None:
        """RACES 12, 41: at once, since a fetch may have missed it; and that poke has to be answered as any."""
        await stage.go("m1")
        await stage.go("m2")
        phone = await stage.connect()
        assert await stage.ids(limit=1) == ["m1"]
        await stage.go("m3")
        assert [user.fetched for user in await stage.online.hot_users("", 10)] == [False]
        assert await again_after(stage, phone, CUT) == 0
        assert await stage.ids(limit=2) == ["m1", "m2"]
        assert await again_after(stage, phone, CUT) == 1

    async def test_mail_behind_a_cold_write_under_way_is_not_forgotten(self, stage: Stage) -> None:
        """RACES 6, 41: a fetch leaves it out, and the write may come to nothing without a poke."""
        message = stage.message("m1")
        await stage.route(message)
        phone = await stage.connect()
        await stage.go("m2")
        await stage.migrator.migrate(BOB, online_too=True)
        assert await stage.ids() == []
        await stage.online.ack(BOB, ["m1"])
        assert await again_after(stage, phone, CUT) == 1
        assert await stage.ids() == ["m2"]
        assert not await waiting(stage)

    async def test_a_cold_write_under_way_alone_is_not_waited_for(self, stage: Stage) -> None:
        """RACES 12: its end is poked for."""
        message = stage.message("m1")
        (routed,) = await stage.route(message)
        await stage.connect()
        assert await stage.ids() == []
        assert not await waiting(stage)
        await stage.store(message, routed)
        assert await waiting(stage)

    async def test_nobody_is_poked_who_is_not_there(self, stage: Stage) -> None:
        """A user who only pulls leaves nothing for sweepers; one who has gone is looked at once."""
        for number in range(3):
            await stage.go(f"m{number}")
        assert await one_page(stage, 1) == ["m0"]
        assert not await waiting(stage)
        phone = await stage.connect()
        assert await one_page(stage, 1) == ["m1"]
        await stage.online.disconnect([phone])
        assert await waiting(stage)
        stage.clock.advance(2)
        await stage.sweeper.sweep()
        assert stage.count(REPEATED, kind="repeat") == 0
        assert not await waiting(stage)

    async def test_who_comes_back_while_a_sweeper_looks_is_poked(self, stage: Stage) -> None:
        """RACES 18: it has seen them gone, and does not take their pokes back."""
        await stage.go("m1")
        phone = await stage.connect()
        await stage.online.stop_poking([BOB])
        assert await again_after(stage, phone, CUT) == 1
        await stage.online.stop_poking([BOB])
        assert [user.fetched for user in await stage.online.hot_users("", 10)] == [False]

    @pytest.mark.parametrize("act", ["read", "ack"])
    async def test_a_clock_that_was_ahead_delays_no_poke(self, stage: Stage, ahead: Stage, act: str) -> None:
        """RACES 9, 41: of the node that fetched, or acknowledged."""
        for id_ in ("m1", "m2"):
            await stage.go(id_)
        phone = await stage.connect()
        reader, acker = (ahead, stage) if act == "read" else (stage, ahead)
        assert await reader.ids(limit=1) == ["m1"]
        await acker.queue.acknowledge(BOB, ["m1"])
        assert await again_after(stage, phone, CUT) == 1

    async def test_a_fetch_that_looks_again_judges_all_that_it_saw(self, stage: Stage) -> None:
        """RACES 8, 41: what came between its looks, and stands behind what it may show, has its own poke; what was
        there before and is left out has none but this."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.go("m2")
        await stage.migrator.migrate(BOB, online_too=True)
        read, first = stage.cold.read, True

        async def come_first(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
            nonlocal first
            if first:
                first = False
                now = stage.clock.now()
                queued: Sequence[Queued] = [Queued(stage.message("m3"), now + 9, now, unreported=True)]
                await stage.cold.put(queued)
                await stage.online.settle(queued)
            return await read(user, limit, max_bytes, after)

        stage.cold.read = come_first  # type: ignore[method-assign]  # the moment that the test forces
        fetching = queue_of(stage)
        assert names(await fetching.fetch(BOB, 2)) == ["m1", "m2"]
        await stage.queue.acknowledge(BOB, ["m1", "m2"])
        assert await waiting(stage)
        assert await again_after(stage, phone, 15) == 1
        assert await stage.ids() == ["m3"]
        assert not await waiting(stage)
