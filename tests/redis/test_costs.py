"""What a message costs: round trips, memory, and nothing that is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from router.backends.routing_rules import LEAD_SECONDS
from router.messages import Connection, Delivery, Lane, Message, Move, Outcome
from tests.contract.stage import BOB, Stage, staged
from tests.redis.conftest import commands
from tests.support.clock import ManualClock
from tests.support.redis_servers import client
from tests.support.servers import Server
from tests.support.stores_redis import RedisStores

pytestmark = pytest.mark.anyio
KIB = 1024


def uuid(number: int) -> str:
    return f"{number:08x}-0000-7000-8000-000000000000"


def user(number: int) -> str:
    return f"urn:sm:user:{{{number}}}"


def message(stage: Stage, number: int, user: str = BOB, *, keyed: bool = False) -> Message:
    """A message of 1 KiB with an id as the router gives it."""
    return Message(uuid(number), user, b"x" * KIB, Lane.NORMAL, False, stage.clock.now(), keyed)


def memory(redis: Any, *, prefix: str) -> int:
    return sum(redis.memory_usage(key, samples=0) for key in redis.scan_iter(f"{prefix}:*", count=1000))


@pytest.fixture
def redis_client(redis: Server) -> Any:
    return client(redis)


async def test_a_message_costs_three_round_trips(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Route, fetch, acknowledge, for a user whose cold queue is known to be empty; less in a batch."""
    await stage.connect()
    assert await stage.ids() == []
    await stage.go("the server learns the scripts")
    await stage.queue.acknowledge(BOB, await stage.ids())
    sent = commands(stage, monkeypatch)
    for number in range(10):
        await stage.online.route([Delivery(message(stage, number), 0, 1)])
        ids = await stage.ids()
        await stage.queue.acknowledge(BOB, ids)
    assert len(sent) == 30
    del sent[:]
    await stage.online.route([Delivery(message(stage, 100 + n, f"urn:sm:user:u{n % 7}"), 0, 1) for n in range(100)])
    assert len(sent) == 1


