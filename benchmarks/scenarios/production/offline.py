"""People offline: from 64 senders through Pub/Sub into Firestore, and out of it again."""

from __future__ import annotations

import time

from msgspec import Struct

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.load import PAGE, Bound, mailboxes, send_all, senders, settled, warm_up
from benchmarks.load_http import LoadError
from benchmarks.production import Topology
from benchmarks.scenarios.production.stage import ACCEPTED, calls, drain_all, routed
from benchmarks.servers import Bench

NAME = "offline"
AT_ONCE, TO = 64, 100
MESSAGES = 3000
FOREVER = 600.0


class _Seen(Struct):
    routed: float
    """Messages a second."""
    cpu: float
    """CPU-seconds of the routers for 1,000."""
    drained: float
    put: float
    """Documents written a message on the way in."""
    deleted: float
    pages: float
    """Queries a page that was fetched, the empty last one of each person included."""
    reads: float
    """Of Redis, a message on the way in."""


async def run(bench: Bench, topology: Topology) -> list[Figure]:
    """From the first send until the last message is given to Firestore; then all is fetched by pages of 50."""
    topology.pipeline()
    accepted = topology.count(ACCEPTED)
    async with senders(topology, AT_ONCE) as people:
        await warm_up(topology, people, "offline-warm")
    await routed(topology, topology.count(ACCEPTED) - accepted)
    await settled(topology)
    seen = [await _one(bench, topology, f"offline{number}-") for number in range(bench.rounds)]
    what, note = "offline", f"{seen[0].cpu:.2f} CPU-s per 1,000; all arrived, once, in order"
    return [
        Figure(NAME, f"{what}: into Firestore", [one.routed for one in seen], "/s", at_least(800), note),
        Figure(NAME, f"{what}: fetched and acknowledged by 16 at once", [one.drained for one in seen], "/s"),
        Figure(NAME, f"{what}: Firestore writes a message", [one.put for one in seen], "", at_most(1)),
        Figure(NAME, f"{what}: Firestore deletes a message", [one.deleted for one in seen], "", at_most(1)),
        Figure(NAME, f"{what}: Firestore queries a page", [one.pages for one in seen], "", at_most(1)),
        Figure(NAME, f"{what}: Redis round trips a message, until stored", [one.reads for one in seen], ""),
    ]


async def _one(bench: Bench, topology: Topology, name: str) -> _Seen:
    count, boxes = bench.count(MESSAGES), mailboxes(name, TO)
    before, cpu, already = calls(topology), topology.cpu_seconds(), topology.pipeline().written()
    async with senders(topology, AT_ONCE) as people:
        started = time.perf_counter()
        await send_all(people, boxes, Bound(count, FOREVER))
        await routed(topology, already + count)
        seconds = time.perf_counter() - started
    await settled(topology)
    stored, cpu = calls(topology), topology.cpu_seconds() - cpu
    started = time.perf_counter()
    if (drained := await drain_all(topology, boxes, PAGE)) != count:
        raise LoadError(f"{drained} of {count} messages were drained")
    drain_seconds = time.perf_counter() - started
    await settled(topology)
    after = calls(topology)
    pages = TO * (-(-count // TO // PAGE) + 1)
    return _Seen(
        routed=count / seconds,
        cpu=1000 * cpu / count,
        drained=count / drain_seconds,
        put=(stored.written - before.written) / count,
        deleted=(after.written - stored.written) / count,
        pages=(after.queries - stored.queries) / pages,
        reads=(stored.redis_reads - before.redis_reads) / count,
    )
