"""RACES 43, 44: a failover after which the old master keeps its connections, as a replica or in the belief that it is
the master; behind one name or under a sentinel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from redis.cluster import key_slot  # type: ignore[attr-defined]  # the same function as the servers'
from structlog.testing import capture_logs

from router.backends.redis import masters
from router.backends.redis.client import Client
from router.errors import Unavailable
from router.messages import Outcome
from tests.contract.stage import BOB, Socket, Stage, staged
from tests.support import pipelines
from tests.support.balancer import balancing
from tests.support.clock import ManualClock
from tests.support.redis_servers import (
    SERVICE,
    SLOTS,
    SYNC_AT_ONCE,
    client,
    cluster,
    cluster_node,
    documented_user,
    sentinel,
    until,
    watched,
)
from tests.support.servers import Server, free_port, redis_server, running
from tests.support.stores_redis import PREFIX, RedisStores

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_redis_releases")]
TURN_SECONDS = 60.0
Mode = Literal["single", "sentinel"]


class Pair:
    """A master and its replica, and whatever leads to the master; a failover cuts no connection."""

    def __init__(self, old: Server, new: Server, stores: RedisStores, lead: Callable[[Server], None]) -> None:
        """``lead``: the name, or the sentinel, leads to another server from then on."""
        self.old = old
        self.new = new
        self.stores = stores
        self.lead = lead

    def fail_over(self) -> None:
        """The replica is the master, and the old master its replica."""
        self.promote()
        client(self.old).execute_command("REPLICAOF", "127.0.0.1", self.new.port)

    def promote(self) -> None:
        client(self.new).execute_command("REPLICAOF", "NO", "ONE")
        self.lead(self.new)

    def cut(self, server: Server) -> None:
        """Break the router's connections to ``server``."""
        client(server).execute_command("CLIENT", "KILL", "USER", "router")

    def scripts(self, server: Server) -> int:
        """How many scripts ``server`` has run."""
        found = client(server).info("commandstats")
        return sum(found.get(name, {}).get("calls", 0) for name in ("cmdstat_evalsha", "cmdstat_eval"))

    def connections(self, server: Server) -> int:
        """How many connections of the router there are."""
        return sum(found["user"] == "router" for found in client(server).client_list())

    def subscribed(self, server: Server, node: str) -> bool:
        ((_, count),) = client(server).pubsub_numsub(f"{self.stores.prefix}:node:{node}")
        return bool(count)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A master and its replica."""
    with ExitStack() as stack:
        old = stack.enter_context(running(redis_server(tmp_path / "old", *SYNC_AT_ONCE)))
        follow = ("--replicaof", "127.0.0.1", str(old.port))
        new = stack.enter_context(running(redis_server(tmp_path / "new", *follow)))
        until(lambda: client(old).info("replication").get("slave0", {}).get("state") == "online")
        yield old, new


@asynccontextmanager
async def paired(
    mode: Mode, servers: tuple[Server, Server], folder: Path, timeout_seconds: float = 10
) -> AsyncIterator[Pair]:
    def pair(port: int, lead: Callable[[Server], None]) -> Pair:
        url = documented_user(f"redis://127.0.0.1:{port}", servers, PREFIX)
        return Pair(*servers, RedisStores(folder / "data", url, mode=mode, timeout_seconds=timeout_seconds), lead)

    if mode == "single":
        async with balancing([servers[0].port]) as front:
            yield pair(front.port, lambda server: front.lead_to([server.port]))
        return
    patient = f"sentinel down-after-milliseconds {SERVICE} 60000"
    with running(sentinel(folder / "sentinel", servers[0], 1, patient)) as watcher:
        yield pair(watcher.port, lambda server: name_anew(watcher, server))


def name_anew(watcher: Server, master: Server) -> None:
    """A sentinel that fails over closes the old master's connections; here it only learns of it."""
    asking = client(watcher)
    asking.execute_command("SENTINEL", "REMOVE", SERVICE)
    asking.execute_command("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", master.port, 1)


