"""Mail for one person who is offline, and comes back to a long queue."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from msgspec import Struct

from benchmarks.figures import WRITTEN, Figure, Turn, at_least, at_most
from benchmarks.load import (
    Bound,
    Mailbox,
    cost,
    drain,
    drain_by_next,
    mailboxes,
    send_all,
    senders,
    settled,
    warm_up,
)
from benchmarks.load_http import Http, LoadError, connections
from benchmarks.scenarios.pairs import in_turn, pairs_of
from benchmarks.servers import Bench, Server

NAME = "drain"
AT_ONCE = 64
MESSAGES = 5000
PAGES = (500, 50)
FOREVER = 600.0
Take = Callable[[Http, str, Mailbox, int], Awaitable[int]]


class _Turns(Struct):
    accept: Turn
    drained: list[float]
    """Messages per second, for each size of page."""
    drained_by_next: float
    """With the last size of page, and one call for acknowledgement and fetch."""
    written: float
    """Bytes that the server had the system write to a disk, for each message."""


async def run(bench: Bench) -> list[Figure]:
    """Everything is fetched, kept and acknowledged page by page, one request after the other."""
    count = bench.count(MESSAGES)

    async def turn(server: Server) -> _Turns:
        accepts, drained, written = [], [], server.written_bytes()
        async with senders(server, AT_ONCE) as people:
            await warm_up(server, people)
            boxes = mailboxes("away", len(PAGES) + 1)
            for take, limit, box in zip((drain, drain, drain_by_next), (*PAGES, PAGES[-1]), boxes, strict=True):
                accepts.append(await cost(server, send_all(people, [box], Bound(count, FOREVER))))
                drained.append(await drained_per_second(server, box, limit, count, take))
        await settled(server)
        each = (server.written_bytes() - written) / (len(drained) * count)
        *drained, by_next = drained
        return _Turns(max(accepts, key=lambda turn: turn.per_second), drained, by_next, each)

    measured = await in_turn(bench, turn)
    accept = pairs_of(measured, lambda turns: turns.accept)
    rows = [
        Figure(
            NAME, f"accept {count:,} for one offline person", accept.ratios, "of the floor", at_least(0.40), accept.note
        )
    ]
    for index, (limit, goal) in enumerate(zip(PAGES, (5000, 3000), strict=True)):
        values = [pair.router.drained[index] for pair in measured]
        floor = max(pair.floor.drained[index] for pair in measured)
        note = f"all arrived, once, in order; floor {floor:,.0f}/s"
        rows.append(Figure(NAME, f"drain them by pages of {limit}", values, "/s", at_least(goal), note))
    by_next = [pair.router.drained_by_next / pair.router.drained[-1] for pair in measured]
    what, note = f"drain them by pages of {PAGES[-1]}, one call each", "POST /api/messages/next, against GET and ack"
    rows.append(Figure(NAME, what, by_next, "times", at_least(1.3), note))
    written = [pair.router.written for pair in measured]
    what = "accept them, then drain them: a message, written"
    return [*rows, Figure(NAME, what, written, "bytes", at_most(6000), WRITTEN)]


async def drained_per_second(server: Server, box: Mailbox, limit: int, count: int, take: Take) -> float:
    async with connections(server.port, 1) as (connection,):
        started = time.perf_counter()
        drained = await take(connection, server.token(box.user), box, limit)
        seconds = time.perf_counter() - started
    if drained != count:
        raise LoadError(f"{drained} of {count} messages were drained")
    box.check()
    return drained / seconds
