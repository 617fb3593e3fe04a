"""People online: how many messages, at which cost, and how soon they are poked."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Figure, Turn, at_least, at_most, median
from benchmarks.load import (
    ARRIVAL_SECONDS,
    Bound,
    Crowd,
    Mailbox,
    Sender,
    cost,
    crowd,
    mailboxes,
    send_all,
    senders,
    settled,
    warm_up,
)
from benchmarks.production import Topology
from benchmarks.scenarios.end_to_end import ONLINE, SENDERS, conversation
from benchmarks.scenarios.pairs import described
from benchmarks.scenarios.poking import OFFERED, Offered
from benchmarks.scenarios.poking import SENDERS as WRITERS
from benchmarks.scenarios.production.stage import calls
from benchmarks.servers import Bench

NAME = "online"
SECONDS = 4.0
MOST = 200_000
OFFERED_SECONDS = 5.0


async def run(bench: Bench, topology: Topology) -> list[Figure]:
    """A message counts when its recipient has fetched, kept and acknowledged it."""
    topology.pipeline()
    turns, told = [], []
    for number in range(bench.rounds):
        turn, beside = await _talk(bench, topology, f"talk{number}-")
        turns.append(turn)
        told.append(beside)
    offered = [await _offer(bench, topology, f"offer{number}-") for number in range(bench.rounds)]
    what = f"end to end, {ONLINE} online, {SENDERS} senders"
    rates, cpu = [turn.per_second for turn in turns], [turn.cpu_per_1000 for turn in turns]
    return [
        Figure(NAME, f"{what}: rate", rates, "/s", at_least(2000), described(turns)),
        Figure(NAME, f"{what}: cost", cpu, "CPU-s per 1,000", at_most(0.4), "all router processes together"),
        *_calls(what, told),
        *_pokes(offered),
    ]


async def _acquaint(topology: Topology, people: Crowd, writers: Sequence[Sender], boxes: Sequence[Mailbox]) -> None:
    """One message to each, which nobody counts: the first fetch of a user asks Firestore, whose emulator may take
    seconds for a hundred of them, while the routers are as idle as if they were done."""
    sent = await send_all(writers, boxes, Bound(len(boxes), ARRIVAL_SECONDS))
    await people.finish(sent.count)
    await settled(topology)
    people.forget()


async def _talk(bench: Bench, topology: Topology, name: str) -> tuple[Turn, tuple[float, float]]:
    """The turn; Redis reads a message, Firestore calls in all."""
    boxes, bound = mailboxes(name, ONLINE), Bound(bench.count(MOST), SECONDS / (3 if bench.quick else 1))
    async with crowd(topology, boxes) as people, senders(topology, SENDERS) as writers:
        await warm_up(topology, writers, f"{name}warm")
        await _acquaint(topology, people, writers, boxes)
        before, had = calls(topology), people.acknowledged
        turn = await cost(topology, conversation(people, writers, boxes, bound))
        after, count = calls(topology), people.acknowledged - had
    for box in boxes:
        box.check()
    return turn, ((after.redis_reads - before.redis_reads) / count, after.firestore - before.firestore)


def _calls(what: str, told: list[tuple[float, float]]) -> list[Figure]:
    reads, firestore = [each for each, _ in told], [calls for _, calls in told]
    note = "reads of Redis from clients, sweeps and leases included; each client looks again until nothing is left"
    return [
        Figure(NAME, f"{what}: Redis round trips a message", reads, "", at_most(3.0), note),
        Figure(NAME, f"{what}: Firestore calls in all", firestore, "", at_most(0)),
    ]


async def _offer(bench: Bench, topology: Topology, name: str) -> tuple[Turn, float]:
    """The turn, and by how many ms the load was late at p99."""
    boxes, count = mailboxes(name, ONLINE), bench.count(int(OFFERED * OFFERED_SECONDS))
    async with crowd(topology, boxes) as people, senders(topology, WRITERS) as writers:
        await warm_up(topology, writers, f"{name}warm")
        await _acquaint(topology, people, writers, boxes)
        load = Offered(people, writers, boxes, count)
        turn = await cost(topology, load.run())
    for box in boxes:
        box.check()
    return turn, load.late.p99_ms


def _pokes(offered: list[tuple[Turn, float]]) -> list[Figure]:
    turns, late = [turn for turn, _ in offered], median([late for _, late in offered])
    what = f"{OFFERED}/s offered, {ONLINE} online"
    note = f"router {described(turns)}; the load itself was late by {late:.1f} ms at p99"
    p50, p99 = ([turn.latencies.percentile_ms(percent) for turn in turns] for percent in (50, 99))
    rates = [turn.per_second for turn in turns]
    return [
        Figure(NAME, f"{what}: rate, to the last acknowledgement", rates, "/s", at_least(0.95 * OFFERED), note),
        Figure(NAME, f"{what}: cost", [turn.cpu_per_1000 for turn in turns], "CPU-s per 1,000", at_most(0.8)),
        Figure(NAME, f"{what}: send→poke p50", p50, "ms", at_most(12)),
        Figure(NAME, f"{what}: send→poke p99", p99, "ms", at_most(60)),
    ]