async def use_all_connections(stage: Stage, server: Server) -> None:
    """Each call waits for its answer when the next one is made: it takes another connection."""
    server.freeze()
    waiting = []
    for _ in range(stage.factory.config.online.pool_size):
        waiting.append(asyncio.create_task(stage.online.connections(BOB)))
        for _ in range(5):
            await asyncio.sleep(0)
    server.thaw()
    await asyncio.gather(*waiting)


async def eventually(condition: Callable[[], bool], stage: Stage) -> None:
    async with asyncio.timeout(TURN_SECONDS):
        await pipelines.eventually(stage, partial(asyncio.to_thread, condition))


async def available(stage: Stage) -> None:
    """Return when the sentinels name a master that is up."""
    async with asyncio.timeout(TURN_SECONDS):
        while True:
            try:
                return await stage.online.probe()
            except Unavailable:
                await asyncio.sleep(0.05)


def replicated(server: Server) -> None:
    """Return when the replica of ``server`` has all that was written; ``WAIT`` tells of its own connection only."""

    def has_all() -> bool:
        state = client(server).info("replication")
        return bool(state.get("slave0", {}).get("offset") == state["master_repl_offset"])

    until(has_all)


@pytest.mark.parametrize("mode", ["single", "sentinel"])
async def test_the_next_call_reaches_the_new_master(
    mode: Mode, servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock
) -> None:
    """No call fails, no mail is lost, and pokes arrive, though the demoted master keeps all connections."""
    async with paired(mode, servers, tmp_path) as pair, staged(pair.stores, clock) as stage:
        socket, listening = Socket(), asyncio.create_task(stage.manager.run())
        try:
            await stage.manager.connect(BOB, socket, None)
            await stage.go("m1")
            await eventually(lambda: pair.subscribed(pair.old, stage.factory.node), stage)
            await use_all_connections(stage, pair.old)
            assert pair.connections(pair.old) > 2
            await asyncio.to_thread(replicated, pair.old)
            await asyncio.to_thread(pair.fail_over)
            with capture_logs() as logged:
                assert await stage.go("m2") is Outcome.HOT
                for _ in range(2 * stage.factory.config.online.pool_size):
                    assert await stage.ids() == ["m1", "m2"]
            left = "this Redis is not a master; closing its connections"
            assert [entry["event"] for entry in logged].count(left) == 1
            await eventually(lambda: pair.subscribed(pair.new, stage.factory.node), stage)
            await eventually(lambda: not pair.connections(pair.old), stage)
            before = socket.pokes
            assert await stage.go("m3") is Outcome.HOT
            await eventually(lambda: socket.pokes > before, stage)
        finally:
            listening.cancel()
            await asyncio.wait([listening])


@pytest.mark.parametrize("mode", ["single", "sentinel"])
async def test_a_master_that_thaws_is_not_worked_with(
    mode: Mode, servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock
) -> None:
    """RACES 44: it kept all connections, and answers on them as the master that it believes it is."""
    async with paired(mode, servers, tmp_path, timeout_seconds=1) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        await stage.go("m1")
        await use_all_connections(stage, pair.old)
        await asyncio.to_thread(replicated, pair.old)
        before = pair.scripts(pair.old)
        pair.old.freeze()
        await asyncio.to_thread(pair.promote)
        with pytest.raises(Unavailable, match="in time"):
            await stage.online.probe()
        pair.old.thaw()
        assert await stage.go("m2") is Outcome.HOT
        for _ in range(2 * stage.factory.config.online.pool_size):
            assert await stage.ids() == ["m1", "m2"]
        await eventually(lambda: not pair.connections(pair.old), stage)
        assert pair.scripts(pair.old) <= before + 1, "what it was asked while it was frozen"
        assert client(pair.old).info("replication")["role"] == "master"


@pytest.mark.parametrize("mode", ["single", "sentinel"])
async def test_what_a_frozen_master_owes_is_asked_of_the_new_one(
    mode: Mode, servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock
) -> None:
    """RACES 44: as soon as any connection has met the new one, and without waiting for a time-out."""
    async with paired(mode, servers, tmp_path, timeout_seconds=60) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        await stage.go("m1")
        await asyncio.to_thread(replicated, pair.old)
        pair.old.freeze()
        waiting = asyncio.create_task(stage.go("m2"))
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.to_thread(pair.promote)
        await stage.online.probe()
        assert await waiting is Outcome.HOT
        pair.old.thaw()
        assert await stage.ids() == ["m1", "m2"]


