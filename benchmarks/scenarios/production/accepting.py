"""``POST /api/send`` on one ``serve-api``: accepted when Pub/Sub has confirmed it."""

from __future__ import annotations

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.load import Bound, KeyedSender, cost, mailboxes, send_all, senders, settled, warm_up
from benchmarks.production import Topology
from benchmarks.scenarios.pairs import described
from benchmarks.scenarios.production.stage import ACCEPTED, drain_all, routed
from benchmarks.servers import Bench

NAME = "send"
AT_ONCE, TO = 64, 100
MOST, ALONE = 3000, 150
SECONDS = 2.5


async def run(bench: Bench, topology: Topology) -> list[Figure]:
    """Pipelines are down while 64 send, then up while one sends; all is fetched in the end."""
    bound, boxes = Bound(bench.count(MOST), SECONDS), mailboxes("accepted", TO)
    before = topology.count(ACCEPTED)
    async with senders(topology, AT_ONCE) as people:
        await warm_up(topology, people, "send-warm")
        with_keys = [KeyedSender(sender) for sender in people]
        many, keyed = [], []
        for _ in range(bench.rounds):
            many.append(await cost(topology, send_all(people, boxes, bound)))
            half = Bound(bound.count // 2, SECONDS)
            keyed.append(await cost(topology, send_all(with_keys, boxes, half)))
        topology.pipeline()
        # The backlog first: whoever is alone shares no processor with it.
        await routed(topology, topology.count(ACCEPTED) - before)
        await settled(topology)
        bound = Bound(bench.count(ALONE), SECONDS)
        alone = [await cost(topology, send_all(people[:1], boxes, bound)) for _ in range(bench.rounds)]
        await drain_all(topology, boxes)
    what = "POST /api/send"
    ratios = [with_key.cpu_per_1000 / plain.cpu_per_1000 for with_key, plain in zip(keyed, many, strict=True)]
    rates, p50 = [turn.per_second for turn in many], [turn.latencies.p50_ms for turn in alone]
    return [
        Figure(NAME, f"{what}, {AT_ONCE} at once", rates, "/s", at_least(3000), described(many)),
        Figure(NAME, f"{what}, the same with keys: cost", ratios, "times", at_most(1.05), described(keyed)),
        Figure(NAME, f"{what}, one at a time, p50", p50, "ms", at_most(6.0), described(alone)),
    ]
