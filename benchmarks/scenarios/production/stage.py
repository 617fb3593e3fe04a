"""What the scenarios of the production set-up share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from benchmarks.load import ARRIVAL_SECONDS, Mailbox, Reader, Sender, drain, together
from benchmarks.load_http import ANSWER_SECONDS, Http, LoadError, connections
from benchmarks.production import Topology
from router.bench.latencies import Latencies

READERS: Final = 16
PAGE: Final = 500
MOST_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.02
ACCEPTED = "router_messages_accepted_total"


class Calls(Struct):
    """What the stores were asked so far."""

    redis_reads: int
    firestore: int
    """Calls of any kind."""
    written: int
    """Documents, deleted ones included."""
    queries: int


def calls(topology: Topology) -> Calls:
    """Up to now, of all router processes."""
    kinds = ("batch_writes", "commits", "gets", "queries")
    counts = [topology.firestore(kind) for kind in kinds]
    return Calls(topology.redis_reads(), sum(counts), topology.firestore("documents_written"), counts[-1])


async def routed(topology: Topology, count: int) -> None:
    """Return once pipelines have put ``count`` messages into Firestore since they started."""
    deadline = time.perf_counter() + MOST_SECONDS
    while await asyncio.to_thread(topology.pipeline().written) < count:
        if time.perf_counter() > deadline:
            raise LoadError(f"{count} messages are not in Firestore after {MOST_SECONDS:g} s")
        await asyncio.sleep(LOOK_SECONDS)


async def one_by_one(
    box: Mailbox,
    sender: Sender,
    reader: Reader,
    pokes: Sequence[asyncio.Event],
    count: int,
    done: Callable[[], object] = lambda: None,
) -> Latencies:
    """Send ``count`` messages; each is fetched, once each of ``pokes`` was set, before the next is sent.

    ``done`` is called after each. Returns the spans from send to the last poke. Raises ``LoadError``.
    """
    waits = Latencies()
    for _ in range(count):
        for event in pokes:
            event.clear()
        started = time.perf_counter()
        await sender.send(box)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.gather(*(event.wait() for event in pokes))
        except TimeoutError:
            raise LoadError(f"no poke came within {ANSWER_SECONDS:g} s") from None
        waits.add(time.perf_counter() - started)
        # More than once only for a poke that came with the connection, before the mail.
        while not await reader.take():
            pass
        done()
    return waits


async def drain_all(topology: Topology, boxes: Sequence[Mailbox], page: int = PAGE) -> int:
    """Fetch, keep and acknowledge the mail of all ``boxes``, and check that nothing is missing."""
    left, drained = list(boxes), 0

    async def read(connection: Http) -> None:
        nonlocal drained
        while left:
            found = await _drain(topology, connection, left.pop(), page)
            drained += found

    async with connections(topology.port, READERS) as opened:
        await together(read(connection) for connection in opened)
    return drained


async def _drain(topology: Topology, connection: Http, box: Mailbox, page: int) -> int:
    """What is given to Firestore may not have arrived there yet, so whoever misses something looks again."""
    deadline = time.perf_counter() + ARRIVAL_SECONDS
    drained = await drain(connection, topology.token(box.user), box, page)
    while box.ledger.missing > 0 and time.perf_counter() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
        drained += await drain(connection, topology.token(box.user), box, page)
    box.check()
    return drained
