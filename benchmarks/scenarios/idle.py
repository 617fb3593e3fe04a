"""What people online cost while nobody writes to them."""

from __future__ import annotations

import asyncio

from benchmarks import mail
from benchmarks.figures import Figure, at_most
from benchmarks.load import settled
from benchmarks.load_sockets import nothing, sockets
from benchmarks.servers import Bench, Server

NAME = "idle"
FEW, MANY = 100, 5000
SECONDS = 21.0
"""A little more than a heartbeat, and than the time between two pings of one socket."""


async def run(bench: Bench) -> list[Figure]:
    """CPU time over a span; floor and router side by side, since neither does anything to speak of."""
    seconds = SECONDS / (4 if bench.quick else 1)
    rows = []
    for people, goal in ((FEW, 0.2), (bench.count(MANY), 3.0)):
        with bench.server("floor") as first, bench.server("router") as second:
            floor, router = await asyncio.gather(_percent(first, people, seconds), _percent(second, people, seconds))
        what = f"idle, {people:,} people online, no mail, for {seconds:.0f} s"
        rows.append(Figure(NAME, what, [router], "% of a core", at_most(goal), f"floor {floor:.2f} %"))
    return rows


async def _percent(server: Server, people: int, seconds: float) -> float:
    wanted = [(server.token(mail.user("idle", number)), nothing) for number in range(people)]
    async with sockets(server.port, wanted):
        await settled(server)
        before = server.cpu_seconds()
        await asyncio.sleep(seconds)
        return 100 * (server.cpu_seconds() - before) / seconds