async def test_an_acknowledgement_and_a_page_cost_one_round_trip(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same user: who drains needs one for a page."""
    await stage.connect()
    assert await stage.ids() == []
    await stage.go("the server learns the scripts")
    await stage.queue.acknowledge(BOB, await stage.ids())
    await stage.route(*(message(stage, number) for number in range(10)))
    page = await stage.ids(limit=2)
    sent = commands(stage, monkeypatch)
    count = len(page)
    while page := [queued.message.id for queued in await stage.queue.next(BOB, page, 2)]:
        count += len(page)
    assert (count, len(sent)) == (10, 5)


async def test_a_script_call_a_recipient(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = commands(stage, monkeypatch)
    await stage.online.route([Delivery(message(stage, n, f"urn:sm:user:u{n % 7}"), 0, 1) for n in range(100)])
    meta = stage.online.state.keys.of("urn:sm:user:u0")[0]  # type: ignore[attr-defined]
    assert [meta in command for command in sent[0]].count(True) == 1


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
async def test_memory_of_queued_messages(many: Stage, redis_client: Any, count: int) -> None:
    """All keys and the message itself: at most 2.2 KiB for one of 1 KiB, beside what a user costs once."""
    await many.connect()
    prefix = many.factory.config.online.key_prefix
    before = memory(redis_client, prefix=prefix)
    for start in range(0, count, 100):
        batch = [message(many, number) for number in range(start, min(start + 100, count))]
        await many.online.route([Delivery(one, 0, 1) for one in batch])
    assert (await many.online.totals(BOB)).messages == count
    assert (memory(redis_client, prefix=prefix) - before) / count <= 2.2 * KIB


@pytest.mark.parametrize(("count", "keyed"), [(100, False), (120, True), (1000, False), (20_000, False)])
async def test_memory_of_tombstones(many: Stage, redis_client: Any, count: int, keyed: bool) -> None:
    """An id that is remembered costs at most 120 bytes."""
    await many.connect()
    prefix = many.factory.config.online.key_prefix
    before = memory(redis_client, prefix=prefix)
    for start in range(0, count, 250):
        batch = [message(many, number, keyed=keyed) for number in range(start, min(start + 250, count))]
        await many.online.route([Delivery(one, 0, 1) for one in batch])
        await many.queue.acknowledge(BOB, [one.id for one in batch])
    claims = memory(redis_client, prefix=f"{prefix}:id")
    assert (memory(redis_client, prefix=prefix) - claims - before) / count <= 120
    assert await many.go(uuid(0)) is Outcome.DUPLICATE


async def test_the_lead_is_a_key_that_expires(many: Stage, redis_client: Any) -> None:
    key = many.online.state.keys.leader  # type: ignore[attr-defined]  # what a Redis store has
    assert await many.online.lead("first")
    assert 0 < redis_client.pttl(key) <= LEAD_SECONDS * 1000
    assert not await many.online.lead("second")
    redis_client.delete(key)
    assert await many.online.lead("second")


async def test_payloads_leave_memory(many: Stage, redis_client: Any) -> None:
    """When they are acknowledged, moved, or expired."""
    phone = await many.connect()
    bodies = many.online.state.keys.of(BOB)[4]  # type: ignore[attr-defined]
    await many.online.route([Delivery(message(many, number), 0, 1) for number in range(30)])
    await many.go("typing", ephemeral=True)
    assert redis_client.hlen(bodies) == 31
    await many.queue.acknowledge(BOB, [uuid(number) for number in range(10)])
    many.clock.advance(10)
    await many.online.purge(100, many.clock.now())
    assert redis_client.hlen(bodies) == 20
    await many.online.disconnect([phone])
    await many.migrator.migrate(BOB)
    assert not redis_client.exists(bodies)
    assert (await many.online.totals(BOB)).bytes == 0


async def test_nothing_is_left_of_a_thousand_users_who_came_and_went(many: Stage, redis_client: Any) -> None:
    """Connected, served from hot and cold, gone in every way there is; then time passes and sweepers sweep."""
    prefix = many.factory.config.online.key_prefix

    def keys() -> int:
        return sum(1 for _ in redis_client.scan_iter(f"{prefix}:*", count=1000))

    async def visit(numbers: Sequence[int]) -> None:
        """Some never connect and have mail in cold only; some leave mail behind that moves; the others fetch it all."""
        online = many.online
        there = [Connection(user(n), f"c{n}", "node", many.clock.now()) for n in numbers if n % 100 != 3]
        await asyncio.gather(*(online.connect(connection, 20) for connection in there))
        await online.route([Delivery(message(many, n, user(n)), 0, 1) for n in numbers])
        await asyncio.gather(*(online.ack(user(n), [uuid(n)]) for n in numbers if n % 100 not in (2, 3)))
        await online.disconnect(there[::2])  # of the others the leases run out

    for start in range(0, 1_000, 500):
        await visit(range(start, start + 500))
    assert keys() > 2_000
    many.clock.advance(61)
    while await many.online.hot_users("", 1):
        await many.sweeper.sweep()
    assert (await many.online.totals(None)).messages == 0
    for _ in range(3):
        many.clock.advance(32 * 86_400)
        await many.sweeper.sweep()
    assert list(redis_client.scan_iter(f"{prefix}:*", count=1000)) == []


async def test_pages_are_bounded(many: Stage) -> None:
    """By messages and by bytes, but never empty; a batch that moves too."""
    await many.connect()
    await many.online.route([Delivery(message(many, number), 0, 1) for number in range(40)])
    for limit, size, found in ((10, 1 << 30, 10), (50, 5 * KIB, 5), (50, 1, 1), (40, 1 << 30, 40), (50, 40 * KIB, 40)):
        page = await many.online.read(BOB, limit, size)
        assert ([queued.message.id for queued in page.messages], bool(page.more)) == (
            [uuid(number) for number in range(found)],
            found < 40,
        )
    move = await many.online.begin_move(BOB, "mover", 50, 3 * KIB, online_too=True)
    assert isinstance(move, Move)
    assert (len(move.messages), move.more) == (3, True)


async def test_a_page_costs_the_same_at_any_depth(
    own_stores: RedisStores, own_redis: Server, clock: ManualClock
) -> None:
    """RACES 27, 34: a page read and acknowledged, a batch moved; counted in the commands that the scripts run."""
    redis = client(own_redis)

    async def cost(stage: Stage) -> dict[str, int]:
        redis.config_resetstat()
        page = await stage.online.read(BOB, 20, 1 << 30)
        assert (len(page.messages), bool(page.more)) == (20, True)
        await stage.online.ack(BOB, [one.message.id for one in page.messages])
        move = await stage.online.begin_move(BOB, "me", 20, 1 << 30, online_too=True)
        assert isinstance(move, Move)
        await stage.online.end_move(BOB, "me", move.messages)
        return {name: stat["calls"] for name, stat in redis.info("commandstats").items()}

    async with staged(own_stores, clock, cap=100_000) as stage:
        await stage.connect()
        costs = []
        for first, last in ((0, 100), (1000, 6000)):
            for start in range(first, last, 100):
                batch = [message(stage, number) for number in range(start, start + 100)]
                await stage.online.route([Delivery(one, 0, 1) for one in batch])
            await cost(stage)  # the server learns the scripts, the user's records get the shape that they keep
            costs.append(await cost(stage))
    assert costs[0]["cmdstat_zrem"] > 0, "commands in scripts are counted"
    assert costs[1] == costs[0]
    # Each of these costs what the whole key holds; all others cost what they are asked for.
    assert (
        not {f"cmdstat_{name}" for name in ("hkeys", "hvals", "zcount", "smembers", "lrange", "keys")} & costs[0].keys()
    )
    assert costs[0].get("cmdstat_hgetall", 0) <= 1, "of the cold writes under way, and of nothing else"


async def test_connections_that_ended_are_no_burden(many: Stage, redis_client: Any) -> None:
    """A user who is always online by one device, and whose other devices come and go without a word."""
    phone = await many.connect()
    for number in range(30):
        many.clock.advance(30)
        await many.online.renew([phone])
        await many.connect(name=f"visitor {number}")
    key = many.online.state.keys.of(BOB)[1]  # type: ignore[attr-defined]
    assert redis_client.hlen(key) <= 4


async def test_a_copy_that_is_owed_is_looked_for_by_itself(many: Stage) -> None:
    """RACES 24: the API dies between the two tiers; the user was never online, so nobody else looks."""
    await many.go("m1")
    while await many.online.hot_users("", 10):
        pass
    await many.online.purge(100, many.clock.now())
    await many.online.ack(BOB, ["m1"])
    many.clock.advance(61)
    assert await many.online.orphans(10) == [(BOB, "m1")]
    await many.sweeper.sweep()
    assert await many.in_cold() == []
