"""Hot mail goes to Firestore when the last socket of its recipient closes."""

from __future__ import annotations

import contextlib

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.load import mailboxes, settled
from benchmarks.load_sockets import nothing, sockets
from benchmarks.production import SOCKETS, Topology
from benchmarks.scenarios.migrating import watch
from benchmarks.scenarios.production.stage import drain_all
from benchmarks.servers import Bench
from benchmarks.stock import stock

NAME = "migrate"
DEEP = "migrate-deep"
MESSAGES, MANY = 15_000, 100_000
GROWTH_MB = 10.0


async def run(bench: Bench, topology: Topology) -> list[Figure]:
    """Many messages of one person."""
    return await _moved(topology, NAME, bench.count(MESSAGES))


async def deep(bench: Bench, topology: Topology) -> list[Figure]:
    """Very many: takes minutes, and is no part of a whole run.

    They are not read back: the emulator takes longer for a query in so many documents than a fetch may.
    """
    return await _moved(topology, DEEP, bench.count(MANY), read_back=False)


async def _moved(topology: Topology, name: str, count: int, *, read_back: bool = True) -> list[Figure]:
    boxes = mailboxes(name, 1)
    topology.pipeline()
    async with contextlib.AsyncExitStack() as online, stock(topology.environment) as stocked:
        wanted = [(topology.token(box.user), nothing) for box in boxes]
        await online.enter_async_context(sockets(topology.sockets_port, wanted))
        await stocked.fill(boxes[0], count)
        await settled(topology)
        resident = topology.of(SOCKETS).memory()
        await online.aclose()
        per_second, growth = await watch(stocked, topology.of(SOCKETS))
    if read_back:
        await drain_all(topology, boxes)
    checked = "all arrived in order" if read_back else "none was left in hot"
    what, note = f"{count:,} of one person from hot to cold", f"{resident / 1e6:.0f} MB before; {checked}"
    return [
        Figure(name, what, [per_second], "/s", at_least(1000)),
        Figure(name, f"{what}: growth of serve-ws", [growth], "MB", at_most(GROWTH_MB), note),
    ]