@pytest.mark.parametrize("mode", ["single", "sentinel"])
async def test_nobody_goes_back_to_a_master_that_was_replaced(
    mode: Mode, servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 44: though its name, or a sentinel that thawed with it, leads there; until its successor is gone."""
    async with paired(mode, servers, tmp_path) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        await stage.go("m1")
        await asyncio.to_thread(replicated, pair.old)
        await asyncio.to_thread(pair.promote)
        pair.cut(pair.old)
        assert await stage.go("m2") is Outcome.HOT
        await asyncio.to_thread(pair.lead, pair.old)
        pair.cut(pair.new)
        with pytest.raises(Unavailable, match="another Redis has taken over"):
            await stage.ids()
        await asyncio.to_thread(pair.lead, pair.new)
        assert await stage.ids() == ["m1", "m2"]
        monkeypatch.setattr(masters, "SILENCE_SECONDS", 0)
        await asyncio.to_thread(pair.lead, pair.old)
        pair.cut(pair.new)
        assert await stage.ids() == ["m1"], "somebody has gone back to it"


async def test_the_sentinels_have_a_frozen_master_replaced(tmp_path: Path, clock: ManualClock) -> None:
    """RACES 44: by themselves; it thaws, and calls itself the master until they tell it."""
    with watched(tmp_path / "watched", sentinels=1) as found:
        url = documented_user(found.url, [found.master, found.replica], PREFIX)
        stores = RedisStores(tmp_path / "data", url, mode="sentinel", timeout_seconds=1)
        async with staged(stores, clock, durability="write-through") as stage:
            await stage.connect()
            await stage.go("m1")
            await use_all_connections(stage, found.master)
            await asyncio.to_thread(replicated, found.master)
            found.master.freeze()
            with pytest.raises(Unavailable):
                await stage.go("m2")
            await asyncio.to_thread(found.failed_over)
            found.master.thaw()
            await available(stage)
            assert await stage.go("m2") is Outcome.HOT
            for _ in range(2 * stage.factory.config.online.pool_size):
                assert await stage.ids() == ["m1", "m2"]


async def test_in_a_cluster_the_servers_say_where_to_go(tmp_path: Path, clock: ManualClock) -> None:
    """The demoted master keeps its connections here too, and answers ``MOVED``."""
    user = next(user for user in map("urn:sm:user:u{}".format, range(99)) if key_slot(user.encode()) < SLOTS // 4)
    with cluster(tmp_path / "cluster") as made, running(cluster_node(tmp_path / "replica", free_port())) as replica:
        old = made.nodes[0]
        made.follow(replica, old)
        stores = RedisStores(tmp_path / "data", made.url, mode="cluster", timeout_seconds=10)
        async with staged(stores, clock) as stage:
            await stage.connect(user)
            assert await stage.go("m1", user) is Outcome.HOT
            await asyncio.to_thread(replicated, old)
            until(lambda: client(replica).execute_command("CLUSTER", "FAILOVER", "TAKEOVER"))  # asks for no votes
            await asyncio.to_thread(until, lambda: client(old).info("replication")["role"] == "slave")
            assert await stage.go("m2", user) is Outcome.HOT
            assert await stage.ids(user) == ["m1", "m2"]
            client(replica).config_set("min-replicas-to-write", 2)
            with pytest.raises(Unavailable, match="NOREPLICAS"):
                await stage.go("m3", user)
            client(replica).config_set("min-replicas-to-write", 0)
            assert await stage.go("m3", user) is Outcome.HOT


async def test_in_a_cluster_a_node_that_thaws_is_not_worked_with(tmp_path: Path, clock: ManualClock) -> None:
    """RACES 44: the others tell it at once, and the library has asked them for the slots before."""
    user = next(user for user in map("urn:sm:user:u{}".format, range(99)) if key_slot(user.encode()) < SLOTS // 4)
    with cluster(tmp_path / "cluster") as made, running(cluster_node(tmp_path / "replica", free_port())) as replica:
        old = made.nodes[0]
        made.follow(replica, old)
        stores = RedisStores(tmp_path / "data", made.url, mode="cluster", timeout_seconds=1)
        async with staged(stores, clock) as stage:
            await stage.connect(user)
            await stage.go("m1", user)
            await asyncio.to_thread(replicated, old)
            old.freeze()
            await asyncio.to_thread(until, lambda: client(replica).execute_command("CLUSTER", "FAILOVER", "TAKEOVER"))
            with pytest.raises(Unavailable):
                await stage.online.acked(user, ["m1"])
            old.thaw()
            await available(stage)
            assert await stage.go("m2", user) is Outcome.HOT
            assert await stage.ids(user) == ["m1", "m2"]
            await asyncio.to_thread(until, lambda: client(old).info("replication")["role"] == "slave")
            assert await stage.ids(user) == ["m1", "m2"], "what it had taken would be gone"


async def test_a_master_that_lost_its_replicas_is_left(
    servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NOREPLICAS: it was cut off, and calls itself the master still; its writes would be thrown away."""
    monkeypatch.setattr(masters, "FRESH_SECONDS", 0)
    async with paired("single", servers, tmp_path) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        assert await stage.go("m1") is Outcome.HOT
        await asyncio.to_thread(replicated, pair.old)
        client(pair.old).config_set("min-replicas-to-write", 2)
        with capture_logs() as logged:
            for _ in range(5):
                with pytest.raises(Unavailable, match="NOREPLICAS"):
                    await stage.go("m2")
            with pytest.raises(Unavailable, match="NOREPLICAS"):
                await stage.online.probe()
        assert len(logged) == 1, "it is said once, and not by each call"
        await asyncio.to_thread(pair.promote)
        await stage.online.probe()
        assert await stage.go("m2") is Outcome.HOT
        assert await stage.ids() == ["m1", "m2"]


async def test_a_master_that_stays_the_master_is_asked_on_the_connections_that_are_there(
    servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NOREPLICAS for as long as it lasts: its name was asked a moment ago, and led here."""
    monkeypatch.setattr(masters, "FRESH_SECONDS", 3600)
    async with paired("single", servers, tmp_path) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        client(pair.old).config_set("min-replicas-to-write", 2)
        asking = client(pair.old)
        before = asking.info("stats")["total_connections_received"]
        for _ in range(20):
            with pytest.raises(Unavailable, match="NOREPLICAS"):
                await stage.go("m1")
        assert asking.info("stats")["total_connections_received"] == before


async def test_what_a_replica_would_still_answer_is_not_believed(
    servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock
) -> None:
    """It is asked for nothing; readiness writes, since a replica answers PING."""
    async with paired("single", servers, tmp_path) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        client(pair.old).execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(Unavailable, match="read only replica"):
            await stage.online.probe()
        client(pair.old).config_set("replica-serve-stale-data", "no")
        with pytest.raises(Unavailable, match="read only replica"):
            await stage.online.acked(BOB, ["m1"])
        await asyncio.to_thread(pair.promote)
        assert await stage.online.acked(BOB, ["m1"]) == set()
        await stage.online.probe()


async def test_a_full_server_is_ready(fragile: Stage, own_redis: Server) -> None:
    """Mail goes cold then, and what makes room must go on."""
    client(own_redis).config_set("maxmemory", 1)
    await fragile.online.probe()


async def test_what_has_run_is_not_sent_again(
    servers: tuple[Server, Server], tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two commands of a batch the master is demoted: what was routed before would be called a duplicate."""
    async with paired("single", servers, tmp_path) as pair, staged(pair.stores, clock) as stage:
        await stage.connect()
        await stage.go("m0")
        opened: Client = stage.online.state.client  # type: ignore[attr-defined]  # the one place where commands leave
        send = opened._send

        async def torn(batch: Any) -> list[Any]:
            monkeypatch.setattr(opened, "_send", send)
            first = await send(batch[:1])
            await asyncio.to_thread(replicated, pair.old)
            await asyncio.to_thread(pair.fail_over)
            return first + await send(batch[1:])

        monkeypatch.setattr(opened, "_send", torn)
        (routed,) = await stage.route(stage.message("m1"))
        assert routed.outcome is Outcome.HOT
        assert await stage.ids() == ["m0", "m1"]
