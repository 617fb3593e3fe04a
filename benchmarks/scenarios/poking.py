"""How soon a recipient has a message, and what it costs, at a steady rate below what the server can do."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from msgspec import Struct

from benchmarks.figures import WRITTEN, Figure, Turn, at_most, median
from benchmarks.load import Crowd, Mailbox, Sent, Writer, cost, crowd, mailboxes, senders, warm_up
from benchmarks.scenarios.pairs import described, in_turn, pairs_of
from benchmarks.servers import Bench, Server
from router.bench.latencies import Latencies

NAME = "poke"
ONLINE, SENDERS = 100, 64
OFFERED = 500
SECONDS = 6.0
SEED = 1


class _Turns(Struct):
    poked: Turn
    received: Latencies
    """Until each message was held."""


async def run(bench: Bench) -> list[Figure]:
    """Sends at random moments (Poisson), whether or not earlier ones were answered."""
    late: list[float] = []
    count = bench.count(int(OFFERED * SECONDS))

    async def turn(server: Server) -> _Turns:
        boxes = mailboxes("online", ONLINE)
        async with crowd(server, boxes) as people, senders(server, SENDERS) as writers:
            await warm_up(server, writers)
            offered = Offered(people, writers, boxes, count)
            measured = await cost(server, offered.run())
        for box in boxes:
            box.check()
        late.append(offered.late.p99_ms)
        return _Turns(measured, people.waits.held)

    measured = await in_turn(bench, turn)
    pairs = pairs_of(measured, lambda turns: turns.poked)
    p50, p99 = ([turn.latencies.percentile_ms(percent) for turn in pairs.router] for percent in (50, 99))
    what = f"at {OFFERED}/s offered, {ONLINE} online"
    note = f"floor {described(pairs.floor)}; the load itself was late by {median(late):.1f} ms at p99"
    held = [pair.router.received for pair in measured]
    held50, held99 = ([received.percentile_ms(percent) for received in held] for percent in (50, 99))
    written = [turn.written for turn in pairs.router]
    return [
        Figure(NAME, f"send→poke {what}, p50", p50, "ms", at_most(3.0), note),
        Figure(NAME, f"send→poke {what}, p99", p99, "ms", at_most(15.0)),
        Figure(NAME, f"send→received {what}, p50", held50, "ms", at_most(2.0)),
        Figure(NAME, f"send→received {what}, p99", held99, "ms", at_most(8.0)),
        Figure(NAME, f"a message {what}: cost", pairs.cpu, "CPU-s per 1,000", at_most(0.7)),
        Figure(NAME, f"a message {what}: written", written, "bytes", at_most(15_000), WRITTEN),
    ]


class Offered:
    """An open loop."""

    def __init__(self, people: Crowd, writers: Sequence[Writer], boxes: Sequence[Mailbox], count: int) -> None:
        self.late = Latencies()
        """By how much the sends missed their moments; where that is much, the load flatters the server."""
        self._people = people
        self._boxes = boxes
        self._count = count
        self._free: asyncio.Queue[Writer] = asyncio.Queue()
        for writer in writers:
            self._free.put_nowait(writer)

    async def run(self) -> Sent:
        """All sends, from the first to the last acknowledgement."""
        chance, started = random.Random(SEED), time.perf_counter()
        due = started
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                due += chance.expovariate(OFFERED)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                writer = await self._free.get()
                self.late.add(max(0.0, time.perf_counter() - due))
                group.create_task(self._send(writer, self._boxes[number % len(self._boxes)]))
        await self._people.finish(self._count)
        return Sent(self._count, time.perf_counter() - started, self._people.waits.poked)

    async def _send(self, writer: Writer, box: Mailbox) -> None:
        await writer.send(box)
        self._free.put_nowait(writer)
