"""Mail for one person who is offline, and comes back to a long queue."""

from __future__ import annotations

import time

from msgspec import Struct

from benchmarks.figures import Figure, Turn, at_least
from benchmarks.load import Bound, Mailbox, cost, drain, mailboxes, send_all, senders, warm_up
from benchmarks.load_http import LoadError, connections
from benchmarks.scenarios.pairs import in_turn, pairs_of
from benchmarks.servers import Bench, Server

NAME = "drain"
AT_ONCE = 64
MESSAGES = 5000
PAGES = (500, 50)
FOREVER = 600.0


class _Turns(Struct):
    accept: Turn
    drained: list[float]
    """Messages per second, for each size of page."""


async def run(bench: Bench) -> list[Figure]:
    """Everything is fetched, kept and acknowledged page by page, one request after the other."""
    count = bench.count(MESSAGES)

    async def turn(server: Server) -> _Turns:
        accepts, drained = [], []
        async with senders(server, AT_ONCE) as people:
            await warm_up(server, people)
            for limit, box in zip(PAGES, mailboxes("away", len(PAGES)), strict=True):
                accepts.append(await cost(server, send_all(people, [box], Bound(count, FOREVER))))
                drained.append(await _drained(server, box, limit, count))
        return _Turns(max(accepts, key=lambda turn: turn.per_second), drained)

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
    return rows


async def _drained(server: Server, box: Mailbox, limit: int, count: int) -> float:
    async with connections(server.port, 1) as (connection,):
        started = time.perf_counter()
        drained = await drain(connection, server.token(box.user), box, limit)
        seconds = time.perf_counter() - started
    if drained != count:
        raise LoadError(f"{drained} of {count} messages were drained")
    box.check()
    return drained / seconds
