"""What a socket on which nothing happens takes."""

from __future__ import annotations

from benchmarks import mail
from benchmarks.figures import Figure, at_most
from benchmarks.load import settled
from benchmarks.load_sockets import nothing, sockets
from benchmarks.servers import Bench, Server

NAME = "memory"
PEOPLE = 5000


async def run(bench: Bench) -> list[Figure]:
    """Resident memory with the sockets less that without, for each."""
    count = bench.count(PEOPLE)
    with bench.server("floor") as server:
        floor = await _kilobytes(server, count)
    with bench.server("router") as server:
        router = await _kilobytes(server, count)
    what = f"memory per idle WebSocket, {count:,} people with one each"
    return [Figure(NAME, what, [router], "KB", at_most(25), f"floor {floor:.1f} KB")]


async def _kilobytes(server: Server, count: int) -> float:
    wanted = [(server.token(mail.user("idle", number)), nothing) for number in range(count + 1)]
    async with sockets(server.port, wanted[:1]):
        await settled(server)  # what the first one loads is no cost of each
        before = server.memory()
        async with sockets(server.port, wanted[1:]):
            await settled(server)
            return (server.memory() - before) / count / 1000
