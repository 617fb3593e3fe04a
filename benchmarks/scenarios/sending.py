"""``POST /api/send``: durable, with RS256 tokens."""

from __future__ import annotations

from msgspec import Struct

from benchmarks.figures import Figure, Turn, at_least, at_most
from benchmarks.load import Bound, cost, mailboxes, send_all, send_to_group, senders, warm_up
from benchmarks.scenarios.pairs import described, in_turn, pairs_of
from benchmarks.servers import Bench, Server

NAME = "send"
AT_ONCE = 64
SECONDS = 2.5
MOST = 200_000
FEW, MANY = 100, 5000
MEMBERS = 50
"""Of a group."""


class _Turns(Struct):
    few: Turn
    many: Turn
    alone: Turn
    group: Turn


async def run(bench: Bench) -> list[Figure]:
    """Recipients are offline: few with a queue each that grows, then many with a short one."""
    bound = Bound(bench.count(MOST), SECONDS / (4 if bench.quick else 1))

    async def turn(server: Server) -> _Turns:
        async with senders(server, AT_ONCE) as people:
            await warm_up(server, people)
            few = await cost(server, send_all(people, mailboxes("few", FEW), bound))
            many = await cost(server, send_all(people, mailboxes("many", MANY), bound))
            alone = await cost(server, send_all(people[:1], mailboxes("alone", FEW), bound))
            group = await cost(server, send_to_group(people[0], mailboxes("member", MEMBERS), bound))
        return _Turns(few, many, alone, group)

    measured = await in_turn(bench, turn)
    few, many = pairs_of(measured, lambda turns: turns.few), pairs_of(measured, lambda turns: turns.many)
    alone = pairs_of(measured, lambda turns: turns.alone)
    group = pairs_of(measured, lambda turns: turns.group)
    together = [turn.latencies.p50_ms for turn in group.router]
    p50 = [turn.latencies.p50_ms for turn in alone.router]
    what = f"POST /api/send, {AT_ONCE} at once, to"
    note = f"router {described(alone.router)}; floor {described(alone.floor)}"
    return [
        Figure(NAME, f"{what} {FEW} offline", few.ratios, "of the floor", at_least(0.5), few.note),
        Figure(NAME, f"{what} {FEW} offline: rate", few.rates, "/s", at_least(11_000)),
        Figure(NAME, f"{what} {MANY:,} offline", many.ratios, "of the floor", at_least(0.5), many.note),
        Figure(NAME, "POST /api/send, one at a time, p50", p50, "ms", at_most(0.8), note),
        Figure(NAME, "POST /api/send, one at a time: cost", alone.cpu, "CPU-s per 1,000", at_most(0.4)),
        Figure(
            NAME, f"POST /api/send/batch to {MEMBERS} members of a group, p50", together, "ms", at_most(10), group.note
        ),
        Figure(NAME, f"POST /api/send/batch to {MEMBERS}: cost", group.cpu, "CPU-s per 1,000 messages"),
    ]
