"""What one message after the other asks of the stores."""

from __future__ import annotations

import asyncio
import time

from benchmarks.figures import Figure, at_most
from benchmarks.load import Reader, mailboxes, senders, settled
from benchmarks.load_http import connections
from benchmarks.load_sockets import sockets
from benchmarks.production import Topology
from benchmarks.scenarios.production.stage import calls, idle_reads, one_by_one
from benchmarks.servers import Bench

NAME = "calls"
MESSAGES = 150
WARM = 10


async def run(bench: Bench, topology: Topology) -> list[Figure]:
    """One person online who is sent one message at a time, and fetches once for each poke."""
    (box,), count, poked = mailboxes("counted", 1), bench.count(MESSAGES), asyncio.Event()
    topology.pipeline()
    async with connections(topology.port, 1) as (connection,), senders(topology, 1) as (sender,):
        reader = Reader(connection, topology.token(box.user), box)
        async with sockets(topology.sockets_port, [(topology.token(box.user), poked.set)]):
            await settled(topology)  # a new connection may be poked at once, though there is no mail
            await one_by_one(box, sender, reader, [poked], WARM)
            await settled(topology)
            idle, before, started = await idle_reads(topology), calls(topology), time.perf_counter()
            waits = await one_by_one(box, sender, reader, [poked], count)
            reads = calls(topology).redis_reads - before.redis_reads - idle * (time.perf_counter() - started)
            firestore = calls(topology).firestore - before.firestore
    box.check()
    note = f"route, fetch, ack; {idle:.1f} a second without mail are left out; send→poke p50 {waits.p50_ms:.1f} ms"
    return [
        Figure(NAME, "online, one at a time: Redis round trips a message", [reads / count], "", at_most(3), note),
        Figure(NAME, f"online, one at a time: Firestore calls for {count}", [firestore], "", at_most(0)),
    ]
