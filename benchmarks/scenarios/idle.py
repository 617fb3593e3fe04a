"""What people online cost while nobody writes to them."""

from __future__ import annotations

import asyncio

from benchmarks import mail
from benchmarks.figures import Figure, at_most
from benchmarks.load import settled
from benchmarks.load_sockets import nothing, sockets
from benchmarks.servers import Bench, Server

NAME = "idle"
PEOPLE = 100
SECONDS = 21.0
"""A little more than a heartbeat, and than the time between two pings of one socket."""


async def run(bench: Bench) -> list[Figure]:
    """CPU time over a span; floor and router side by side, since neither does anything to speak of."""
    seconds = SECONDS / (4 if bench.quick else 1)
    with bench.server("floor") as first, bench.server("router") as second:
        floor, router = await asyncio.gather(_percent(first, seconds), _percent(second, seconds))
    what = f"idle, {PEOPLE} people online, no mail, for {seconds:.0f} s"
    return [Figure(NAME, what, [router], "% of a core", at_most(0.5), f"floor {floor:.2f} %")]


async def _percent(server: Server, seconds: float) -> float:
    wanted = [(server.token(mail.user("idle", number)), nothing) for number in range(PEOPLE)]
    async with sockets(server.port, wanted):
        await settled(server)
        before = server.cpu_seconds()
        await asyncio.sleep(seconds)
        return 100 * (server.cpu_seconds() - before) / seconds
