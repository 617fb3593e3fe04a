"""Accept, notify, fetch, acknowledge: people online who are written to."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.figures import Figure, Turn, at_least, at_most
from benchmarks.load import Bound, Crowd, Mailbox, Sent, Writer, cost, crowd, mailboxes, send_all, senders, warm_up
from benchmarks.scenarios.pairs import in_turn, pairs_of
from benchmarks.servers import Bench, Server

NAME = "end-to-end"
ONLINE, SENDERS = 100, 32
SECONDS = 5.0
MOST = 200_000


def turns(bench: Bench, checked: list[int]) -> Callable[[Server], Awaitable[Turn]]:
    """What is measured of one server; how many messages arrived is added to ``checked``."""
    bound = Bound(bench.count(MOST), SECONDS / (3 if bench.quick else 1))

    async def turn(server: Server) -> Turn:
        boxes = mailboxes("online", ONLINE)
        async with crowd(server, boxes) as people, senders(server, SENDERS) as writers:
            await warm_up(server, writers)
            measured = await cost(server, conversation(people, writers, boxes, bound))
        for box in boxes:
            box.check()
        checked.append(people.acknowledged)
        return measured

    return turn


async def run(bench: Bench) -> list[Figure]:
    """A message counts when its recipient has fetched, kept and acknowledged it."""
    checked: list[int] = []
    pairs = pairs_of(await in_turn(bench, turns(bench, checked)), lambda measured: measured)
    what = f"end to end, {ONLINE} online, {SENDERS} senders"
    verified = f"all {sum(checked):,} messages of both arrived, once, in order for each sender and recipient"
    return [
        Figure(NAME, what, pairs.ratios, "of the floor", at_least(0.8), pairs.note),
        Figure(NAME, f"{what}: rate", pairs.rates, "/s", at_least(4300), verified),
        Figure(NAME, f"{what}: cost", pairs.cpu, "CPU-s per 1,000", at_most(0.22)),
    ]


async def conversation(people: Crowd, writers: Sequence[Writer], boxes: Sequence[Mailbox], bound: Bound) -> Sent:
    """The rate is of acknowledged messages, from the first send to the last acknowledgement."""
    started = time.perf_counter()
    sent = await send_all(writers, boxes, bound)
    await people.finish(sent.count)
    return Sent(sent.count, time.perf_counter() - started, people.waits.held)
