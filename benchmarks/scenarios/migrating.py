"""Moving hot mail to cold: how fast, in how much memory, and how long anybody else waits meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.load import Mailbox, drain, mailboxes, settled
from benchmarks.load_http import LoadError, connections
from benchmarks.load_sockets import nothing, sockets
from benchmarks.others import somebody_else
from benchmarks.servers import Bench, Process, Server, spawn
from benchmarks.stock import Stock, stock
from router.bench.latencies import Latencies

NAME = "migrate"
MESSAGES = 40_000
PEOPLE = 20
LOOK_SECONDS = 0.005
ALONE_SECONDS = 1.0
MOST_SECONDS = 120.0
MEGABYTE = 1_000_000


class _Seen(Struct):
    """One migration."""

    per_second: float
    growth: float
    """MB by which the process that migrates used more in the second half, at most, than in the first."""
    others: Latencies
    """Of each request of somebody else meanwhile."""
    alone: Latencies
    """And of the same before it."""


async def run(bench: Bench) -> list[Figure]:
    """By ``serve`` when the last connection of one person goes; by ``router migrate --all`` beside ``serve``."""
    count, rows = bench.count(MESSAGES), []
    left = [await _one(bench, mailboxes("leaver", 1), count, by_hand=False) for _ in range(bench.rounds)]
    rows += _rows(f"{count:,} of one person whose last socket closed", left)
    by_hand = [await _one(bench, mailboxes("moved", PEOPLE), count, by_hand=True) for _ in range(bench.rounds)]
    rows += _rows(f"{count:,} of {PEOPLE} people by router migrate --all", by_hand)
    return rows


def _rows(what: str, seen: Sequence[_Seen]) -> list[Figure]:
    worst = [one.others.max_ms for one in seen]
    alone = max(one.alone.max_ms for one in seen)
    note = f"of {sum(len(one.others) for one in seen):,} requests; without a migration {alone:.1f} ms at most"
    return [
        Figure(NAME, what, [one.per_second for one in seen], "/s", at_least(20_000)),
        Figure(NAME, f"{what}: longest wait of others", [max(worst)], "ms", at_most(50), note),
        Figure(NAME, f"{what}: growth", [max(one.growth for one in seen)], "MB", at_most(5)),
    ]


async def _one(bench: Bench, people: Sequence[Mailbox], count: int, *, by_hand: bool) -> _Seen:
    with bench.server("router") as server:
        async with contextlib.AsyncExitStack() as online, stock(server.environment) as stocked:
            wanted = [(server.token(box.user), nothing) for box in people]
            await online.enter_async_context(sockets(server.port, wanted))
            for box in people:
                await stocked.fill(box, count // len(people))
            await settled(server)
            async with somebody_else(server) as others:
                await asyncio.sleep(ALONE_SECONDS)
                alone, others.waits = others.waits, Latencies()
                if by_hand:
                    with _command(server) as process:
                        moved = await watch(stocked, process)
                else:
                    await online.aclose()
                    moved = await watch(stocked, server)
                waits = others.waits
        await _check(server, people)
    return _Seen(*moved, waits, alone)


@contextlib.contextmanager
def _command(server: Server) -> Iterator[Process]:
    command = [sys.executable, "-m", "router", "migrate", "--all", "--json"]
    process = Process(spawn(command, server.environment, server.log))
    try:
        yield process
        process.finish()
    finally:
        process.end(gently=False)


async def watch(stocked: Stock, process: Process) -> tuple[float, float]:
    """Messages per second from the last moment at which all were hot, and the growth of memory in MB."""
    total = await stocked.hot()
    begun = started = time.perf_counter()
    early: list[int] = []
    late: list[int] = []
    while hot := await stocked.hot():
        now = time.perf_counter()
        if now - begun > MOST_SECONDS:
            raise LoadError(f"{hot} of {total} messages are still hot after {MOST_SECONDS:g} s")
        if hot == total:
            started = now
        elif process.running:
            (early if hot >= total / 2 else late).append(process.memory())
        await asyncio.sleep(LOOK_SECONDS)
    per_second = total / (time.perf_counter() - started)
    return per_second, (max(late) - max(early)) / MEGABYTE


async def _check(server: Server, people: Sequence[Mailbox]) -> None:
    """All that was moved is there, once and in order."""
    async with connections(server.port, 1) as (connection,):
        for box in people:
            await drain(connection, server.token(box.user), box, 500)
            box.check()
