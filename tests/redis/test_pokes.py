"""Pokes reach the nodes that hold the user, these only, and go on after the subscription broke."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.backends.redis.pokes import RedisPokeBus
from router.messages import Connection, Outcome
from router.retry import backoff
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.redis.conftest import commands
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually
from tests.support.redis_servers import Cluster, client
from tests.support.servers import Server
from tests.support.stores_redis import RedisStores

pytestmark = pytest.mark.anyio
TURN_SECONDS = 60.0
NODES = [f"node-{number}" for number in range(10)]


class Ear:
    """What each node hears."""

    def __init__(self) -> None:
        self.heard: dict[str, list[str]] = {node: [] for node in NODES}

    async def listen(self, stage: Stage, node: str) -> None:
        async for users in (await stage.factory.poke_bus()).listen(node):
            self.heard[node] += users

    def hears(self, *nodes: str, user: str = BOB) -> bool:
        return all(user in self.heard[node] for node in nodes)


@asynccontextmanager
async def listening(stage: Stage, subscribed: Callable[[], Awaitable[bool]]) -> AsyncIterator[Ear]:
    ear = Ear()
    tasks = [asyncio.create_task(ear.listen(stage, node)) for node in NODES]
    try:
        async with asyncio.timeout(TURN_SECONDS):
            await eventually(stage, subscribed)
            yield ear
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def subscriptions(stage: Stage, *servers: Server) -> Callable[[], Awaitable[bool]]:
    """Whether all nodes have subscribed, at one of ``servers``."""
    pattern = f"{stage.factory.config.online.key_prefix}:*"

    def count() -> int:
        return sum(len(client(server).pubsub_channels(pattern)) for server in servers)

    async def all_there() -> bool:
        return await asyncio.to_thread(count) == len(NODES)

    return all_there


async def check(stage: Stage, ear: Ear) -> None:
    for node in (NODES[2], NODES[7], NODES[7]):
        await stage.online.connect(Connection(BOB, f"{node}-{len(ear.heard[node])}", node, 0), 20)
    await stage.online.connect(Connection(EVE, "eve", NODES[4], 0), 20)
    assert await stage.go("m1") is Outcome.HOT

    async def bob_heard() -> bool:
        return ear.hears(NODES[2], NODES[7])

    await eventually(stage, bob_heard)
    assert await stage.go("m2", EVE) is Outcome.HOT

    async def eve_heard() -> bool:
        return ear.hears(NODES[4], user=EVE)

    await eventually(stage, eve_heard)
    heard = {node: users for node, users in ear.heard.items() if users}
    assert heard == {NODES[2]: [BOB], NODES[7]: [BOB], NODES[4]: [EVE]}


async def test_exactly_the_nodes_that_hold_the_user_hear_of_it(stage: Stage, redis: Server) -> None:
    async with listening(stage, subscriptions(stage, redis)) as ear:
        await check(stage, ear)


async def test_exactly_these_in_a_cluster(tmp_path: Path, redis_cluster: Cluster, clock: ManualClock) -> None:
    """Whichever servers the nodes have subscribed at."""
    stores = RedisStores(tmp_path, redis_cluster.url, mode="cluster")
    async with (
        staged(stores, clock) as stage,
        listening(stage, subscriptions(stage, *redis_cluster.nodes)) as ear,
    ):
        await check(stage, ear)


async def test_a_poke_costs_no_round_trip_of_its_own(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.connect()
    await stage.route(stage.message("m0"))
    sent = commands(stage, monkeypatch)
    await stage.ids()
    del sent[:]
    await stage.route(stage.message("m1"))
    assert len(sent) == 1


async def test_pokes_are_coalesced_until_somebody_fetches(fragile: Stage, own_redis: Server) -> None:
    def published() -> int:
        calls: int = client(own_redis).info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
        return calls

    await fragile.online.connect(Connection(BOB, "phone", NODES[0], 0), 20)
    for number in range(5):
        await fragile.go(f"m{number}")
    assert published() == 1
    await fragile.ids()
    for number in range(5, 10):
        await fragile.go(f"m{number}")
    assert published() == 2


async def test_a_subscription_is_taken_up_again(fragile: Stage, own_redis: Server) -> None:
    """RACES 18: the server goes, and comes back with nothing."""
    async with listening(fragile, subscriptions(fragile, own_redis)) as ear:
        own_redis.stop()
        own_redis.start()
        await eventually(fragile, subscriptions(fragile, own_redis))
        await fragile.online.connect(Connection(BOB, "phone", NODES[3], 0), 20)
        await fragile.go("m1")

        async def heard() -> bool:
            return ear.hears(NODES[3])

        await eventually(fragile, heard)


async def test_nobody_is_subscribed_for_a_listener_that_waits(
    fragile: Stage, own_redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What broke is not taken up behind the listener's back, on a connection that it is about to close: such a
    subscription swallows pokes, and looks like one that is heard."""
    waits = 0

    def counted(failures: int, chance: random.Random) -> float:
        nonlocal waits
        waits += 1
        return backoff(failures, chance)

    monkeypatch.setattr("router.backends.redis.pokes.backoff", counted)
    async with listening(fragile, subscriptions(fragile, own_redis)):
        own_redis.stop()
        own_redis.start()
        while waits < len(NODES):  # noqa: ASYNC110 - the time of others must not pass
            await asyncio.sleep(0.005)
        assert "cmdstat_subscribe" not in client(own_redis).info("commandstats")
        await eventually(fragile, subscriptions(fragile, own_redis))


