"""Servers that die, freeze, forget, refuse and answer late."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from router.backends.redis.address import parse
from router.backends.redis.backend import RedisBackend
from router.backends.redis.client import CLOSE_SECONDS, Client
from router.backends.redis.scripts import Command, Scripts
from router.errors import Refused, StorageFull, Unavailable
from router.messages import Delivery, Move, Outcome, Queued
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Stage, staged
from tests.redis.conftest import TIMEOUT_SECONDS
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.redis_servers import Cluster, Watched, client
from tests.support.servers import Server
from tests.support.stores_redis import RedisStores

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_redis_releases")]
TURN_SECONDS = 60.0


async def test_a_dead_server_is_unavailable_at_once_and_comes_back_with_its_data(
    fragile: Stage, own_redis: Server
) -> None:
    """RACES 2, 17: SIGKILL; the append-only file has all that was answered, hot mail and presence included."""
    await fragile.connect()
    assert await fragile.go("m1") is Outcome.HOT
    own_redis.stop(signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await fragile.go("m2")
    with pytest.raises(Unavailable):
        await fragile.ids()
    assert time.monotonic() - started < 2 * TIMEOUT_SECONDS
    own_redis.start()
    assert await fragile.go("m2") is Outcome.HOT
    assert await fragile.go("m1") is Outcome.DUPLICATE
    assert await fragile.ids() == ["m1", "m2"]


async def test_a_store_that_lost_everything_is_read_behind(fragile: Stage, own_redis: Server) -> None:
    """RACES 9, 17: sequences keep rising, presence registers again, and cold is read, whatever was known of it."""
    phone = await fragile.connect()
    assert await fragile.ids() == []
    assert await fragile.ids() == [], "from here on cold is known to be empty"
    await fragile.online.disconnect([phone])
    assert await fragile.go("cold") is Outcome.COLD
    (before,) = await fragile.route(fragile.message("m0"))
    client(own_redis).flushall()
    fragile.clock.advance(0.001)
    assert await fragile.online.renew([phone]) == [phone], "who was forgotten registers again"
    assert await fragile.online.connect(phone, 20), "mail may be waiting"
    (after,) = await fragile.route(fragile.message("m1"))
    assert (after.outcome, after.sequence > before.sequence) == (Outcome.HOT, True)
    assert await fragile.ids() == ["cold", "m1"]
    await fragile.queue.acknowledge(BOB, ["cold", "m1"])
    assert (await fragile.ids(), await fragile.in_cold()) == ([], [])


async def test_what_was_known_of_cold_does_not_outlive_the_server_that_knew_it(
    fragile: Stage, own_redis: Server
) -> None:
    """A server that is started again, or a replica that was promoted, can have lost its last second: here the
    arrival of a message in cold. It must not hide that message."""
    await fragile.connect()
    assert await fragile.ids() == []
    page = await fragile.online.read(BOB, 50, PAGE_BYTES)
    assert page.cold_empty
    lost = fragile.message("lost")
    await fragile.cold.put([Queued(lost, fragile.clock.now(), fragile.clock.now())])
    assert await fragile.ids() == [], "the same run of the server knows better"
    own_redis.stop(signal.SIGKILL)
    own_redis.start()
    assert await fragile.ids() == ["lost"]


async def test_a_note_about_cold_from_before_a_loss_is_not_believed(fragile: Stage, own_redis: Server) -> None:
    """Though the same things happened before and after it."""
    await fragile.go("before")
    await fragile.connect()
    await fragile.queue.acknowledge(BOB, ["before"])
    stale = (await fragile.online.read(BOB, 50, PAGE_BYTES)).cold_version
    client(own_redis).flushall()
    fragile.clock.advance(1)
    await fragile.go("after")
    await fragile.connect()
    await fragile.online.note_cold_empty(BOB, stale)
    assert await fragile.ids() == ["after"]


async def test_a_frozen_server_is_given_up_and_may_answer_late(fragile: Stage, own_redis: Server) -> None:
    """RACES 11: the call ends in time; what the server does once it goes on is done once."""
    await fragile.connect()
    message = fragile.message("m1")
    own_redis.freeze()
    started = time.monotonic()
    with pytest.raises(Unavailable, match="in time"):
        await fragile.route(message)
    assert time.monotonic() - started < 4 * TIMEOUT_SECONDS
    own_redis.thaw()
    (again,) = await fragile.route(message, attempt=2)
    assert again.outcome in (Outcome.HOT, Outcome.DUPLICATE)
    assert await fragile.ids() == ["m1"]
    assert (await fragile.online.totals(BOB)).messages == 1


async def test_only_what_the_server_did_not_know_is_sent_again(fragile: Stage, own_redis: Server) -> None:
    """It knows the script of a user and not that of an index: what has run would call its own work a duplicate."""
    await fragile.connect()
    scripts: Scripts = fragile.online.state.scripts  # type: ignore[attr-defined]  # to name one of them
    listing = str(scripts.call("list", ("key",))[1])
    redis = client(own_redis)
    for forgotten in ([], [listing], list(scripts._texts)):
        redis.script_flush()
        for digest, text in scripts._texts.items():
            if digest not in forgotten:
                redis.script_load(text)
        assert await fragile.go(f"m{len(forgotten)}") is Outcome.HOT
        assert redis.script_exists(listing) == [True]
    assert [user.user for user in await fragile.online.hot_users("", 10)] == [BOB]


async def test_a_page_is_never_read_before_its_acknowledgement(fragile: Stage, own_redis: Server) -> None:
    """RACES 52: the server knows the script that reads, and has forgotten the one that acknowledges."""
    await fragile.connect()
    scripts: Scripts = fragile.online.state.scripts  # type: ignore[attr-defined]  # to name one of them
    acknowledging = str(scripts.call("ack", ("key",))[1])
    redis = client(own_redis)
    for id_ in ("m1", "m2"):
        assert await fragile.go(id_) is Outcome.HOT
    redis.script_flush()
    for digest, text in scripts._texts.items():
        if digest != acknowledging:
            redis.script_load(text)
    page = await fragile.queue.next(BOB, ["m1"], 50)
    assert [queued.message.id for queued in page] == ["m2"]
    assert redis.script_exists(acknowledging) == [True]


async def test_a_page_whose_acknowledgement_is_refused_is_not_returned(
    fragile: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 52: both go out together, and only the first is refused."""
    await fragile.connect()
    assert await fragile.go("m1") is Outcome.HOT
    assert await fragile.ids() == ["m1"]
    redis: Client = fragile.online.state.client  # type: ignore[attr-defined]  # between it and the server
    send, refused = redis._send, list[list[Any]]()

    async def refuse(batch: Sequence[Command]) -> list[Any]:
        refused.append([ResponseError("MISCONF simulated"), *(await send(batch[1:]))])
        return refused[-1]

    with monkeypatch.context() as patch:
        patch.setattr(redis, "_send", refuse)
        with pytest.raises(Unavailable):
            await fragile.queue.next(BOB, ["m1"], 50)
    assert len(refused) == 1
    assert refused[0][1:], "a page was there"
    assert await fragile.ids() == ["m1"]


