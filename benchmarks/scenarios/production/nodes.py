"""Which of many ``serve-ws`` hear of a poke."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from benchmarks.figures import Figure, at_most
from benchmarks.load import Mailbox, Reader, mailboxes, senders, settled
from benchmarks.load_http import LoadError, connections
from benchmarks.load_sockets import nothing, sockets
from benchmarks.production import SOCKETS, Node, Topology
from benchmarks.scenarios.production.stage import one_by_one
from benchmarks.servers import Bench

NAME = "nodes"
NODES, HOLDING = 10, 2
MESSAGES = 20
HEARD = 'router_pokes_total{kind="heard"}'


async def run(bench: Bench, topology: Topology) -> list[Figure]:
    """One person has a socket on two of ten nodes, and somebody else one on each of the others."""
    (box, *others), count = mailboxes("spread", 1 + NODES - HOLDING), bench.count(MESSAGES)
    with contextlib.ExitStack() as running:
        topology.pipeline()
        for _ in range(NODES - 1):
            running.enter_context(topology.node(SOCKETS))
        nodes = [node for node in topology.nodes if node.service == SOCKETS]
        heard = await _heard(topology, nodes, box, others, count)
    box.check()
    if any(pokes != count for pokes in heard[:HOLDING]):
        raise LoadError(f"{count} messages were sent, and the nodes that hold their recipient heard {heard[:HOLDING]}")
    wrong = sum(heard[HOLDING:])
    note = f"pokes heard by each node: {', '.join(map(str, heard))}"
    what = f"{count} pokes, {NODES} serve-ws"
    return [
        Figure(NAME, f"{what}: nodes that heard", [sum(map(bool, heard))], f"of {HOLDING}", at_most(HOLDING), note),
        Figure(NAME, f"{what}: pokes heard elsewhere", [wrong], "", at_most(0)),
    ]


async def _heard(
    topology: Topology, nodes: Sequence[Node], box: Mailbox, others: Sequence[Mailbox], count: int
) -> list[int]:
    """How many pokes each of ``nodes`` heard while ``count`` messages went to ``box``, who is on the first two."""
    pokes = [asyncio.Event() for _ in range(HOLDING)]
    wanted = [(topology.token(box.user), event.set) for event in pokes]
    wanted += [(topology.token(other.user), nothing) for other in others]
    async with contextlib.AsyncExitStack() as online:
        for node, one in zip(nodes, wanted, strict=True):
            await online.enter_async_context(sockets(node.port, [one]))
        await settled(topology)
        before = [_pokes(node) for node in nodes]
        async with connections(topology.port, 1) as (connection,), senders(topology, 1) as (sender,):
            reader = Reader(connection, topology.token(box.user), box)
            await one_by_one(box, sender, reader, pokes, count)
        await settled(topology)
        return [_pokes(node) - earlier for node, earlier in zip(nodes, before, strict=True)]


def _pokes(node: Node) -> int:
    return round(node.metrics().get(HEARD, 0))