async def test_a_subscription_that_died_silently_is_found_out(
    fragile: Stage, own_redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 16, between router and Redis: the server keeps the connection and says nothing."""
    monkeypatch.setattr("router.backends.redis.pokes.IDLE_SECONDS", 0.2)
    monkeypatch.setattr("router.backends.redis.pokes.ANSWER_SECONDS", 1.0)
    bus = await fragile.factory.poke_bus()
    assert isinstance(bus, RedisPokeBus)
    opened = 0
    listener = bus._client.listener

    def counted() -> object:
        nonlocal opened
        opened += 1
        return listener()

    monkeypatch.setattr(bus._client, "listener", counted)
    async with listening(fragile, subscriptions(fragile, own_redis)):
        before = opened
        own_redis.freeze()

        async def tried_again() -> bool:
            return opened > before

        await eventually(fragile, tried_again)
        own_redis.thaw()
        await eventually(fragile, subscriptions(fragile, own_redis))


async def test_an_idle_subscription_stays(fragile: Stage, own_redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked whether it lives, and answers, though a busy machine takes its time."""
    monkeypatch.setattr("router.backends.redis.pokes.IDLE_SECONDS", 0.05)
    async with listening(fragile, subscriptions(fragile, own_redis)) as ear:
        own_redis.freeze()
        await asyncio.sleep(0.3)  # so long it is busy
        own_redis.thaw()
        pings = client(own_redis).info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"]

        async def asked() -> bool:
            found = await asyncio.to_thread(client(own_redis).info, "commandstats")
            return bool(found.get("cmdstat_ping", {"calls": 0})["calls"] > pings + 3 * len(NODES))

        await eventually(fragile, asked)
        await fragile.online.connect(Connection(BOB, "phone", NODES[1], 0), 20)
        await fragile.go("m1")

        async def heard() -> bool:
            return ear.hears(NODES[1])

        await eventually(fragile, heard)
        assert client(own_redis).info("commandstats")["cmdstat_subscribe"]["calls"] == len(NODES), "nobody did so again"


async def test_a_listener_that_is_cancelled_while_it_asks_ends(
    stage: Stage, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 36: the library's time-out for what it writes, ``wait_for``, forgets such a cancellation (Python 3.11)."""
    monkeypatch.setattr("router.backends.redis.pokes.IDLE_SECONDS", 0.05)
    listening = asyncio.create_task(Ear().listen(stage, NODES[0]))
    write, drain, asked = asyncio.StreamWriter.writelines, asyncio.StreamWriter.drain, list[asyncio.StreamWriter]()

    def noted(writer: asyncio.StreamWriter, data: Iterable[bytes]) -> None:
        if b"PING" in b"".join(data):
            asked.append(writer)
        write(writer, data)

    async def cancelled(writer: asyncio.StreamWriter) -> None:
        await drain(writer)
        if writer in asked:
            listening.cancel()

    monkeypatch.setattr(asyncio.StreamWriter, "writelines", noted)
    monkeypatch.setattr(asyncio.StreamWriter, "drain", cancelled)
    _, pending = await asyncio.wait([listening], timeout=TURN_SECONDS)
    listening.cancel()
    assert not pending


async def test_what_is_no_poke_makes_nobody_deaf(stage: Stage, redis: Server) -> None:
    """Others may write to the server: it is dropped and counted, and the same subscription goes on."""
    async with listening(stage, subscriptions(stage, redis)) as ear:
        channel = f"{stage.factory.config.online.key_prefix}:node:{NODES[3]}"

        async def heard() -> bool:
            return ear.hears(NODES[3])

        with capture_logs() as logged:
            client(redis).publish(channel, b"payload\xff")
            client(redis).publish(channel, BOB)
            await eventually(stage, heard)
    assert stage.count("router_pokes_total", kind="unreadable") == 1
    assert logged == [
        {"event": "dropped a message on the poke channel that is not a poke", "size": 8, "log_level": "warning"}
    ]


async def test_a_user_who_came_while_their_mail_went_to_cold_is_poked(fragile: Stage, own_redis: Server) -> None:
    """RACES 6: their first fetch can have been too early to see it."""
    message = fragile.message("m1")
    (routed,) = await fragile.route(message)
    await fragile.connect()
    assert await fragile.ids() == []
    assert "cmdstat_publish" not in client(own_redis).info("commandstats")
    await fragile.store(message, routed)
    assert client(own_redis).info("commandstats")["cmdstat_publish"]["calls"] == 1


async def test_inspecting_is_no_fetch(fragile: Stage, own_redis: Server) -> None:
    await fragile.connect()
    await fragile.go("m1")
    assert await fragile.hot() == ["m1"]
    await fragile.go("m2")
    assert client(own_redis).info("commandstats")["cmdstat_publish"]["calls"] == 1
