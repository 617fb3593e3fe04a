"""What one message after the other asks of the stores."""

from __future__ import annotations

import asyncio
import itertools

from benchmarks.figures import Figure, at_most, median
from benchmarks.load import Reader, mailboxes, senders, settled
from benchmarks.load_http import connections
from benchmarks.load_sockets import sockets
from benchmarks.production import Topology
from benchmarks.scenarios.production.stage import calls, one_by_one
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
            before, seen = calls(topology), [topology.redis_reads()]
            waits = await one_by_one(box, sender, reader, [poked], count, lambda: seen.append(topology.redis_reads()))
            firestore = calls(topology).firestore - before.firestore
    box.check()
    # Each look is a read itself. The median: sweeps and heartbeats come with some of the messages, and not for them.
    reads = [after - earlier - 1 for earlier, after in itertools.pairwise(seen)]
    note = f"route, fetch, ack; {sum(reads) / count:.2f} with the sweeps between; send→poke p50 {waits.p50_ms:.1f} ms"
    typical = [float(median(reads))]
    return [
        Figure(NAME, "online, one at a time: Redis round trips a message", typical, "", at_most(3), note),
        Figure(NAME, f"online, one at a time: Firestore calls for {count}", [firestore], "", at_most(0)),
    ]