async def test_every_script_may_run_twice(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 2, 11: a client library may repeat a call whose answer was lost."""
    running = stage.online.state.client._send  # type: ignore[attr-defined]  # the one place where commands leave

    async def twice(batch: list[tuple[object, ...]]) -> object:
        await running(batch)
        return await running(batch)

    monkeypatch.setattr(stage.online.state.client, "_send", twice)  # type: ignore[attr-defined]
    phone = await stage.connect()
    message, express = stage.message("m1"), stage.message("m2")
    await stage.route(message, express)
    await stage.online.ack(BOB, ["m1"])
    assert (await stage.online.totals(BOB)).messages == 1
    await stage.online.disconnect([phone])
    assert await stage.online.connections(BOB) == []
    (cold,) = await stage.route(stage.message("m3"))
    queued = Queued(stage.message("m3"), cold.sequence, cold.queued_at)
    await stage.cold.put([queued])
    assert (await stage.online.settle([queued])).acked == []
    move = await stage.online.begin_move(BOB, "mover", 10, PAGE_BYTES, online_too=False)
    assert isinstance(move, Move)
    await stage.cold.put(move.messages)
    assert await stage.online.end_move(BOB, "mover", move.messages) == []
    assert await stage.ids() == ["m2", "m3"]
    await stage.queue.acknowledge(BOB, ["m2", "m3"])
    assert (await stage.ids(), await stage.in_cold()) == ([], [])
    stage.clock.advance(3601)
    for _ in range(4):
        await stage.sweeper.sweep()
    assert await stage.online.totals(None) == await stage.online.totals(BOB)


async def test_a_server_that_forgot_the_scripts_is_taught_them(fragile: Stage, own_redis: Server) -> None:
    await fragile.connect()
    client(own_redis).script_flush()
    assert await fragile.go("m1") is Outcome.HOT
    client(own_redis).script_flush()
    assert await fragile.ids() == ["m1"]


async def test_a_full_server_refuses_mail_and_lets_it_be_acknowledged(fragile: Stage, own_redis: Server) -> None:
    await fragile.connect()
    await fragile.go("m1")
    client(own_redis).config_set("maxmemory", 1)
    with pytest.raises(StorageFull, match="refuses writes"):
        await fragile.route(fragile.message("m2"))
    assert await fragile.ids() == ["m1"]
    await fragile.queue.acknowledge(BOB, ["m1"])
    client(own_redis).config_set("maxmemory", 0)
    assert await fragile.ids() == []
    assert await fragile.go("m2") is Outcome.HOT


async def test_a_key_that_somebody_else_wrote_stops_one_user_only(stage: Stage) -> None:
    """RACES 8: it is no outage: the pipeline narrows it down, and pipeline and sweepers go on with the others."""
    await stage.connect(EVE)
    await stage.go("m0", EVE)
    meta = stage.online.state.keys.of(EVE)[0]  # type: ignore[attr-defined]
    await stage.online.state.client.run([("SET", meta, "not a hash")])  # type: ignore[attr-defined]
    with pytest.raises(Refused, match="WRONGTYPE"):
        await stage.online.route([Delivery(stage.message("m1", EVE), 0, 1)])
    assert await stage.go("m2") is Outcome.COLD
    await stage.connect()
    await stage.go("m3")
    assert [user.user for user in await stage.online.hot_users("", 10)] == [BOB]
    assert (await stage.online.totals(None)).messages == 1
    stage.clock.advance(61)
    with pytest.raises(Refused):
        await stage.sweeper.sweep()
    assert await stage.in_cold() == ["m2", "m3"], "the sweep did the rest all the same"
    stage.clock.advance(40 * 86_400)
    assert await stage.online.purge(100, stage.clock.now()) == 0


@pytest.mark.parametrize("mode", ["single", "cluster"])
async def test_a_call_that_was_given_up_leaves_no_answer_to_the_next(
    mode: Literal["single", "cluster"], tmp_path: Path, redis: Server, redis_cluster: Cluster, clock: ManualClock
) -> None:
    """RACES 11, 35: a cancelled call has sent its commands; nobody else may read their replies."""
    url = f"redis://{redis.address}" if mode == "single" else redis_cluster.url
    async with staged(RedisStores(tmp_path, url, mode=mode), clock) as stage:
        for user in (BOB, EVE):
            await stage.connect(user)
            await stage.go(f"m-{user}", user)
        for turns in range(40):
            given_up = asyncio.create_task(stage.ids(EVE))
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            assert await asyncio.gather(*(stage.ids() for _ in range(3))) == [[f"m-{BOB}"]] * 3


@pytest.mark.parametrize("mode", ["single", "cluster"])
async def test_a_cancelled_call_waits_for_no_time_out(
    mode: Literal["single", "cluster"], tmp_path: Path, clock: ManualClock, request: pytest.FixtureRequest
) -> None:
    """RACES 11, 35: the server is frozen, and whoever gives a call up goes on at once."""
    if mode == "single":
        server: Server = request.getfixturevalue("own_redis")
        servers, url = [server], f"redis://{server.address}"
    else:
        made: Cluster = request.getfixturevalue("redis_cluster")
        servers, url = made.nodes, made.url
    async with staged(RedisStores(tmp_path / "data", url, mode=mode, timeout_seconds=600), clock) as stage:
        await stage.connect()
        for one in servers:
            one.freeze()
        try:
            waiting = asyncio.create_task(stage.ids())
            assert not (await asyncio.wait([waiting], timeout=0.1))[0]
            waiting.cancel()
            await asyncio.wait([waiting], timeout=TURN_SECONDS)
            assert waiting.cancelled()
        finally:
            for one in servers:
                one.thaw()


@pytest.mark.parametrize("mode", ["single", "sentinel"])
async def test_closing_ends_though_the_server_is_frozen(
    mode: Literal["single", "sentinel"], tmp_path: Path, clock: ManualClock, request: pytest.FixtureRequest
) -> None:
    """RACES 36: a bounded end, with a call and a subscription under way."""
    if mode == "single":
        server: Server = request.getfixturevalue("own_redis")
        url = f"redis://{server.address}"
    else:
        watched: Watched = request.getfixturevalue("redis_sentinel")
        server, url = watched.master, watched.url
    stores = RedisStores(tmp_path / "data", url, mode=mode, timeout_seconds=TIMEOUT_SECONDS)
    async with staged(stores, clock) as stage:
        await stage.connect()
        bus = await stage.factory.poke_bus()

        async def listen() -> None:
            async for _ in bus.listen(stage.factory.node):
                pass

        listening = asyncio.create_task(listen())
        async with asyncio.timeout(TURN_SECONDS):
            while not client(server).pubsub_channels(f"{stores.prefix}:*"):  # noqa: ASYNC110 - a server sets no event
                await asyncio.sleep(0.001)
        server.freeze()
        fetching = asyncio.create_task(stage.ids())
        await asyncio.sleep(0)
        async with asyncio.timeout(4 * TIMEOUT_SECONDS + CLOSE_SECONDS):
            for task in (listening, fetching):
                task.cancel()
            await asyncio.wait([listening, fetching])
            await (await opened(stage.factory, RedisBackend)).__aexit__(None, None, None)
        server.thaw()


async def test_calls_wait_for_a_connection_instead_of_opening_more(fragile: Stage, own_redis: Server) -> None:
    pool = fragile.factory.config.online.pool_size
    await fragile.connect()
    await asyncio.gather(*(fragile.online.connections(BOB) for _ in range(20 * pool)))
    assert client(own_redis).info("clients")["connected_clients"] <= pool + 2


async def test_a_backlog_of_calls_on_a_frozen_server_ends_in_time(fragile: Stage, own_redis: Server) -> None:
    """RACES 11: also those that wait for a connection."""
    await fragile.connect()
    own_redis.freeze()
    started = time.monotonic()
    calls = [fragile.online.connections(BOB) for _ in range(200)]
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - started < 4 * TIMEOUT_SECONDS
    assert all(isinstance(error, Unavailable) for error in failed)
    own_redis.thaw()
    assert len(await fragile.online.connections(BOB)) == 1


async def test_what_cannot_be_closed_keeps_nothing_else_open(
    own_redis: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections to a master break while they are closed: those to the sentinels are closed all the same."""
    tried = asyncio.Event()

    async def breaks(_: SentinelConnectionPool) -> None:
        tried.set()
        raise RedisConnectionError("it broke")

    monkeypatch.setattr(SentinelConnectionPool, "disconnect", breaks)
    address = parse(f"redis://{own_redis.address}", "sentinel")
    async with Client(
        address, "sentinel", Scripts(), service="any", pool_size=1, timeout_seconds=TIMEOUT_SECONDS
    ) as asking:
        assert await asking.on_sentinels("PING") == [True]
    assert tried.is_set()
    looking = client(own_redis)
    async with asyncio.timeout(TURN_SECONDS):
        while looking.info("clients")["connected_clients"] > 1:  # noqa: ASYNC110 - a server sets no event
            await asyncio.sleep(0.001)
