"""What is special to a cluster: several servers, which come, go and hand slots to one another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.cluster import key_slot  # type: ignore[attr-defined]  # the same function as the servers'

from router.errors import Unavailable
from router.messages import Delivery, Outcome
from tests.contract.stage import Socket, Stage, staged
from tests.redis.conftest import commands
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually
from tests.support.redis_servers import SLOTS, Cluster, client, cluster
from tests.support.servers import Server
from tests.support.stores_redis import RedisStores

pytestmark = pytest.mark.anyio
TURN_SECONDS = 60.0
USERS = [f"urn:sm:user:u{number}" for number in range(60)]


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of one test's own, which it may take apart."""
    with cluster(tmp_path / "cluster") as made:
        yield made


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path, own_cluster: Cluster, clock: ManualClock) -> AsyncIterator[Stage]:
    del anyio_backend
    stores = RedisStores(tmp_path / "data", own_cluster.url, mode="cluster", timeout_seconds=1)
    async with staged(stores, clock) as opened:
        yield opened


def slot_of(user: str) -> int:
    slot: int = key_slot(user.encode())
    return slot


def home_of(made: Cluster, user: str) -> Server:
    share = SLOTS // len(made.nodes)
    return made.nodes[min(slot_of(user) // share, len(made.nodes) - 1)]


async def test_one_batch_goes_to_all_servers_at_once(
    stage: Stage, own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two round trips: the scripts, then the index; each server gets its share in one piece."""
    assert {home_of(own_cluster, user) for user in USERS} == set(own_cluster.nodes)
    for turn in range(3):  # until each server has learned each script that is counted below
        for user in USERS:
            await stage.connect(user)
        await stage.online.route([Delivery(stage.message(f"{turn}-{user}", user), 0, 1) for user in USERS])
        for user in USERS:
            await stage.queue.acknowledge(user, await stage.ids(user))
    sent = commands(stage, monkeypatch)
    routed = await stage.online.route([Delivery(stage.message(f"m-{user}", user), 0, 1) for user in USERS])
    assert {result.outcome for result in routed} == {Outcome.HOT}
    assert len(sent) == 2
    assert await stage.ids(USERS[0]) == [f"m-{USERS[0]}"]
    await stage.queue.acknowledge(USERS[0], [f"m-{USERS[0]}"])
    assert len(sent) == 4


async def test_a_server_that_is_down_takes_its_users_with_it_and_brings_them_back(
    stage: Stage, own_cluster: Cluster
) -> None:
    """RACES 2, 17."""
    victim = own_cluster.nodes[1]
    on_it = next(user for user in USERS if home_of(own_cluster, user) is victim)
    for user in (on_it, USERS[0]):
        await stage.connect(user)
        await stage.go(f"m1-{user}", user)
    victim.stop()
    with pytest.raises(Unavailable):
        await stage.ids(on_it)
    victim.start()

    async def served() -> bool:
        try:
            return await stage.ids(on_it) == [f"m1-{on_it}"]
        except Unavailable:
            return False

    async with asyncio.timeout(TURN_SECONDS):
        await eventually(stage, served)
    assert await stage.go(f"m2-{on_it}", on_it) is Outcome.HOT
    assert await stage.ids(on_it) == [f"m1-{on_it}", f"m2-{on_it}"]


async def test_pokes_go_on_though_the_server_that_brings_them_falls_silent(
    stage: Stage, own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 16, 18: a node may have subscribed at any server, and its connection stays open; another has the user."""
    monkeypatch.setattr("router.backends.redis.pokes.IDLE_SECONDS", 0.2)
    monkeypatch.setattr("router.backends.redis.pokes.ANSWER_SECONDS", 1.0)
    channel, socket = f"{stage.factory.config.online.key_prefix}:node:{stage.factory.node}", Socket()

    async def subscribed(*servers: Server) -> Server:
        found: list[Server] = []

        def look() -> bool:
            found[:] = [server for server in servers if client(server).pubsub_numsub(channel)[0][1]]
            return bool(found)

        await eventually(stage, partial(asyncio.to_thread, look))
        return found[0]

    async def poked() -> bool:
        return socket.pokes > before

    listening = asyncio.create_task(stage.manager.run())
    try:
        async with asyncio.timeout(TURN_SECONDS):
            silent = await subscribed(*own_cluster.nodes)
            others = [node for node in own_cluster.nodes if node is not silent]
            user = next(user for user in USERS if home_of(own_cluster, user) in others)
            await stage.manager.connect(user, socket, None)
            assert await stage.ids(user) == []
            before = socket.pokes
            silent.freeze()
            await subscribed(*others)
            with suppress(Unavailable):  # the index of busy users may be at the silent one
                await stage.go("m1", user)
            await eventually(stage, poked)
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def test_a_slot_that_moves_takes_its_users_along(stage: Stage, own_cluster: Cluster) -> None:
    """Resharding under way: half of a user's keys are here and half there, and then all there."""
    user = USERS[0]
    source = home_of(own_cluster, user)
    target = next(node for node in own_cluster.nodes if node is not source)
    await stage.connect(user)
    await stage.go("m1", user)
    move = Moving(source, target, slot_of(user))
    await asyncio.to_thread(move.begin)
    await asyncio.to_thread(move.some_keys)
    with pytest.raises(Unavailable):
        await stage.go("m2", user)
    await asyncio.to_thread(move.finish)
    assert await stage.go("m2", user) is Outcome.HOT
    assert await stage.ids(user) == ["m1", "m2"]
    await stage.queue.acknowledge(user, ["m1", "m2"])
    assert await stage.ids(user) == []


class Moving:
    """One slot, moved from one server to another by hand."""

    def __init__(self, source: Server, target: Server, slot: int) -> None:
        self._source, self._target, self._slot = source, target, slot
        self._from, self._to = (client(server) for server in (source, target))

    def begin(self) -> None:
        self._set(self._to, "IMPORTING", self._id(self._from))
        self._set(self._from, "MIGRATING", self._id(self._to))

    def some_keys(self) -> None:
        self._move(self._from.execute_command("CLUSTER GETKEYSINSLOT", self._slot, 100)[::2])

    def finish(self) -> None:
        self._move(self._from.execute_command("CLUSTER GETKEYSINSLOT", self._slot, 100))
        for server in (self._to, self._from):
            self._set(server, "NODE", self._id(self._to))

    def _move(self, keys: list[bytes]) -> None:
        if keys:
            self._from.execute_command("MIGRATE", "127.0.0.1", self._target.port, "", 0, 5000, "KEYS", *keys)

    def _set(self, server: Any, state: str, node: str) -> None:
        server.execute_command("CLUSTER SETSLOT", self._slot, state, node)

    def _id(self, server: Any) -> str:
        return str(server.execute_command("CLUSTER MYID").decode())
