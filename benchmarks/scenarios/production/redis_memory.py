"""What mail and its traces take in Redis."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.figures import Figure, at_most
from benchmarks.load import drain, mailboxes
from benchmarks.load_http import connections
from benchmarks.load_sockets import nothing, sockets
from benchmarks.production import Topology
from benchmarks.servers import Bench
from benchmarks.stock import stock

NAME = "memory"
MESSAGES = 5000
KIB = 1024


async def run(bench: Bench, topology: Topology) -> list[Figure]:
    """Messages for one person online, then their tombstones: all keys as Redis itself measures them."""
    (box,), count, redis = mailboxes("stored", 1), bench.count(MESSAGES), topology.redis
    token = topology.token(box.user)
    topology.pipeline()
    async with sockets(topology.sockets_port, [(token, nothing)]), stock(topology.environment) as stocked:
        before = await asyncio.to_thread(_memory, redis)
        await stocked.fill(box, count)
        full = await asyncio.to_thread(_memory, redis)
        async with connections(topology.port, 1) as (connection,):
            await drain(connection, token, box, 500)
        after = await asyncio.to_thread(_memory, redis)
    box.check()
    note = f"envelopes of {len(box.envelope()[1]):,} bytes, which hold 1 KiB; {count:,} of one person"
    queued, tombstone = (full - before) / count / KIB, (after - before) / count
    return [
        Figure(NAME, "Redis memory of a queued message", [queued], "KiB", at_most(2.2), note),
        Figure(NAME, "Redis memory of a tombstone", [tombstone], "bytes", at_most(120)),
    ]


def _memory(redis: Any) -> int:
    """Of all keys, their overhead in the keyspace included."""
    keys = list(redis.scan_iter(count=1000))
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.memory_usage(key, samples=0)
        return sum(size or 0 for size in pipeline.execute())
