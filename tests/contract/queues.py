"""What every pair of an online store and a cold queue must do. A backend's test subclasses this unchanged.

The fixture ``stage`` is one process; ``second`` is another one over the same stores.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from router.backends.embedded import presence as embedded_presence
from router.backends.firestore import presence as firestore_presence
from router.backends.redis import presence as redis_presence
from router.clock import MICROSECONDS
from router.core import sweeper
from router.core.challenges import ANSWER_SECONDS, WAIT_SECONDS
from router.core.connections import DISCONNECTED, REPLACED
from router.core.disconnection import MARK, Disconnection, disconnect
from router.core.migrator import BATCH_MESSAGES
from router.errors import TooManyConnections, Unavailable
from router.ids import keyed_id, new_id
from router.interfaces import Place
from router.lifecycle import State
from router.messages import (
    ColdPage,
    Connection,
    HotPage,
    Lane,
    MigrationResult,
    Move,
    MoveRefused,
    Outcome,
    Queued,
    Settled,
)
from tests.contract.answers import AnswerContract
from tests.contract.bounds import BoundsContract
from tests.contract.clocks import ClockContract
from tests.contract.exchanges import ExchangeContract
from tests.contract.finding import FindContract
from tests.contract.ids import IdContract
from tests.contract.lanes import LaneContract
from tests.contract.limits import LimitContract
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Socket, Stage, moved_by_a_wrong_clock, names, queue_of, staged
from tests.support.clock import ManualClock, run_until
from tests.support.records import state_on_record
from tests.support.stores import Stores

pytestmark = pytest.mark.anyio
REPOKE_SECONDS = 15
YEAR_SECONDS = 365 * 86_400
TURN_SECONDS = 60.0
"""What has not come by then does not come."""
POLLS, POLL_SECONDS = 200, 0.005
"""So long a poke may be on its way before it is sent again."""
CROWD = 200


async def read_cold(stage: Stage) -> list[Queued]:
    return (await stage.cold.read(BOB, 100, PAGE_BYTES)).messages


async def swept(stage: Stage, condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds, with a sweeper at work: a bus may take a while until it listens."""
    while not condition():
        stage.clock.advance(REPOKE_SECONDS)
        await stage.manager.renew()
        await stage.sweeper.sweep()
        for _ in range(POLLS):
            if not condition():
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def listening(stage: Stage) -> AsyncIterator[None]:
    """The node renews, and hears what comes by the poke bus: on entering it does."""
    task = asyncio.create_task(stage.manager.run())
    try:
        async with asyncio.timeout(TURN_SECONDS):
            heard = Socket()
            probe = f"urn:sm:user:probe-of-{stage.factory.node}"
            connection = await stage.manager.connect(probe, heard, None)
            bus = await stage.factory.poke_bus()
            while not heard.pokes:
                await bus.publish([(stage.factory.node, probe)])
                await asyncio.sleep(0.01)
            await stage.manager.disconnect(connection)
            yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def disconnects(stage: Stage, user: str = BOB) -> Disconnection:
    """What an operator's command does, in a process of its own."""
    bus = await stage.factory.poke_bus()
    task = asyncio.create_task(disconnect(user, stage.online, bus, stage.clock))

    async def done() -> bool:
        return task.done()

    async with asyncio.timeout(TURN_SECONDS):
        await run_until(stage.clock, done, ahead=0)
    return task.result()


async def comes(stage: Stage, living: Sequence[Socket]) -> Connection:
    """One more connects at the limit; its node asks, and those of the ``living`` are renewed before it looks again."""
    before = {connection.id: connection.lease_until for connection in await stage.online.connections(BOB)}
    async with insisting(stage):
        entering = asyncio.create_task(stage.manager.connect(BOB, socket := Socket(), None))
        while not all(asked.pings for asked in living):  # noqa: ASYNC110 - a bus sets no event
            await asyncio.sleep(POLL_SECONDS)
    stage.clock.advance(ANSWER_SECONDS)
    while not entering.done():
        found = await stage.online.connections(BOB)
        if sum(before.get(one.id, 0) < one.lease_until for one in found) >= len(living):
            stage.clock.advance(WAIT_SECONDS)
        await asyncio.sleep(POLL_SECONDS)
    connection = await entering
    assert not socket.codes
    return connection


@asynccontextmanager
async def insisting(stage: Stage) -> AsyncIterator[None]:
    """What this process pokes is sent again now and then, since a bus may lose any of it."""
    bus, sent = await stage.factory.poke_bus(), list[tuple[str, str]]()
    publish = bus.publish

    async def noted(pokes: Sequence[tuple[str, str]]) -> None:
        sent.extend(pokes)
        await publish(pokes)

    async def again() -> None:
        while True:
            await asyncio.sleep(POLLS * POLL_SECONDS)
            await publish(sent)

    repeating = asyncio.create_task(again())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bus, "publish", noted)
        try:
            yield
        finally:
            repeating.cancel()
            await asyncio.wait([repeating])


