"""Closing: no connection stays open, however the closing itself is cut short."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection

from router.backends.redis.address import parse
from router.backends.redis.client import Client
from router.backends.redis.scripts import Scripts
from router.config.redis_url import Mode
from router.errors import Unavailable
from tests.redis.conftest import TIMEOUT_SECONDS
from tests.support.redis_servers import SERVICE, Watched, cluster
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
KEYS = 50
"""Enough that each node of a cluster has some."""


def client(url: str, mode: Mode = "single") -> Client:
    address = parse(url, mode)
    return Client(address, mode, Scripts(), service=SERVICE, pool_size=4, timeout_seconds=TIMEOUT_SECONDS)


def still_open(ports: Sequence[int]) -> list[AbstractConnection]:
    """The connections of this process to these servers."""
    there = [each for each in gc.get_objects() if isinstance(each, AbstractConnection)]
    return [each for each in there if each.is_connected and getattr(each, "port", None) in ports]


async def listen(one: Client, subscribed: asyncio.Event) -> None:
    async with one.listener() as listener:
        await listener.pubsub().subscribe("channel")
        subscribed.set()
        await asyncio.get_running_loop().create_future()


async def use(one: Client) -> asyncio.Task[None]:
    """Open the connections of ``one``, and that of a subscription too; returns the subscriber."""
    subscribed = asyncio.Event()
    listening = asyncio.create_task(listen(one, subscribed))
    await asyncio.gather(subscribed.wait(), *(one.run([("ECHO", bytes(2**20))]) for _ in range(4)))
    return listening


async def cancelled_at(turn: int, times: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run ``work`` as a task that is cancelled after ``turn`` turns of the event loop, and again in the turns after."""
    task = asyncio.create_task(work())
    for _ in range(turn):
        await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("turn", range(1, 12))
async def test_a_client_whose_closing_is_cancelled_leaves_no_connection(
    own_redis: Server, turn: int, times: int
) -> None:
    """By a check that has run out of time, or a process that is told to stop a second time."""
    one = client(f"redis://{own_redis.address}")
    listening = await use(one)
    assert len(still_open([own_redis.port])) == 5
    await cancelled_at(turn, times, lambda: one.__aexit__(None, None, None))
    assert not still_open([own_redis.port])
    listening.cancel()
    await asyncio.wait([listening])


@pytest.mark.parametrize("turn", range(1, 12))
async def test_a_listener_that_is_cancelled_twice_leaves_no_connection(own_redis: Server, turn: int) -> None:
    async with client(f"redis://{own_redis.address}") as one:
        listening = await use(one)

        async def end() -> None:
            listening.cancel()
            await asyncio.wait([listening])

        ending = asyncio.create_task(end())
        for _ in range(turn):
            await asyncio.sleep(0)
        listening.cancel()
        await ending
        assert len(still_open([own_redis.port])) == 4


async def test_a_cluster_that_has_just_lost_a_node_is_closed(tmp_path: Path) -> None:
    """redis-py closes nothing until it has asked for the nodes again."""
    with cluster(tmp_path) as servers:
        ports = [node.port for node in servers.nodes]
        async with client(servers.url, "cluster") as one:
            await asyncio.gather(*(one.run([("SET", f"key{number}", "")]) for number in range(KEYS)))
            assert {connection.port for connection in still_open(ports)} == set(ports)  # type: ignore[attr-defined]
            servers.nodes[0].stop()
            with pytest.raises(Unavailable):
                await one.on_each("PING")
        assert not still_open(ports)


async def test_searches_at_the_same_time_lose_no_sentinel(redis_sentinel: Watched) -> None:
    """The first that is asked is down, so that both end with another one."""
    async with client(redis_sentinel.url, "sentinel") as one:
        redis_sentinel.sentinels[0].stop()
        watching = one._sentinel
        assert watching is not None
        known = set(watching.sentinels)
        assert len(set(await asyncio.gather(one._master(), one._master()))) == 1
        assert set(watching.sentinels) == known
        assert watching.sentinels[0].connection_pool.connection_kwargs["port"] != redis_sentinel.sentinels[0].port
