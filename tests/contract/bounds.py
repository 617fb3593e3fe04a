"""How many bytes may wait for one recipient, and that each way out of the queue gives back what it took; how many may
come. A part of ``queues.QueueContract``."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import count

import pytest
from msgspec import structs

from router.core import send_limits
from router.core.acceptance import Acceptor
from router.core.send_limits import SendLimits
from router.errors import RateLimited
from router.messages import Lane, Move, Outcome, Queued, Settled
from router.metrics import Metrics
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Stage, names, staged
from tests.support.clock import ManualClock
from tests.support.kept import Kept
from tests.support.stores import Stores

pytestmark = pytest.mark.anyio
LIMIT, REST, SIZE = 1000, 150, 200
"""What stays in the queue is the rest, in hot and in cold: without it, either might be empty by definition."""
NUMBERS = count()

BUDGET = {"inbound_bytes": 1000, "inbound_bytes_per_second": 10}
"""Whole again after 100 s."""
EXHAUSTED = Outcome.INBOUND_EXHAUSTED


def body_of(size: int) -> bytes:
    """An envelope for Bob with so many opaque bytes."""
    return b'{"recipientId":"%b","encryptedData":"%b"}' % (BOB.encode(), base64.b64encode(bytes(size)))


async def has_left(stage: Stage, size: int) -> None:
    """Exactly ``size`` bytes more may come to Bob now. Nothing may come after this."""
    assert [await stage.go(f"over {next(NUMBERS)}", size=size + 1)] == [EXHAUSTED]
    assert [await stage.go(f"fits {next(NUMBERS)}", size=size)] != [EXHAUSTED]


async def has_room(stage: Stage, size: int) -> None:
    """Exactly ``size`` bytes more may wait for Bob."""
    over, fits = (stage.message(f"probe {next(NUMBERS)}", size=size + more) for more in (1, 0))
    assert [routed.outcome for routed in await stage.route(over)] == [Outcome.QUEUE_BYTES_FULL]
    assert [routed.outcome for routed in await stage.route(fits)] != [Outcome.QUEUE_BYTES_FULL]
    await stage.queue.acknowledge(BOB, [fits.id])


async def cold_m(stage: Stage) -> Queued:
    assert await stage.go("m", size=SIZE, lane=Lane.EXPRESS) is Outcome.COLD
    await has_room(stage, LIMIT - REST - SIZE)
    return (await stage.cold.read(BOB, 10, PAGE_BYTES)).messages[0]


async def hot_m(stage: Stage, *, ephemeral: bool = False) -> Queued:
    await stage.connect()
    assert await stage.go("m", size=SIZE, lane=Lane.EXPRESS, ephemeral=ephemeral) is Outcome.HOT
    await has_room(stage, LIMIT - REST - SIZE)
    return (await stage.online.inspect(BOB, 10))[0]


async def taken(stage: Stage) -> Move:
    await hot_m(stage)
    move = await stage.online.begin_move(BOB, "mover", 1, PAGE_BYTES, online_too=True)
    assert isinstance(move, Move)
    assert await stage.cold.put(move.messages) == []
    return move


async def acknowledged_in_hot(stage: Stage) -> None:
    await hot_m(stage)
    await stage.queue.acknowledge(BOB, ["m", "m"])
    await stage.queue.acknowledge(BOB, ["m"])


async def acknowledged_in_cold(stage: Stage) -> None:
    await cold_m(stage)
    await stage.queue.acknowledge(BOB, ["m", "m"])
    await stage.queue.acknowledge(BOB, ["m"])


async def acknowledged_on_its_way(stage: Stage) -> None:
    message = stage.message("m", size=SIZE)
    (routed,) = await stage.route(message)
    assert (routed.outcome, await stage.in_cold()) == (Outcome.COLD, ["cold"])
    await has_room(stage, LIMIT - REST - SIZE)
    await stage.online.ack(BOB, ["m"])
    queued = Queued(message, routed.sequence, routed.queued_at)
    assert await stage.online.settle([queued]) == Settled([queued], []), "too late"


async def moved_and_acknowledged(stage: Stage) -> None:
    move = await taken(stage)
    await has_room(stage, LIMIT - REST - SIZE)
    for _ in range(2):
        await stage.online.end_move(BOB, "mover", move.messages)
        await has_room(stage, LIMIT - REST - SIZE)
    assert (await stage.hot(), await stage.in_cold()) == (["hot"], ["m", "cold"])
    await stage.queue.acknowledge(BOB, ["m"])


async def acknowledged_while_it_moves(stage: Stage) -> None:
    move = await taken(stage)
    await stage.online.ack(BOB, ["m"])
    assert await stage.online.end_move(BOB, "mover", move.messages) == ["m"]


async def past_retention(stage: Stage) -> None:
    queued = await cold_m(stage)
    bare = structs.replace(queued, message=structs.replace(queued.message, envelope=b""))
    for _ in range(2):
        await stage.online.forget_cold([bare])
    await stage.cold.expire([bare])


async def expired(stage: Stage) -> None:
    await hot_m(stage, ephemeral=True)
    stage.clock.advance(10)
    assert await stage.online.purge(100, stage.clock.now()) == 1


async def dropped_by_a_move(stage: Stage) -> None:
    await hot_m(stage, ephemeral=True)
    move = await stage.online.begin_move(BOB, "mover", 10, PAGE_BYTES, online_too=True)
    assert isinstance(move, Move)
    assert move.dropped == 1


async def discarded_in_hot(stage: Stage) -> None:
    queued = await hot_m(stage)
    for _ in range(2):
        await stage.online.discard(BOB, [queued])


async def discarded_in_cold(stage: Stage) -> None:
    queued = await cold_m(stage)
    for _ in range(2):
        await stage.online.discard(BOB, [queued])


async def routed_without_the_store(stage: Stage) -> None:
    """The store is told later, without the envelope, and more than once."""
    queued = Queued(stage.message("m", size=SIZE), stage.clock.now(), stage.clock.now(), unreported=True)
    assert await stage.cold.put([queued]) == []
    await has_room(stage, LIMIT - REST)
    unreported = await stage.cold.unreported(stage.clock.now(), 10)
    assert [(one.message.id, one.message.envelope) for one in unreported] == [("m", b"")]
    for _ in range(2):
        assert await stage.online.settle(unreported) == Settled([], [])
        await has_room(stage, LIMIT - REST - SIZE)
    await stage.queue.acknowledge(BOB, ["m"])


async def copied_in_doubt(stage: Stage) -> None:
    """It was delivered before, so cold may have a copy of it from a pipeline that is gone."""
    await stage.connect()
    message = stage.message("m", size=SIZE)
    for _ in range(2):
        (routed,) = await stage.route(message, attempt=2)
        await has_room(stage, LIMIT - REST - SIZE)
    await stage.cold.put([Queued(message, routed.sequence, routed.queued_at)])
    await stage.queue.acknowledge(BOB, ["m"])


WAYS: list[Callable[[Stage], Awaitable[None]]] = [
    acknowledged_in_hot, acknowledged_in_cold, acknowledged_on_its_way, moved_and_acknowledged,
    acknowledged_while_it_moves, past_retention, expired, dropped_by_a_move, discarded_in_hot, discarded_in_cold,
    routed_without_the_store, copied_in_doubt,
]  # fmt: skip


class BoundsContract:
    """``limits.queue_bytes``: hot and cold together, each message once. ``limits.inbound_bytes``."""

    @pytest.fixture
    async def bounded(self, anyio_backend: str, stores: Stores, clock: ManualClock) -> AsyncIterator[Stage]:
        async with staged(stores, clock, limits={"queue_bytes": LIMIT}) as opened:
            yield opened

    @pytest.fixture
    async def budgeted(self, anyio_backend: str, stores: Stores, clock: ManualClock) -> AsyncIterator[Stage]:
        async with staged(stores, clock, limits=BUDGET) as opened:
            yield opened

    @pytest.fixture
    async def bounded_and_doubled(self, anyio_backend: str, stores: Stores, clock: ManualClock) -> AsyncIterator[Stage]:
        async with staged(stores, clock, durability="write-through", limits={"queue_bytes": LIMIT}) as opened:
            yield opened

    async def test_the_bytes_of_a_queue_have_a_cap(self, bounded: Stage) -> None:
        """What is there stays, what fits comes in, and nobody else's queue is any fuller."""
        stage = bounded
        assert await stage.go("cold", size=600) is Outcome.COLD
        await stage.connect()
        assert await stage.go("too large", size=401) is Outcome.QUEUE_BYTES_FULL
        assert await stage.go("hot", size=400) is Outcome.HOT
        assert await stage.go("typing", ephemeral=True) is Outcome.QUEUE_BYTES_FULL
        assert await stage.go("hers", EVE, size=1000) is Outcome.COLD
        assert await stage.go("cold", size=600) is Outcome.ANNOUNCE, "what is in stays in"
        assert await stage.ids() == ["cold", "hot"]
        await stage.queue.acknowledge(BOB, ["cold"])
        assert await stage.go("fits now", size=600) is Outcome.HOT
        assert await stage.go("one more", lane=Lane.EXPRESS, size=1) is Outcome.QUEUE_BYTES_FULL

    async def test_one_step_fills_a_queue_to_its_cap(self, bounded: Stage) -> None:
        """Of what is routed together, each one sees those before it."""
        messages = [bounded.message(f"m{number}", size=size) for number, size in enumerate((600, 401, 400, 1))]
        outcomes = [routed.outcome for routed in await bounded.route(*messages)]
        full = Outcome.QUEUE_BYTES_FULL
        assert outcomes == [Outcome.COLD, full, Outcome.COLD, full]

    @pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
    async def test_what_leaves_gives_its_bytes_back(
        self, bounded: Stage, way: Callable[[Stage], Awaitable[None]]
    ) -> None:
        """No byte more, and none less."""
        stage = bounded
        assert await stage.go("cold", size=100) is Outcome.COLD
        phone = await stage.connect()
        assert await stage.go("hot", size=REST - 100) is Outcome.HOT
        await stage.online.disconnect([phone])
        await way(stage)
        await has_room(stage, LIMIT - REST)

    async def test_copies_of_write_through_count_once(self, bounded_and_doubled: Stage) -> None:
        stage = bounded_and_doubled
        await stage.go("rest", size=REST)
        await stage.connect()
        for id_ in ("hot", "moves", "m"):
            assert await stage.go(id_, size=SIZE) is Outcome.HOT
        assert await stage.go("m", size=SIZE) is Outcome.COPY
        await has_room(stage, LIMIT - REST - 3 * SIZE)
        await stage.queue.acknowledge(BOB, ["hot"])
        await has_room(stage, LIMIT - REST - 2 * SIZE)
        await stage.migrator.migrate(BOB, online_too=True)
        assert (await stage.hot(), await stage.in_cold()) == ([], ["rest", "moves", "m"])
        await has_room(stage, LIMIT - REST - 2 * SIZE)
        await stage.queue.acknowledge(BOB, ["moves", "m"])
        await has_room(stage, LIMIT - REST)

    async def test_a_cold_queue_that_was_found_empty_holds_no_bytes(self, bounded: Stage) -> None:
        """Whatever the store believed of it."""
        stage = bounded
        await stage.go("lost", size=SIZE)
        await stage.cold.delete(BOB, ["lost"])
        await has_room(stage, LIMIT - SIZE)
        await stage.connect()
        await stage.go("hot", size=REST)
        assert await stage.ids() == ["hot"]
        await has_room(stage, LIMIT - REST)
        assert names(await stage.online.inspect(BOB, 10)) == ["hot"]

    async def test_what_comes_to_one_recipient_has_a_budget(self, budgeted: Stage) -> None:
        """RACES 48: in either tier. What is refused costs nothing, nor does a redelivery; fetching gives none back."""
        stage = budgeted
        assert await stage.go("cold", size=500) is Outcome.COLD
        await stage.connect()
        assert await stage.go("too large", size=501) is EXHAUSTED
        assert await stage.go("hot", size=300) is Outcome.HOT
        for _ in range(2):
            assert await stage.go("cold", size=500) is Outcome.ANNOUNCE
            assert await stage.go("hot", size=300) is Outcome.DUPLICATE
        await stage.queue.acknowledge(BOB, await stage.ids())
        assert await stage.go("hot", size=300) is Outcome.DUPLICATE
        assert await stage.go("hers", EVE, size=1000) is Outcome.COLD
        await has_left(stage, 200)
        stage.clock.advance(10)
        await has_left(stage, 100)

    async def test_a_budget_comes_back_and_never_more_than_that(self, budgeted: Stage) -> None:
        assert await budgeted.go("m1", size=1000) is Outcome.COLD
        budgeted.clock.advance(99)
        assert await budgeted.go("too early", size=991) is EXHAUSTED
        budgeted.clock.advance(1000)
        assert await budgeted.go("all of it", size=1000) is Outcome.COLD
        assert await budgeted.go("one more", size=50) is EXHAUSTED
        budgeted.clock.advance(1000)
        assert await budgeted.go("larger than all of it", size=1100) is Outcome.COLD, "which was whole"
        budgeted.clock.advance(20)
        await has_left(budgeted, 100)

    async def test_one_step_charges_a_budget(self, budgeted: Stage) -> None:
        messages = [budgeted.message(f"m{number}", size=size) for number, size in enumerate((600, 401, 400, 100))]
        outcomes = [routed.outcome for routed in await budgeted.route(*messages)]
        assert outcomes == [Outcome.COLD, EXHAUSTED, Outcome.COLD, EXHAUSTED]

    async def test_ephemeral_mail_is_charged_where_it_comes(self, budgeted: Stage) -> None:
        assert await budgeted.go("offline", size=900, ephemeral=True) is Outcome.DROPPED_OFFLINE
        await budgeted.connect()
        assert await budgeted.go("typing", size=900, ephemeral=True) is Outcome.HOT
        assert await budgeted.go("typing more", size=101, ephemeral=True) is EXHAUSTED
        await has_left(budgeted, 100)

    async def test_what_was_routed_without_the_store_is_not_charged(self, budgeted: Stage) -> None:
        """The budget says how fast mail may come; how much waits is counted all the same."""
        queued = Queued(budgeted.message("m", size=600), budgeted.clock.now(), budgeted.clock.now(), unreported=True)
        await budgeted.cold.put([queued])
        await budgeted.online.settle([queued])
        assert await budgeted.go("all of it", size=1000) is Outcome.COLD
        assert await budgeted.go("one more", size=50) is EXHAUSTED

    async def test_a_budget_outlives_its_user_who_left(self, stores: Stores, clock: ManualClock, stage: Stage) -> None:
        """Whoever fetches all and is gone for an hour is forgotten; then nothing may be missing of the budget."""
        del stage
        async with staged(stores, clock, limits={"inbound_bytes": 1000, "inbound_bytes_per_second": 0.05}) as slow:
            assert await slow.go("m1", size=1000) is Outcome.COLD
            await slow.queue.acknowledge(BOB, ["m1"])
            for _ in range(10):
                clock.advance(1000)
                await slow.sweeper.sweep()
            await has_left(slow, 500)

    @pytest.mark.parametrize("seconds", [300, 3600, 86_400])
    async def test_a_clock_that_was_ahead_keeps_nobody_from_mail(
        self, stores: Stores, clock: ManualClock, budgeted: Stage, seconds: int
    ) -> None:
        async with staged(stores, ManualClock(clock.time + seconds * 1_000_000), limits=BUDGET) as ahead:
            assert await ahead.go("m1", size=1000) is Outcome.COLD
        assert await budgeted.go("m2", size=1000) is Outcome.COLD
        assert await budgeted.go("m3", size=1000) is EXHAUSTED

    async def test_one_sender_at_the_highest_rate_keeps_nobody_elses_mail_away(
        self, stores: Stores, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, stage: Stage
    ) -> None:
        """RACES 48: as fast, and as large, as the limits of a pair allow; in proportion, these are the defaults."""
        del stage
        monkeypatch.setattr(send_limits, "PAIR_BYTES", 100)
        limits = {"queue_messages": 1000, "inbound_bytes": 8192, "inbound_bytes_per_second": 800}
        async with staged(stores, clock, limits=limits) as small:
            sent = Kept()
            acceptor = Acceptor(
                sent,
                SendLimits(
                    clock,
                    secrets.token_bytes,
                    rate=50,
                    burst=200,
                    pair_rate=5,
                    pair_burst=60,
                    outbound_bytes=0,
                    outbound_bytes_per_second=1,
                ),
                clock=clock,
                entropy=secrets.token_bytes,
                idempotency_secret=b"secret",
                max_bytes=5000,
                metrics=Metrics(),
            )
            for second in range(40):
                with suppress(RateLimited):
                    while True:
                        await acceptor.accept("mallory", body_of(50 if second % 2 else 400))
                await acceptor.accept("alice", body_of(100))
                assert [routed.outcome for routed in await small.route(*sent.messages)][-1] is Outcome.COLD
                sent.messages.clear()
                clock.advance(1)