class Deaf(Socket):
    """Its peer takes nothing: a poke is over when the connection is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.poked, self.cut = asyncio.Event(), asyncio.Event()

    async def poke(self) -> None:
        self.poked.set()
        await self.cut.wait()
        raise ConnectionError


async def fetched_while(stage: Stage, acknowledged: Sequence[str], limit: int) -> list[str]:
    """What BOB's fetch returns if another device acknowledges these ids after its first read of cold."""
    read, left = stage.cold.read, list(acknowledged)

    async def read_first(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
        page = await read(user, limit, max_bytes, after)
        if left:
            await stage.online.ack(BOB, left.copy())
            left.clear()
        return page

    stage.cold.read = read_first  # type: ignore[method-assign]  # the moment that the test forces
    fetching = queue_of(stage)
    return names(await fetching.fetch(BOB, limit))


async def fetched_while_m1_is_acknowledged(stage: Stage) -> list[str]:
    """A page of BOB, of whom another device acknowledges m1 between the hot read and the cold read."""
    read = stage.cold.read

    async def acknowledge_first(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
        await stage.queue.acknowledge(BOB, ["m1"])
        return await read(user, limit, max_bytes, after)

    stage.cold.read = acknowledge_first  # type: ignore[method-assign]  # the moment that the test forces
    fetching = queue_of(stage)
    return names(await fetching.fetch(BOB, 50))


class QueueContract(
    LaneContract,
    AnswerContract,
    BoundsContract,
    ClockContract,
    ExchangeContract,
    FindContract,
    IdContract,
    LimitContract,
):
    """Routing, reading, acknowledging, migrating, presence."""

    async def test_offline_goes_cold_and_online_goes_hot(self, stage: Stage) -> None:
        assert await stage.go("m1") is Outcome.COLD
        await stage.connect()
        assert await stage.go("m2") is Outcome.HOT
        assert (await stage.in_cold(), await stage.hot()) == (["m1"], ["m2"])
        assert await stage.ids() == ["m1", "m2"]

    async def test_a_redelivery_is_known(self, stage: Stage) -> None:
        """RACES 1, 2, 4: of hot mail, of cold mail before and after it is settled; and the order stays."""
        message = stage.message("cold")
        (first,) = await stage.route(message)
        (again,) = await stage.route(message, attempt=2)
        assert again.outcome is Outcome.COLD
        assert again.sequence == first.sequence
        await stage.store(message, again)
        assert await stage.go("cold") is Outcome.ANNOUNCE
        await stage.connect()
        assert await stage.go("hot 1") is Outcome.HOT
        assert await stage.go("hot 2") is Outcome.HOT
        assert await stage.go("hot 1") is Outcome.DUPLICATE
        assert await stage.ids() == ["cold", "hot 1", "hot 2"]

    @pytest.mark.parametrize("steps", range(4))
    async def test_a_pipeline_that_dies_after_any_step_is_completed(self, stage: Stage, steps: int) -> None:
        """RACES 2."""
        message, other = stage.message("m1"), stage.message("m2")
        (routed,) = await stage.route(message)
        if steps > 0:
            await stage.route(other)
        if steps > 1:
            await stage.cold.put([Queued(message, routed.sequence, routed.queued_at)])
        if steps > 2:
            await stage.online.settle([Queued(message, routed.sequence, routed.queued_at)])
        for id_ in ("m1", "m2"):
            await stage.go(id_)
        assert await stage.ids() == ["m1", "m2"]
        assert await stage.in_cold() == ["m1", "m2"]

    @pytest.mark.parametrize("online", [True, False])
    async def test_two_pipelines_on_one_recipient(self, stage: Stage, second: Stage, online: bool) -> None:
        """RACES 5: a lease ran out under the first in the middle, and the second has all the same mail, at once."""
        if online:
            await stage.connect()
        wanted = [f"m{number:02}" for number in range(18)]

        async def pipeline(by: Stage, part: list[str]) -> list[Outcome]:
            return [await by.go(id_) for id_ in part]

        done = [await pipeline(stage, wanted[:6])]
        done += await asyncio.gather(pipeline(stage, wanted[6:]), pipeline(second, wanted))
        assert (await stage.hot(), await stage.in_cold())[1 if online else 0] == []
        queue = await (stage.online.inspect(BOB, 100) if online else read_cold(stage))
        found = [queued.message.id for queued in queue]
        assert found == wanted, "one copy of each, in order"
        assert len({queued.sequence for queued in queue}) == len(wanted)
        assert await stage.ids() == found
        if online:
            assert [outcome for outcomes in done for outcome in outcomes].count(Outcome.HOT) == len(wanted)

    async def test_what_was_acknowledged_does_not_come_back(self, stage: Stage) -> None:
        """RACES 3: from hot and from cold."""
        await stage.go("cold")
        await stage.connect()
        await stage.go("hot")
        await stage.queue.acknowledge(BOB, ["cold", "hot"])
        assert await stage.go("cold") is Outcome.DUPLICATE
        assert await stage.go("hot") is Outcome.DUPLICATE
        assert await stage.ids() == []

    @pytest.mark.parametrize("read_before", [False, True])
    async def test_a_redelivery_may_have_left_a_copy_in_cold(self, stage: Stage, read_before: bool) -> None:
        """RACES 2, 3, 10: hot, and written to cold by a pipeline that could not reach the store the second time."""
        await stage.connect()
        message = stage.message("m1")
        await stage.route(message)
        await stage.cold.put([Queued(message, stage.clock.now() + 1, stage.clock.now())])
        if read_before:
            await stage.queue.acknowledge(BOB, ["m1"])
        assert (await stage.route(message, attempt=2))[0].outcome is Outcome.DUPLICATE
        await stage.queue.acknowledge(BOB, ["m1"])
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert (await stage.ids(), await stage.in_cold()) == ([], [])

    async def test_a_lease_that_ran_out_is_not_renewed(self, stage: Stage) -> None:
        """RACES 15, 17: mail went cold meanwhile, and nobody was poked for it; its connection registers again."""
        connection = await stage.connect()
        assert await stage.online.renew([connection]) == []
        stage.clock.advance(61)
        assert await stage.go("m1") is Outcome.COLD
        assert await stage.online.renew([connection]) == [connection]
        assert await stage.online.connect(connection, 20), "mail is waiting: a poke is owed"

    @pytest.mark.parametrize("act", ["route", "settle", "migrate", "poke"])
    async def test_a_lease_that_ran_out_by_one_clock_has_ended(self, stage: Stage, ahead: Stage, act: str) -> None:
        """RACES 15, 17: a node whose clock is ahead acts on it; by that of its own node it would last."""
        message = stage.message("m1")
        if act == "settle":
            (routed,) = await stage.route(message)
        connection = await stage.connect()
        if act == "route":
            assert await ahead.go("m1") is Outcome.COLD
        elif act == "settle":
            await ahead.store(message, routed)
        else:
            assert await stage.go("m1") is Outcome.HOT
            await (ahead.queue.migrate_hot_to_cold(BOB) if act == "migrate" else ahead.online.poke([BOB]))
        assert await stage.online.renew([connection]) == [connection]
        assert await stage.online.connect(connection, 20), "mail is waiting: a poke is owed"
        assert await stage.ids() == ["m1"]

    async def test_a_look_ends_no_lease(self, stage: Stage, ahead: Stage) -> None:
        connection = await stage.connect()
        await stage.go("m1")
        assert [user.live for user in await ahead.online.hot_users("", 10)] == [0]
        assert await ahead.online.connections(BOB) == []
        assert await stage.online.renew([connection]) == []

    async def test_a_clock_that_steps_back_leaves_nothing_unannounced(self, stage: Stage) -> None:
        """RACES 9: what was queued first bears the later time."""
        await stage.connect()
        await stage.go("m1")
        stage.clock.time -= 30_000_000
        await stage.go("m2", lane=Lane.EXPRESS)
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        await stage.queue.migrate_hot_to_cold(BOB, online_too=True)
        assert set(await stage.pushed()) == {"m1", "m2"}

    async def test_a_clock_that_was_ahead_for_a_while_leaves_nothing_unannounced(self, stage: Stage) -> None:
        """RACES 9: what stands between two that are due bears a time at which it is not."""
        connection = await stage.connect()
        await stage.go("m0")
        stage.clock.advance(30)
        await stage.go("m1")
        stage.clock.time -= 29_000_000
        await stage.go("m2", lane=Lane.EXPRESS)
        stage.clock.advance(50)
        assert await stage.online.renew([connection]) == []
        stage.clock.advance(11)
        await stage.sweeper.sweep()
        assert "m0" in await stage.pushed()
        assert len(await stage.hot()) == 3, "nothing moved yet"
        await stage.queue.migrate_hot_to_cold(BOB, online_too=True)
        assert set(await stage.pushed()) == {"m0", "m1", "m2"}

    async def test_of_two_copies_the_lower_sequence_stays(self, stage: Stage) -> None:
        """RACES 4, 10: the higher one was given in an outage to a message that the store had routed before."""
        messages = [stage.message(f"m{number}") for number in range(3)]
        now = stage.clock.now()
        await stage.cold.put([Queued(messages[1], now + 10, now), Queued(messages[0], now + 20, now)])
        await stage.cold.put([Queued(message, now + number, now) for number, message in enumerate(messages)])
        await stage.cold.put([Queued(messages[0], now + 30, now)])
        assert await stage.in_cold() == ["m0", "m1", "m2"]
        assert [queued.sequence - now for queued in (await stage.cold.read(BOB, 9, PAGE_BYTES)).messages] == [0, 1, 2]

    async def test_acknowledged_copies_take_nobodys_place(self, stage: Stage) -> None:
        """Their deletion from cold is still owed: a batch is filled with what stands behind them."""
        for number in range(6):
            await stage.go(f"m{number}")
        await stage.online.ack(BOB, ["m0", "m1", "m2", "m4"])
        assert await stage.ids(limit=2) == ["m3", "m5"]
        assert await stage.ids(limit=1) == ["m3"]

    @pytest.mark.parametrize("told", [False, True])
    async def test_what_was_acknowledged_in_an_outage_does_not_come_back(self, stage: Stage, told: bool) -> None:
        """RACES 3, 10: written to cold without the online store, read and acknowledged before the store is told of it
        or the ingress delivers it again."""
        message = stage.message("m1")
        queued = Queued(message, stage.clock.now(), stage.clock.now())
        await stage.cold.put([queued])
        assert await stage.ids() == ["m1"]
        await stage.queue.acknowledge(BOB, ["m1", "nobody's"])
        if told:
            for orphan in (await stage.online.settle([queued])).acked:
                await stage.cold.delete(BOB, [orphan.message.id])
                await stage.online.forget_orphans(BOB, [orphan.message.id])
        else:
            await stage.connect()
            assert (await stage.route(message, attempt=2))[0].outcome is Outcome.DUPLICATE
        assert (await stage.ids(), await stage.in_cold()) == ([], [])

    async def test_an_acknowledgement_deletes_what_the_store_has_not_heard_of(self, stage: Stage) -> None:
        """RACES 3, 10: cold was known to be empty when a pipeline wrote to it without the store."""
        await stage.connect()
        assert await stage.ids() == []
        assert (await stage.online.read(BOB, 50, PAGE_BYTES)).cold_empty
        await stage.cold.put([Queued(stage.message("m1"), stage.clock.now(), stage.clock.now())])
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.in_cold() == []

    @pytest.mark.parametrize(("keyed", "seconds"), [(False, 3600), (True, 86_400)])
    async def test_a_tombstone_has_its_time(self, stage: Stage, keyed: bool, seconds: int) -> None:
        await stage.connect()
        await stage.go("m1", keyed=keyed)
        await stage.queue.acknowledge(BOB, ["m1"])
        stage.clock.advance(seconds - 1)
        await stage.online.purge(100, stage.clock.now())
        await stage.connect()
        assert await stage.go("m1", keyed=keyed) is Outcome.DUPLICATE
        stage.clock.advance(2)
        await stage.online.purge(100, stage.clock.now())
        await stage.connect()
        assert await stage.go("m1", keyed=keyed) is Outcome.HOT

    async def test_sequences_rise_whatever_the_clock_does(self, stage: Stage) -> None:
        """RACES 9."""
        sequences = [(await stage.route(stage.message(f"m{number}")))[0].sequence for number in range(3)]
        stage.clock.time -= 3_600_000_000
        sequences += [(await stage.route(stage.message("m3")))[0].sequence]
        stage.clock.time += 7_200_000_000
        sequences += [(await stage.route(stage.message("m4")))[0].sequence]
        assert sequences == sorted(set(sequences))
        assert sequences[-1] >= stage.clock.now()

    async def test_a_cold_write_that_ends_is_poked_for(self, stage: Stage) -> None:
        """RACES 6, 12: its recipient has connected and fetched meanwhile, and has found nothing."""
        message = stage.message("m1")
        (routed,) = await stage.route(message)
        await stage.connect()
        assert await stage.ids() == []
        assert await stage.online.hot_users("", 10) == []
        await stage.store(message, routed)
        assert [(user.user, user.fetched) for user in await stage.online.hot_users("", 10)] == [(BOB, False)]

    async def test_a_cold_write_under_way_is_not_overtaken(self, stage: Stage) -> None:
        """RACES 6."""
        message = stage.message("m1")
        (routed,) = await stage.route(message)
        await stage.connect()
        await stage.go("express", lane=Lane.EXPRESS)
        await stage.go("m2")
        assert await stage.ids() == ["express"]
        await stage.cold.put([Queued(message, routed.sequence, routed.queued_at)])
        assert await stage.ids() == ["express", "m1", "m2"]
        await stage.online.settle([Queued(message, routed.sequence, routed.queued_at)])
        assert await stage.ids() == ["express", "m1", "m2"]

    async def test_what_cold_took_of_a_batch_waits_for_what_it_refused(self, stage: Stage) -> None:
        """RACES 7: the first of two was refused, and is written again; nothing is dropped or reordered."""
        messages = [stage.message("m1"), stage.message("m2")]
        routed = await stage.route(*messages)
        first, second = (Queued(m, r.sequence, r.queued_at) for m, r in zip(messages, routed, strict=True))
        assert await stage.cold.put([second]) == []
        assert await stage.online.settle([second]) == Settled([], [])
        assert await stage.ids() == []
        again = await stage.route(*messages, attempt=2)
        assert [one.outcome for one in again] == [Outcome.COLD, Outcome.ANNOUNCE]
        assert await stage.cold.put([first]) == []
        assert await stage.online.settle([first]) == Settled([], [])
        assert await stage.ids() == ["m1", "m2"]

    async def test_users_are_strangers_to_one_another(self, stage: Stage) -> None:
        """RACES 29, 39: whatever their names hold."""
        await stage.go("cold", EVE)
        await stage.connect(EVE)
        await stage.go("hot", EVE)
        assert await stage.ids() == []
        assert await stage.online.acked(BOB, ["hot", "cold"]) == set()
        await stage.queue.acknowledge(BOB, ["hot", "cold", "nobody's"])
        assert await stage.ids(EVE) == ["cold", "hot"]

    async def test_a_stranger_deletes_nothing_that_only_cold_knows(self, stage: Stage) -> None:
        """RACES 29: the online store, which knows whose an id is, was not asked when this came to cold."""
        now = stage.clock.now()
        assert await stage.cold.put([Queued(stage.message("m1", EVE), now, now, unreported=True)]) == []
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.in_cold(EVE) == ["m1"]

    async def test_acknowledging_deletes_exactly_these(self, stage: Stage) -> None:
        """RACES 30, 31."""
        for number in range(3):
            await stage.go(f"cold {number}")
        await stage.connect()
        for number in range(3):
            await stage.go(f"hot {number}")
        assert await stage.ids() == await stage.ids()
        await stage.queue.acknowledge(BOB, ["hot 1", "cold 2", "hot 1", "unknown", "cold 0"])
        await stage.queue.acknowledge(BOB, ["cold 2"])
        assert await stage.ids() == ["cold 1", "hot 0", "hot 2"]

    async def test_a_long_backlog_drains_in_order_while_mail_arrives(self, many: Stage) -> None:
        """RACES 32, 33."""
        stage = many
        for number in range(30):
            await stage.go(f"{number:03}")
        await stage.connect()
        for number in range(30, 60):
            await stage.go(f"{number:03}")
        drained: list[str] = []
        while batch := await stage.ids(limit=7):
            if len(drained) == 21:
                await stage.go("express", lane=Lane.EXPRESS)
                await stage.go("060")
            await stage.queue.acknowledge(BOB, batch)
            drained += batch
        assert drained[28] == "express"
        drained.remove("express")
        assert drained == [f"{number:03}" for number in range(61)]

    async def test_the_queue_has_a_cap(self, stage: Stage) -> None:
        for number in range(20):
            assert await stage.go(f"m{number}") is Outcome.COLD
        assert await stage.go("too many") is Outcome.QUEUE_FULL
        assert await stage.go("m3") is Outcome.ANNOUNCE, "what is in already stays in"
        await stage.queue.acknowledge(BOB, ["m7"])
        assert await stage.go("fits now") is Outcome.COLD

    async def test_ephemeral_is_now_or_never(self, stage: Stage) -> None:
        """RACES 28."""
        assert await stage.go("offline", ephemeral=True) is Outcome.DROPPED_OFFLINE
        await stage.connect()
        late = stage.message("late", ephemeral=True)
        assert await stage.go("typing", ephemeral=True) is Outcome.HOT
        assert await stage.ids() == ["typing"]
        stage.clock.advance(10)
        assert await stage.ids() == []
        assert (await stage.route(late))[0].outcome is Outcome.DROPPED_EXPIRED
        assert await stage.online.purge(100, stage.clock.now()) == 1
        assert await stage.hot() == []

    async def test_ephemeral_is_not_judged_by_one_clock_that_is_wrong(self, stage: Stage, ahead: Stage) -> None:
        """Neither routed, nor read, nor swept: the store's clock counts, where it has one of its own."""
        found = await stage.online.compare_clocks()
        if not found:
            return  # one machine, one clock
        stage.clock.time -= int(found * MICROSECONDS)
        ahead.clock.time = stage.clock.time + 30 * MICROSECONDS
        assert abs(await stage.online.compare_clocks()) < 2
        assert 28 < await ahead.online.compare_clocks() <= 30
        await stage.connect()
        assert await stage.go("typing", ephemeral=True) is Outcome.HOT
        (routed,) = await ahead.route(stage.message("more", ephemeral=True))
        assert routed.outcome is Outcome.HOT
        assert await ahead.ids() == ["typing", "more"]
        await ahead.sweeper.sweep()
        assert await stage.ids() == ["typing", "more"]
        ahead.clock.advance(11)
        (routed,) = await ahead.route(stage.message("late", ephemeral=True))
        assert routed.outcome is Outcome.DROPPED_EXPIRED
        assert await ahead.ids() == []
        await ahead.sweeper.sweep()
        assert await stage.hot() == []

    async def test_what_a_clock_gave_that_was_a_year_ahead_is_not_held_for_a_year(
        self, stage: Stage, second: Stage
    ) -> None:
        """It has been put right, and the processes of before are dead: their leases end as others do."""
        stage.clock.advance(YEAR_SECONDS)
        await stage.connect()
        assert await stage.go("m1") is Outcome.HOT
        assert await stage.go("m2", EVE) is Outcome.COLD
        assert isinstance(await stage.online.begin_move(BOB, "dead", 1, PAGE_BYTES, online_too=True), Move)
        stage.clock.advance(-YEAR_SECONDS)
        lease = stage.factory.config.online.lease_seconds
        for _ in range(3):
            await second.sweeper.sweep()
            stage.clock.advance(lease + 1)
        await second.sweeper.sweep()
        assert (await second.hot(), await second.in_cold()) == ([], ["m1"])
        assert await second.ids() == ["m1"]
        assert await second.go("m3") is Outcome.COLD
        assert await second.ids() == ["m1", "m3"]

    async def test_a_migration_lease_of_a_clock_that_was_ahead_keeps_no_orphans(self, stage: Stage) -> None:
        """RACES 24: nobody holds it, so no migrator can be about to write a copy."""
        await moved_by_a_wrong_clock(stage)
        stage.clock.advance(61)
        assert await stage.online.orphans(10) == [(BOB, "m1")]
        await stage.sweeper.sweep()
        assert await stage.online.orphans(10) == []

    async def test_migration_moves_all_but_the_ephemeral(self, stage: Stage, second: Stage) -> None:
        """RACES 26, 28."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.go("typing", ephemeral=True)
        await stage.go("m2")
        assert await stage.online.disconnect([phone]) == [BOB]
        migrated = await stage.migrator.migrate(BOB)
        assert (migrated.moved, migrated.dropped, migrated.result) == (2, 1, MigrationResult.DONE)
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m1", "m2"])
        assert await stage.pushed() == ["m1", "m2"]
        await stage.connect()
        assert await stage.go("m3") is Outcome.HOT
        again = await second.migrator.migrate(BOB, online_too=True)
        assert (again.moved, again.result) == (1, MigrationResult.DONE), "the first one keeps no lease"

    async def test_migration_is_bounded_and_announces_once(self, many: Stage) -> None:
        """RACES 27."""
        phone = await many.connect()
        for number in range(BATCH_MESSAGES * 2 + 5):
            await many.go(f"{number:04}")
        await many.online.disconnect([phone])
        batches: list[int] = []
        await many.migrator.migrate(BOB, progress=batches.append)
        assert batches == [BATCH_MESSAGES, BATCH_MESSAGES, 5]
        pushed = await many.pushed()
        assert pushed == [f"{number:04}" for number in range(BATCH_MESSAGES * 2 + 5)]
        assert await many.in_cold() == pushed

    @pytest.mark.parametrize("written", [False, True])
    async def test_a_migrator_that_dies_is_followed_by_another(
        self, stage: Stage, second: Stage, written: bool
    ) -> None:
        """RACES 21, 22."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.go("m2")
        await stage.online.disconnect([phone])
        move = await stage.online.begin_move(BOB, "dies", 10, PAGE_BYTES, online_too=False)
        assert isinstance(move, Move)
        if written:
            await stage.cold.put(move.messages)
        assert await stage.ids() == ["m1", "m2"]
        assert (await second.migrator.migrate(BOB)).result is MigrationResult.BUSY
        stage.clock.advance(61)
        assert (await second.migrator.migrate(BOB)).moved == 2
        assert await stage.ids() == ["m1", "m2"]
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m1", "m2"])

    async def test_two_migrators_at_once(self, stage: Stage, second: Stage) -> None:
        """RACES 22: between them they move each message once."""
        phone = await stage.connect()
        ids = [f"m{number:02}" for number in range(15)]
        for id_ in ids:
            await stage.go(id_)
        await stage.online.disconnect([phone])
        migrators = [stage.migrator, second.migrator] * 3
        migrations = await asyncio.gather(*(migrator.migrate(BOB) for migrator in migrators))
        assert sum(migration.moved for migration in migrations) == 15
        assert (await stage.hot(), await stage.in_cold()) == ([], ids)
        assert await stage.pushed() == ids

    async def test_only_offline_users_are_moved_unless_asked(self, stage: Stage) -> None:
        await stage.connect()
        await stage.go("m1")
        refused = await stage.online.begin_move(BOB, "me", 10, PAGE_BYTES, online_too=False)
        assert refused is MoveRefused.ONLINE
        assert (await stage.migrator.migrate(BOB, online_too=True)).moved == 1
        assert await stage.ids() == ["m1"]

    async def test_mail_that_comes_during_a_move_is_merged(self, stage: Stage) -> None:
        """RACES 23."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.online.disconnect([phone])
        move = await stage.online.begin_move(BOB, "mover", 10, PAGE_BYTES, online_too=False)
        assert isinstance(move, Move)
        await stage.connect()
        await stage.go("m2")
        assert await stage.ids() == ["m1", "m2"]
        await stage.cold.put(move.messages)
        assert await stage.ids() == ["m1", "m2"]
        await stage.online.end_move(BOB, "mover", move.messages)
        assert await stage.ids() == ["m1", "m2"]

    @pytest.mark.parametrize("written", [False, True])
    async def test_an_acknowledgement_in_mid_move_holds(self, stage: Stage, written: bool) -> None:
        """RACES 24: with both copies there, and before the cold write."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.go("m2")
        await stage.online.disconnect([phone])
        move = await stage.online.begin_move(BOB, "mover", 10, PAGE_BYTES, online_too=False)
        assert isinstance(move, Move)
        if written:
            await stage.cold.put(move.messages)
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.ids() == ["m2"]
        await stage.cold.put(move.messages)
        assert await stage.ids() == ["m2"]
        acked = await stage.online.end_move(BOB, "mover", move.messages)
        assert acked == ["m1"]
        assert await stage.ids() == ["m2"]

    async def test_a_copy_that_its_writer_forgot_is_deleted(self, stage: Stage) -> None:
        """RACES 24: the migrator dies after the cold write of what was acknowledged meanwhile."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.online.disconnect([phone])
        move = await stage.online.begin_move(BOB, "dies", 10, PAGE_BYTES, online_too=False)
        assert isinstance(move, Move)
        await stage.online.ack(BOB, ["m1"])
        await stage.cold.put(move.messages)
        assert await stage.online.orphans(10) == []
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert await stage.in_cold() == []
        stage.clock.advance(3600)
        await stage.sweeper.sweep()
        assert await stage.ids() == []

    async def test_a_copy_that_is_written_after_the_acknowledgement_is_deleted(self, stage: Stage) -> None:
        """RACES 24: acknowledged and done with before the cold write, and then the migrator dies."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.online.disconnect([phone])
        move = await stage.online.begin_move(BOB, "dies", 10, PAGE_BYTES, online_too=False)
        assert isinstance(move, Move)
        await stage.queue.acknowledge(BOB, ["m1"])
        await stage.cold.put(move.messages)
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert await stage.in_cold() == []

    async def test_a_copy_whose_deletion_nobody_owes_is_deleted_once_a_fetch_finds_it(self, stage: Stage) -> None:
        """RACES 24: acknowledged and done with before the cold write ends; its pipeline dies after that, and what the
        ingress delivers again is damaged."""
        message = stage.message("m1")
        (routed,) = await stage.route(message)
        await stage.queue.acknowledge(BOB, ["m1"])
        queued = Queued(message, routed.sequence, routed.queued_at)
        await stage.cold.put([queued])
        assert (await stage.online.settle([queued])).acked == [queued]
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert await stage.ids() == []
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert await stage.in_cold() == []

    async def test_a_copy_of_a_migration_that_fails_is_deleted(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RACES 24: acknowledged meanwhile; the write works and says that it failed; then the acknowledgement ends."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.online.disconnect([phone])
        put = stage.cold.put

        async def late(messages: Sequence[Queued]) -> list[Queued]:
            assert await stage.online.ack(BOB, ["m1"]) == ["m1"]
            await put(messages)
            raise Unavailable("it says so")

        with monkeypatch.context() as patch:
            patch.setattr(type(stage.cold), "put", lambda _, messages: late(messages))
            with pytest.raises(Unavailable):
                await stage.migrator.migrate(BOB)
        await stage.online.forget_orphans(BOB, ["m1"])
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert await stage.in_cold() == []

    async def test_a_fetch_passes_over_nothing_that_comes_for_what_goes(self, stage: Stage) -> None:
        """Between its two looks, all that the first one saw is acknowledged, and other mail comes to cold."""
        await stage.go("old")
        read, reads = stage.online.read, 0

        async def change_before_the_second(user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
            nonlocal reads
            reads += 1
            if reads == 2:
                await stage.queue.acknowledge(BOB, ["old"])
                await stage.go("new")
            return await read(user, limit, max_bytes, again=again)

        stage.online.read = change_before_the_second  # type: ignore[method-assign]  # the moment that the test forces
        fetching = queue_of(stage)
        assert names(await fetching.fetch(BOB, 50)) == ["new"]

    async def test_what_was_on_its_way_and_is_acknowledged_holds_up_nothing(self, stage: Stage) -> None:
        """Another device acknowledges it between the hot read, which saw a write under way, and the cold read."""
        messages = [stage.message("m1"), stage.message("m2")]
        routed = await stage.route(*messages)
        copies = [Queued(m, r.sequence, r.queued_at) for m, r in zip(messages, routed, strict=True)]
        await stage.cold.put(copies)
        await stage.online.settle(copies[1:])
        assert await stage.ids() == ["m1", "m2"]
        assert await fetched_while_m1_is_acknowledged(stage) == ["m2"]

    async def test_a_fetch_keeps_the_order_of_an_outage_when_another_device_acknowledges(self, stage: Stage) -> None:
        """A pipeline without the online store wrote both to cold, ahead of their places in hot. Another device
        acknowledges the first one between the hot read and the cold read."""
        await stage.connect()
        messages = [stage.message("m1"), stage.message("m2")]
        first, _ = await stage.route(*messages)
        ahead = [first.sequence - 2, first.sequence - 1]
        copies = [Queued(m, place, first.queued_at) for m, place in zip(messages, ahead, strict=True)]
        await stage.cold.put(copies)
        await stage.online.settle(copies[:1])
        assert await stage.ids() == ["m1", "m2"]
        assert await fetched_while_m1_is_acknowledged(stage) == ["m2"]

    async def test_a_fetch_misses_nothing_that_moves_meanwhile(self, stage: Stage) -> None:
        """RACES 25: the move runs between the two reads of a fetch, whichever tier it reads first."""
        phone = await stage.connect()
        await stage.go("m1")
        await stage.online.disconnect([phone])
        await stage.online.begin_move(BOB, "given up", 1, PAGE_BYTES, online_too=False)
        await stage.online.release_move(BOB, "given up")
        read_hot, read_cold = stage.online.read, stage.cold.read

        async def hot(user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
            page = await read_hot(user, limit, max_bytes, again=again)
            await move_once()
            return page

        async def cold(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
            page = await read_cold(user, limit, max_bytes, after)
            await move_once()
            return page

        async def move_once() -> None:
            if not stage.moved():
                await stage.migrator.migrate(BOB)

        stage.online.read = hot  # type: ignore[method-assign]  # the moment that the test forces
        stage.cold.read = cold  # type: ignore[method-assign]  # the moment that the test forces
        fetching = queue_of(stage)
        assert names(await fetching.fetch(BOB, 50)) == ["m1"]
        assert stage.moved() == 1

    @pytest.mark.parametrize("write_through", [False, True])
    async def test_a_fetch_never_shows_a_part_of_what_comes_to_cold_meanwhile(
        self, stage: Stage, doubled: Stage, write_through: bool
    ) -> None:
        """RACES 25: routed after the hot read, and cold refuses the first of two copies before it is read."""
        stage = doubled if write_through else stage
        read, moved = stage.cold.read, False

        async def route_first(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
            nonlocal moved
            if not moved:
                moved = True
                phone = await stage.connect()
                messages = [stage.message("m1"), stage.message("m2")]
                routed = await stage.route(*messages)
                copies = [Queued(m, r.sequence, r.queued_at) for m, r in zip(messages, routed, strict=True)]
                if not write_through:
                    await stage.online.disconnect([phone])
                    await stage.online.begin_move(BOB, "mover", 10, PAGE_BYTES, online_too=False)
                await stage.cold.put(copies[1:])
            return await read(user, limit, max_bytes, after)

        stage.cold.read = route_first  # type: ignore[method-assign]  # the moment that the test forces
        await stage.go("old")
        fetching = queue_of(stage)
        assert names(await fetching.fetch(BOB, 50)) == ["old", "m1", "m2"]

    @pytest.mark.parametrize("under_way", [False, True])
    async def test_a_fetch_never_shows_what_went_past_the_store_before_what_did_not(
        self, stage: Stage, under_way: bool
    ) -> None:
        """RACES 10, 25: routed after the hot read; then the store is away, and the next one is in cold before it is
        read."""
        read, moved = stage.cold.read, False

        async def route_first(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
            nonlocal moved
            if not moved:
                moved = True
                if not under_way:
                    await stage.connect()
                (first,) = await stage.route(stage.message("m1"))
                assert first.outcome is (Outcome.COLD if under_way else Outcome.HOT)
                await stage.cold.put(
                    [Queued(stage.message("m2"), first.sequence + 1, stage.clock.now(), unreported=True)]
                )
            return await read(user, limit, max_bytes, after)

        stage.cold.read = route_first  # type: ignore[method-assign]  # the moment that the test forces
        await stage.go("old")
        fetching = queue_of(stage)
        expected = ["old"] if under_way else ["old", "m1", "m2"]
        assert names(await fetching.fetch(BOB, 50)) == expected

    async def test_express_mail_that_comes_meanwhile_is_in_the_batch_too(self, stage: Stage) -> None:
        """RACES 25: it comes after the cold read; a batch with room left would say that there is no more."""
        read, came = stage.cold.read, False

        async def read_first(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
            nonlocal came
            page = await read(user, limit, max_bytes, after)
            for number in () if came else (2, 3, 4, 5):
                came = True
                await stage.go(f"e{number}", lane=Lane.EXPRESS)
            return page

        await stage.go("e1", lane=Lane.EXPRESS)
        await stage.go("m1")
        await stage.go("m2")
        stage.cold.read = read_first  # type: ignore[method-assign]  # the moment that the test forces
        fetching = queue_of(stage)
        assert names(await fetching.fetch(BOB, 3)) == ["e1", "e2", "m1"]

    async def test_a_full_page_that_is_acknowledged_meanwhile_leaves_room_for_what_is_behind(
        self, doubled: Stage
    ) -> None:
        """RACES 25: by another device, between the reads of a fetch; what is behind the page was there before."""
        await doubled.go("old")
        await doubled.connect()
        for number in range(1, 6):
            await doubled.go(f"m{number}")
        assert await fetched_while(doubled, ["m1", "m2", "m3"], limit=3) == ["old", "m4", "m5"]

    async def test_normal_mail_that_is_acknowledged_meanwhile_leaves_its_place_to_normal_mail(
        self, doubled: Stage
    ) -> None:
        """RACES 25: by another device, between the reads of a fetch; a part of each page is kept for normal mail."""
        await doubled.go("e1", lane=Lane.EXPRESS)
        await doubled.connect()
        await doubled.go("e2", lane=Lane.EXPRESS)
        for number in range(1, 6):
            await doubled.go(f"m{number}")
        assert await fetched_while(doubled, ["m1"], limit=2) == ["e1", "m2"]

    async def test_of_two_with_one_place_the_second_is_not_passed_over(self, stage: Stage) -> None:
        """RACES 10: one was placed by the store, the other by the clock of a pipeline that could not ask it."""
        first, second = (Queued(stage.message(id_), 7, stage.clock.now()) for id_ in ("m1", "m2"))
        assert await stage.cold.put([first, second]) == []
        assert await stage.online.settle([first, second]) == Settled([], [])
        assert await stage.online.ack(BOB, ["m1"]) == ["m1"]
        assert names(await stage.queue.fetch(BOB, 1)) == ["m2"]

    async def test_who_is_online_needs_no_cold_that_is_known_to_be_empty(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever is wrong with cold: docs/specification.md#online-store-alone."""

        async def fail(*_: object, **__: object) -> None:
            raise Unavailable("simulated")

        await stage.connect()
        assert await stage.ids() == [], "from here on cold is known to be empty"
        for name in ("read", "delete"):
            monkeypatch.setattr(type(stage.cold), name, fail)
        assert await stage.go("m1") is Outcome.HOT
        assert await stage.ids() == ["m1"]
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.ids() == []

    async def test_cold_counts_as_empty_only_while_nothing_came(self, stage: Stage) -> None:
        await stage.connect()
        await stage.go("hot")
        await stage.migrator.migrate(BOB, online_too=True)
        await stage.queue.acknowledge(BOB, ["hot"])
        page = await stage.online.read(BOB, 50, PAGE_BYTES)
        assert not page.cold_empty
        await stage.go("another")
        await stage.migrator.migrate(BOB, online_too=True)
        await stage.online.note_cold_empty(BOB, page.cold_version)
        assert await stage.ids() == ["another"]
        await stage.queue.acknowledge(BOB, ["another"])
        assert await stage.ids() == []
        assert (await stage.online.read(BOB, 50, PAGE_BYTES)).cold_empty

    async def test_leases_end_and_are_renewed(self, stage: Stage) -> None:
        """RACES 15, 17."""
        phone, laptop = await stage.connect(), await stage.connect(name="laptop")
        stage.clock.advance(40)
        assert await stage.online.renew([phone]) == []
        stage.clock.advance(30)
        assert [connection.id for connection in await stage.online.connections(BOB)] == ["phone"]
        assert await stage.online.expire(10) == []
        assert await stage.online.renew([laptop]) == [laptop], "who was forgotten registers again"
        stage.clock.advance(61)
        assert await stage.online.expire(10) == [BOB]
        assert await stage.online.expire(10) == []
        assert await stage.go("m1") is Outcome.COLD

    async def test_each_socket_removes_itself_only(self, stage: Stage, second: Stage) -> None:
        """RACES 13, 14: the old socket's close comes late; two nodes drop their sockets at once."""
        old, new = await stage.connect(name="old"), await second.connect(name="new")
        assert await stage.online.disconnect([old]) == []
        assert await stage.go("m1") is Outcome.HOT
        assert await second.online.disconnect([new]) == [BOB]
        assert await second.online.disconnect([new]) == []

    async def test_two_nodes_drop_their_sockets_at_once(self, stage: Stage, second: Stage) -> None:
        """RACES 14: one of them finds itself the last, and moves the mail."""
        phone = await stage.manager.connect(BOB, Socket(), None)
        laptop = await second.manager.connect(BOB, Socket(), None)
        assert await stage.go("m1") is Outcome.HOT
        await asyncio.gather(stage.manager.disconnect(phone), second.manager.disconnect(laptop))
        for node in (stage, second):
            await node.factory.tasks.settled()
        assert (await stage.hot(), await stage.in_cold(), await stage.pushed()) == ([], ["m1"], ["m1"])
        assert sorted([stage.moved(), second.moved()]) == [0, 1]

    async def test_a_node_that_died_holds_mail_no_longer_than_its_leases(self, stage: Stage, second: Stage) -> None:
        """RACES 15, 16: dead, or cut off from the store: nobody renews, and a sweeper moves what it left."""
        await stage.connect()
        assert await stage.go("m1") is Outcome.HOT
        second.clock.advance(second.factory.config.online.lease_seconds - 1)
        await second.sweeper.sweep()
        assert await second.hot() == ["m1"], "it may be alive"
        second.clock.advance(10)
        await second.sweeper.sweep()
        assert (await second.hot(), await second.in_cold(), await second.pushed()) == ([], ["m1"], ["m1"])
        assert await second.go("m2") is Outcome.COLD

    async def test_a_half_open_connection_ends_by_itself_and_holds_nobody_up(self, stage: Stage) -> None:
        """RACES 16: its poke is written and nobody reads; its node renews it until the ping tells."""
        deaf, other = Deaf(), Socket()
        half_open = await stage.manager.connect(BOB, deaf, None)
        await stage.manager.connect(EVE, other, None)
        listening = asyncio.create_task(stage.manager.run())
        try:
            async with asyncio.timeout(TURN_SECONDS):
                assert await stage.go("m1") is Outcome.HOT
                await swept(stage, deaf.poked.is_set)
                before = other.pokes
                assert await stage.go("m2", EVE) is Outcome.HOT
                await swept(stage, lambda: other.pokes > before)
                assert await stage.hot() == ["m1"]
                deaf.cut.set()
                await stage.manager.disconnect(half_open)
                await stage.factory.tasks.settled()
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        assert (await stage.hot(), await stage.in_cold(), await stage.pushed()) == ([], ["m1"], ["m1"])
        assert await stage.hot(EVE) == ["m2"]

    async def test_a_crowd_comes_back_at_once_and_goes_again(self, many: Stage) -> None:
        """RACES 20: each is registered once, whoever they came with, and each one's mail moves when they leave."""
        stage, users = many, [f"urn:sm:user:u{number}" for number in range(CROWD)]
        connections = await asyncio.gather(*(stage.manager.connect(user, Socket(), None) for user in users))
        found = await stage.online.online()
        assert (found.users, found.messages) == (CROWD, CROWD)
        routed = await stage.route(*(stage.message(f"m-{user}", user) for user in users))
        assert {one.outcome for one in routed} == {Outcome.HOT}
        await asyncio.gather(*(stage.manager.disconnect(one) for one in connections))
        await stage.factory.tasks.settled()
        assert (await stage.online.online()).users == 0
        assert stage.moved() == CROWD
        assert await stage.in_cold(users[-1]) == [f"m-{users[-1]}"]

    async def test_a_lost_poke_is_repeated(self, stage: Stage) -> None:
        """RACES 18: nobody listened when it was sent, and until it is answered new mail need not be poked for."""
        socket = Socket()
        await stage.manager.connect(BOB, socket, None)
        assert await stage.ids() == []
        for id_ in ("m1", "m2"):
            assert await stage.go(id_) is Outcome.HOT
        listening = asyncio.create_task(stage.manager.run())
        before = socket.pokes
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await swept(stage, lambda: socket.pokes > before)
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        assert await stage.hot() == ["m1", "m2"], "nothing else did it"

    async def test_a_poke_is_repeated_until_somebody_fetches(self, stage: Stage) -> None:
        """RACES 18: also where all before were lost and the mail has moved to cold meanwhile."""
        connection = await stage.connect()
        await stage.go("m1")

        async def pokes(rounds: int, seconds: float) -> float:
            before = stage.count("router_pokes_total", kind="repeat")
            for _ in range(rounds):
                stage.clock.advance(seconds)
                await stage.online.renew([connection])
                await stage.sweeper.sweep()
            return stage.count("router_pokes_total", kind="repeat") - before

        assert await pokes(3, 7) == 1, "one is due after 15 seconds"
        assert await pokes(20, 30) == 20
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m1"])
        assert await pokes(3, 15) == 3
        assert await stage.ids() == ["m1"]
        assert await pokes(3, 15) == 0

    async def test_a_poke_stays_unanswered_when_somebody_else_connects(self, stage: Stage) -> None:
        """RACES 18: it may have been lost, and whoever connects and reads nothing answers for nobody."""
        await stage.connect()
        await stage.go("m1")
        await stage.migrator.migrate(BOB, online_too=True)
        laptop = await stage.connect(name="laptop")
        await stage.online.disconnect([laptop])
        (user,) = await stage.online.hot_users("", 10)
        assert (user.user, user.live, user.hot, user.fetched) == (BOB, 1, 0, False)

    async def test_a_fetch_that_began_before_a_poke_does_not_answer_it(self, stage: Stage) -> None:
        """RACES 18: mail comes between its looks, which return it; but its client may have given up, and another fetch
        may have told the client that there is nothing."""
        await stage.connect()
        read, came = stage.cold.read, False

        async def come_first(user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
            nonlocal came
            if not came:
                came = True
                now = stage.clock.now()
                queued = Queued(stage.message("m1"), now + 1, now, unreported=True)
                await stage.cold.put([queued])
                await stage.online.settle([queued])
            return await read(user, limit, max_bytes, after)

        stage.cold.read = come_first  # type: ignore[method-assign]  # the moment that the test forces
        await stage.go("old")
        await stage.migrator.migrate(BOB, online_too=True)
        fetching = queue_of(stage)
        assert names(await fetching.fetch(BOB, 50)) == ["old", "m1"]
        assert [(user.user, user.fetched) for user in await stage.online.hot_users("", 10)] == [(BOB, False)]
        assert names(await fetching.fetch(BOB, 50)) == ["old", "m1"]
        assert await stage.online.hot_users("", 10) == []

    async def test_a_walk_over_the_busy_meets_everybody_once(self, stage: Stage) -> None:
        """By pages of any size, in an order that stays the same."""
        users = [f"urn:sm:user:u{number}" for number in range(9)]
        for user in users:
            await stage.connect(user)
            await stage.go(f"m-{user}", user)
        whole = [found.user for found in await stage.online.hot_users("", 10)]
        assert sorted(whole) == users
        for limit in (1, 4, 9):
            walked, after = list[str](), ""
            while page := await stage.online.hot_users(after, limit):
                walked += [found.user for found in page]
                after = page[-1].user
                assert len(page) == limit or len(walked) == len(users)
            assert walked == whole

    @pytest.mark.parametrize("page", [1, 2, 500])
    async def test_everyone_who_is_connected_is_found_once(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, page: int
    ) -> None:
        """Also where many leases end together, and where there are more of them than fit into a page."""
        for module in (embedded_presence, redis_presence, firestore_presence):
            monkeypatch.setattr(module, "PAGE", page)
        assert [own async for own in stage.online.everyone()] == []
        users = [f"urn:sm:user:{number}" for number in range(12)]
        await stage.connect("urn:sm:user:gone")
        stage.clock.advance(61)
        early = [await stage.connect(user, "early") for user in users]
        stage.clock.advance(1)
        await stage.connect(users[3], "another")
        found = {own[0].user: own async for own in stage.online.everyone()}
        assert sorted(found) == sorted(users)
        for user, own in found.items():
            assert own == await stage.online.connections(user)
        assert [connection.id for connection in found[users[3]]] == ["early", "another"]
        await stage.online.renew(early)
        met = []
        async for own in stage.online.everyone():
            met.append(own[0].user)
            await stage.online.renew(early)  # which moves them in an index of leases
        assert sorted(met) == sorted(users)

    async def test_connections_have_a_limit(self, stage: Stage) -> None:
        """RACES 37."""
        for number in range(3):
            await stage.online.connect(Connection(BOB, f"c{number}", "node", 0), 3)
        await stage.online.connect(Connection(BOB, "c1", "node", 0), 3)
        with pytest.raises(TooManyConnections):
            await stage.online.connect(Connection(BOB, "one more", "node", 0), 3)

    async def test_a_newcomer_replaces_those_that_were_not_renewed(self, stage: Stage) -> None:
        """RACES 51: in the step in which it registers, and only if there is room for it then."""
        for name in ("alive", "silent", "gone"):
            await stage.online.connect(Connection(BOB, name, "node", stage.clock.now()), 3)
            stage.clock.advance(1)
        held = await stage.online.connections(BOB)
        await stage.online.renew([connection for connection in held if connection.id == "alive"])
        renewed = await stage.online.connections(BOB)
        with pytest.raises(TooManyConnections):
            await stage.online.connect(Connection(BOB, "new", "node", stage.clock.now()), 1, held)
        assert await stage.online.connections(BOB) == renewed
        await stage.online.connect(Connection(BOB, "new", "node", stage.clock.now()), 3, held)
        assert [connection.id for connection in await stage.online.connections(BOB)] == ["alive", "new"]
        assert await stage.go("m1") is Outcome.HOT

    async def test_sockets_of_the_dead_do_not_shut_out_the_living(
        self, stage: Stage, second: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RACES 51: half open at another node, or left by one that was killed, and no mail moves because of it."""
        for manager in (stage.manager, second.manager):
            monkeypatch.setattr(manager, "_limit", 3)
        alive, silent = Socket(), Socket()
        async with listening(stage), listening(second):
            await second.manager.connect(BOB, alive, None)
            await second.manager.connect(BOB, silent, None)
            dead = Connection(BOB, "of the dead", "killed", stage.clock.now())
            await stage.online.connect(dead, 3)
            assert await stage.go("m1") is Outcome.HOT
            silent.silent_seconds = ANSWER_SECONDS
            await comes(stage, [alive])
            connections = await stage.online.connections(BOB)
            assert sorted(connection.node for connection in connections) == sorted(
                [stage.factory.node, second.factory.node]
            )
            assert (alive.pings, alive.codes, silent.codes) == (1, [], [REPLACED])
            assert await stage.hot() == ["m1"]

    async def test_an_operator_disconnects_a_user_on_every_node(self, stage: Stage, second: Stage) -> None:
        """Nobody else, and nothing that the user opens afterwards. Their mail moves as with any last connection."""
        here, there, of_eve = Socket(), Socket(), Socket()
        async with listening(stage), listening(second):
            await stage.manager.connect(BOB, here, None)
            await second.manager.connect(BOB, there, None)
            await second.manager.connect(EVE, of_eve, None)
            assert await stage.go("m1") is Outcome.HOT
            before = await stage.online.connections(BOB)
            done = await disconnects(stage)
            assert (list(done.closed), list(done.left)) == (before, [])
            assert (here.codes, there.codes, of_eve.codes) == ([DISCONNECTED], [DISCONNECTED], [])
            assert await stage.online.connections(BOB) == []

            async def moved() -> bool:
                return await stage.in_cold() == ["m1"]

            async with asyncio.timeout(TURN_SECONDS):
                await run_until(stage.clock, moved)
            again = Socket()
            await second.manager.connect(BOB, again, None)
            bus = await stage.factory.poke_bus()
            await bus.publish([(connection.node, MARK + connection.id) for connection in before])
            await stage.online.poke([BOB])  # behind it on the same way

            async def heard() -> bool:
                return bool(again.pokes)

            async with asyncio.timeout(TURN_SECONDS):
                await run_until(stage.clock, heard)
            assert again.codes == []

    async def test_an_operator_is_told_of_a_node_that_does_not_answer(self, stage: Stage) -> None:
        alive = Socket()
        async with listening(stage):
            await stage.manager.connect(BOB, alive, None)
            dead = Connection(BOB, "of the dead", "killed", stage.clock.now())
            await stage.online.connect(dead, 3)
            done = await disconnects(stage)
            assert [connection.id for connection in done.left] == ["of the dead"]
            assert (len(done.closed), alive.codes) == (1, [DISCONNECTED])
            assert not (await disconnects(stage, EVE)).closed

    async def test_the_living_shut_out_one_more(self, stores: Stores, clock: ManualClock, second: Stage) -> None:
        """RACES 37, 51: wherever they are held."""
        here, there = Socket(), Socket()
        async with staged(stores, clock, limits={"connections_per_user": 2}) as stage:
            async with listening(stage), listening(second):
                await stage.manager.connect(BOB, here, None)
                await second.manager.connect(BOB, there, None)
                with pytest.raises(TooManyConnections):
                    await comes(stage, [here, there])
            assert (here.codes, there.codes, here.pings, there.pings) == ([], [], 1, 1)
            assert len(await stage.online.connections(BOB)) == 2

    async def test_a_registration_says_whether_mail_waits(self, stage: Stage) -> None:
        """RACES 12."""
        await stage.connect()
        assert await stage.ids() == [], "from here on cold is known to be empty"
        assert not await stage.online.connect(Connection(BOB, "c1", "node", 0), 9)
        await stage.go("m1")
        assert await stage.online.connect(Connection(BOB, "c2", "node", 0), 9)

    async def test_retention(self, stage: Stage) -> None:
        await stage.go("old")
        stage.clock.advance(29 * 86_400)
        await stage.go("new")
        stage.clock.advance(2 * 86_400)
        assert await stage.ids() == ["old", "new"], "nothing hides it but its deletion"
        await stage.sweeper.sweep()
        assert await stage.in_cold() == await stage.ids() == ["new"]
        assert (await stage.cold.totals(None)).messages == 1

    async def test_retention_ends_the_wait_for_what_was_never_settled(self, stage: Stage) -> None:
        """Its pipeline died after it had written to cold, and the ingress delivers it no more: what stands behind it
        must not wait for ever."""
        message = stage.message("old")
        (routed,) = await stage.route(message)
        assert await stage.cold.put([Queued(message, routed.sequence, routed.queued_at)]) == []
        stage.clock.advance(29 * 86_400)
        await stage.go("new")
        assert await stage.ids() == ["old", "new"]
        stage.clock.advance(2 * 86_400)
        await stage.sweeper.sweep()
        assert await stage.ids() == ["new"]
        assert await stage.go("old") is Outcome.DUPLICATE

    async def test_a_place_that_nobody_will_write_any_more_holds_up_nothing(self, stores: Stores, stage: Stage) -> None:
        """RACES 6: its pipeline died before it wrote to cold, and the ingress delivers it no more. It counts no longer,
        and whoever publishes its dead letter again sends new mail."""
        async with staged(stores, stage.clock, cap=3, limits={"queue_bytes": 3000}) as small:
            await small.route(small.message("lost", size=1000))
            small.clock.advance(5 * 86_400)
            await small.go("new", size=1000)
            for _ in range(27):
                assert await small.ids() == []
                small.clock.advance(86_400)
                await small.sweeper.sweep()
            assert await small.ids() == ["new"]
            assert (await small.online.read(BOB, 10, PAGE_BYTES)).pending == []
            assert await small.go("lost", size=1000) is Outcome.COLD
            assert await small.go("too large", size=1001) is Outcome.QUEUE_BYTES_FULL
            assert await small.go("last", size=1000) is Outcome.COLD
            assert await small.go("one more", size=10) is Outcome.QUEUE_FULL
            assert await small.ids() == ["new", "lost", "last"]
            await small.queue.acknowledge(BOB, ["new", "lost", "last"])
            assert await small.ids() == []
            assert (await small.online.read(BOB, 10, PAGE_BYTES)).cold_empty, "nothing is on its way there"

    async def test_a_copy_of_what_was_given_up_is_counted_once(self, stores: Stores, stage: Stage) -> None:
        """RACES 6: it came to cold late, and was never settled. It is served, and retention removes it in its turn."""
        async with staged(stores, stage.clock, cap=3) as small:
            message = small.message("late")
            (routed,) = await small.route(message)
            await small.cold.put([Queued(message, routed.sequence, routed.queued_at + 5 * 86_400 * MICROSECONDS)])
            for _ in range(32):
                small.clock.advance(86_400)
                await small.sweeper.sweep()
                assert await small.ids() == ["late"]
            assert await state_on_record(small, "late") is State.UNKNOWN
            for number in range(3):
                assert await small.go(f"m{number}") is Outcome.COLD
            for _ in range(5):
                small.clock.advance(86_400)
                await small.sweeper.sweep()
            assert await small.ids() == ["m0", "m1", "m2"]
            assert await small.go("one more") is Outcome.QUEUE_FULL

    async def test_retention_passes_by_mail_of_a_clock_that_was_wrong(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where there is more of it than one look of the sweeper takes in."""
        monkeypatch.setattr(sweeper, "PAGE_MESSAGES", 2)
        strangers = [f"urn:sm:user:stranger{number}" for number in range(5)]
        stage.clock.advance(10 * 86_400)
        for stranger in strangers:
            await stage.go(f"of {stranger}", stranger)
        stage.clock.advance(-10 * 86_400)
        await stage.go("old")
        stage.clock.advance(31 * 86_400)
        for _ in range(4):
            await stage.sweeper.sweep()
            stage.clock.advance(61)
        assert (await stage.cold.totals(BOB)).messages == 0
        assert [await stage.in_cold(stranger) for stranger in strangers] == [[f"of {user}"] for user in strangers]

    @pytest.mark.parametrize("done", [False, True])
    @pytest.mark.parametrize(("component", "call"), [("online", "forget_cold"), ("cold", "expire")])
    async def test_retention_that_dies_between_its_steps_is_completed(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch, component: str, call: str, done: bool
    ) -> None:
        """The online store must not believe for ever that cold has what is gone."""
        await stage.go("old")
        stage.clock.advance(31 * 86_400)
        store = type(getattr(stage, component))
        step = getattr(store, call)

        async def die(self: object, messages: Sequence[Queued]) -> None:
            if done:
                await step(self, messages)
            raise Unavailable("died")

        with monkeypatch.context() as patch:
            patch.setattr(store, call, die)
            with pytest.raises(Unavailable, match="died"):
                await stage.sweeper.sweep()
        told = done or component == "cold"
        assert await stage.ids() == ([] if told else ["old"])
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert (await stage.cold.totals(None)).messages == 0
        assert await stage.go("old") is Outcome.DUPLICATE

    async def test_how_long_mail_waited_is_told_at_its_fetch_and_at_its_acknowledgement(self, stage: Stage) -> None:
        """One of an id that tells no time counts for the first only; a fetch that is repeated counts again."""
        plain, keyed = new_id(stage.clock.now(), bytes(10)), keyed_id(b"secret", EVE, BOB, "key")
        await stage.go(plain)
        await stage.go(keyed)
        stage.clock.advance(3)
        assert await stage.ids() == [plain, keyed]
        stage.clock.advance(86_400)
        assert await stage.ids() == [plain, keyed]
        await stage.queue.acknowledge(BOB, [plain, keyed])

        def bucket(event: str, bound: str) -> float:
            return stage.count(f"router_{event}_after_seconds_bucket", le=bound)

        assert [bucket("fetched", bound) for bound in ("2.5", "5.0", "86400.0", "172800.0", "+Inf")] == [0, 2, 2, 4, 4]
        assert [bucket("acknowledged", bound) for bound in ("86400.0", "172800.0", "+Inf")] == [0, 1, 1]
        assert stage.count("router_fetched_after_seconds_sum") == pytest.approx(2 * (3 + 86_403))

    async def test_one_process_leads(self, stage: Stage, second: Stage) -> None:
        """It goes on to lead as long as it says so, and counts what both have put there."""
        assert await stage.online.lead(stage.factory.node)
        assert not await second.online.lead(second.factory.node)
        assert await stage.online.lead(stage.factory.node)
        await stage.connect()
        await stage.go("m1")
        await second.go("m2", EVE)
        census = await stage.factory.census_taker()
        await census.take()
        assert stage.count("router_queue_messages", queue="hot") == 1
        assert stage.count("router_queue_messages", queue="cold") == 1
        assert stage.count("router_online_users") == 1
        await (await second.factory.census_taker()).take()
        assert second.count("router_queue_messages", queue="hot") == 0, "it tells nothing"

    async def test_nothing_is_left_of_users_who_went(self, stage: Stage) -> None:
        phone = await stage.connect()
        await stage.go("m1")
        await stage.queue.acknowledge(BOB, ["m1"])
        await stage.online.disconnect([phone])
        stage.clock.advance(3601)
        for _ in range(3):
            await stage.sweeper.sweep()
        assert await stage.online.hot_users("", 10) == []
        assert (await stage.online.totals(None)).messages == 0

    async def test_mail_that_was_routed_without_the_store_is_told_to_it(self, stage: Stage) -> None:
        """RACES 10: it is found, stays in order, is known when it is redelivered, and goes when it is acknowledged."""
        await stage.connect()
        await stage.go("before")
        await stage.queue.acknowledge(BOB, ["before"])
        assert await stage.ids() == [], "from here on cold is known to be empty"
        now = stage.clock.now()
        lost = [Queued(stage.message("m1"), now + 1, now), Queued(stage.message("m2"), now + 2, now)]
        assert await stage.cold.put(lost) == []
        assert await stage.online.settle(lost) == Settled([], [])
        assert await stage.online.settle(lost) == Settled([], [])
        await stage.go("m3")
        assert await stage.ids() == ["m1", "m2", "m3"]
        assert await stage.go("m1") is Outcome.ANNOUNCE
        await stage.queue.acknowledge(BOB, ["m1", "m3"])
        assert await stage.go("m1") is Outcome.DUPLICATE
        assert await stage.ids() == await stage.in_cold() == ["m2"]

    async def test_a_route_that_was_late_and_a_copy_in_cold_are_one_message(self, stage: Stage) -> None:
        """RACES 10, 11: the store did route what the pipeline had given up on and written to cold."""
        await stage.connect()
        await stage.go("m1")
        again = Queued(stage.message("m1"), stage.clock.now() + 5, stage.clock.now())
        assert await stage.cold.put([again]) == []
        assert await stage.online.settle([again]) == Settled([], [])
        assert await stage.ids() == ["m1"]
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.ids() == await stage.in_cold() == []

    async def test_a_copy_in_cold_behind_its_place_does_not_end_the_write_that_is_under_way(self, stage: Stage) -> None:
        """RACES 7, 10: a pipeline wrote it without the store, while another one has its place and has to write it."""
        message = stage.message("m1")
        (routed,) = await stage.route(message)
        await stage.go("m2")
        late = Queued(message, routed.sequence + 1000, routed.queued_at)
        assert await stage.cold.put([late]) == []
        assert await stage.online.settle([late]) == Settled([], [Queued(message, routed.sequence, routed.queued_at)])
        assert await stage.ids() == ["m1", "m2"], "readers know its place"
        assert (await stage.route(message, attempt=2))[0] == routed
        gone = Queued(stage.message("m3"), routed.sequence, routed.queued_at)
        await stage.cold.update_places([Queued(message, routed.sequence, routed.queued_at), gone])
        assert await stage.in_cold() == ["m1", "m2"]
        assert await stage.online.settle([Queued(message, routed.sequence, routed.queued_at)]) == Settled([], [])
        assert await stage.go("m1") is Outcome.ANNOUNCE

    async def test_a_place_that_nobody_is_to_write_any_more_is_taken(self, stage: Stage) -> None:
        """RACES 7, 10: the pipeline that was given the place died, and the other one died before it could tell."""
        message = stage.message("m1")
        (routed,) = await stage.route(message)
        await stage.go("m2")
        await stage.cold.put([Queued(message, routed.sequence + 1000, stage.clock.now(), unreported=True)])
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert await stage.in_cold() == ["m1", "m2"]
        assert await stage.go("m1") is Outcome.ANNOUNCE
        assert await stage.cold.unreported(stage.clock.now(), 10) == []

    async def test_a_copy_that_nobody_told_of_is_told_by_the_sweeper(self, stage: Stage) -> None:
        """RACES 3, 10: pipelines wrote to cold without the store and died. One message was routed and acknowledged
        meanwhile: its copy must not outlive the record of that."""
        now = stage.clock.now()
        await stage.connect()
        await stage.go("m1")
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.ids() == [], "from here on cold is known to be empty"
        left = [
            Queued(stage.message(name), now + place, now, unreported=True) for place, name in enumerate(("m1", "m2"))
        ]
        assert await stage.cold.put(left) == []
        assert await stage.cold.unreported(now - 1, 10) == []
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert await stage.in_cold() == ["m2"]
        assert await stage.ids() == ["m2"]
        assert await stage.go("m2") is Outcome.ANNOUNCE
        assert await stage.cold.unreported(stage.clock.now(), 10) == []

    async def test_what_was_delivered_before_may_be_in_cold(self, stage: Stage) -> None:
        """RACES 10: a pipeline wrote it there without the store, and died before it could tell."""
        await stage.connect()
        assert await stage.ids() == []
        message = stage.message("m1")
        await stage.cold.put([Queued(message, stage.clock.now(), stage.clock.now())])
        (routed,) = await stage.route(message, attempt=2)
        assert routed.outcome is Outcome.HOT
        assert await stage.ids() == ["m1"]
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.in_cold() == []

    async def test_write_through_keeps_a_copy_in_cold(self, doubled: Stage) -> None:
        """The client sees one queue; an acknowledgement and a migration leave one copy or none."""
        phone = await doubled.connect()
        assert await doubled.go("m1") is Outcome.HOT
        assert await doubled.go("typing", ephemeral=True) is Outcome.HOT
        assert await doubled.go("m2") is Outcome.HOT
        assert await doubled.go("m2") is Outcome.COPY
        assert await doubled.in_cold() == ["m1", "m2"]
        assert await doubled.ids() == ["m1", "typing", "m2"]
        await doubled.queue.acknowledge(BOB, ["m1"])
        assert await doubled.go("m1") is Outcome.DUPLICATE
        assert await doubled.in_cold() == ["m2"]
        await doubled.online.disconnect([phone])
        assert (await doubled.migrator.migrate(BOB)).moved == 1
        assert (await doubled.hot(), await doubled.in_cold(), await doubled.ids()) == ([], ["m2"], ["m2"])

    async def test_a_copy_that_comes_after_the_acknowledgement_is_deleted(self, doubled: Stage) -> None:
        """RACES 24, with write-through."""
        await doubled.connect()
        message = doubled.message("m1")
        (routed,) = await doubled.route(message)
        await doubled.queue.acknowledge(BOB, ["m1"])
        queued = Queued(message, routed.sequence, routed.queued_at)
        await doubled.cold.put([queued])
        assert (await doubled.online.settle([queued])).acked == [queued]
