"""A page from the head of a very long queue, and one from the head of a short queue."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from msgspec import Struct, field

from benchmarks.figures import Figure, at_most
from benchmarks.load import PAGE, Mailbox, Reader, mailboxes, settled
from benchmarks.load_http import Http, connections
from benchmarks.load_sockets import nothing, sockets
from benchmarks.servers import Bench, Server
from benchmarks.stock import stock
from router.bench.latencies import Latencies

NAME = "depth"
DEEP, SHALLOW = 100_000, 100
PAGES = 100
"""Of each depth: all of them from the head of one deep queue, and one from each of as many shallow queues."""
SPARED = 10
"""Pages before these, which warm up the server."""


class _Taken(Struct):
    get: Latencies = field(default_factory=Latencies)
    ack: Latencies = field(default_factory=Latencies)


async def run(bench: Bench) -> list[Figure]:
    """Deep and shallow by turns, one request at a time, from the hot queue and from the cold one."""
    rows: list[Figure] = []
    for tier in ("hot", "cold"):
        with bench.server("router") as server:
            rows += await _tier(server, tier, bench.count(DEEP))
    return rows


async def _tier(server: Server, tier: str, depth: int) -> list[Figure]:
    (deep,), shallow = mailboxes("deep", 1), mailboxes("shallow", SPARED + PAGES)
    async with contextlib.AsyncExitStack() as stack:
        if tier == "hot":
            online = [(server.token(box.user), nothing) for box in (deep, *shallow)]
            await stack.enter_async_context(sockets(server.port, online))
        async with stock(server.environment) as stocked:
            # The deepest that limits.queue_messages allows by default.
            await stocked.fill(deep, depth)
            for box in shallow:
                await stocked.fill(box, SHALLOW)
        await settled(server)
        of_deep, of_shallow = await _take(server, deep, shallow)
    what = f"a page of {PAGE}, {tier}, at depth {depth:,} against {SHALLOW}"
    return [
        _figure(f"GET {what}", of_deep.get, of_shallow.get),
        _figure(f"ack {what}", of_deep.ack, of_shallow.ack),
    ]


def _figure(what: str, deep: Latencies, shallow: Latencies) -> Figure:
    note = f"p50 {deep.p50_ms:.2f} ms against {shallow.p50_ms:.2f} ms"
    return Figure(NAME, what, [deep.p50_ms / shallow.p50_ms], "times", at_most(1.3), note)


async def _take(server: Server, deep: Mailbox, shallow: Sequence[Mailbox]) -> tuple[_Taken, _Taken]:
    of_deep, of_shallow = _Taken(), _Taken()
    async with connections(server.port, 1) as (connection,):
        for number, box in enumerate(shallow):
            first, second = (of_deep, of_shallow) if number >= SPARED else (_Taken(), _Taken())
            await _page(connection, server.token(deep.user), deep, first)
            await _page(connection, server.token(box.user), box, second)
    return of_deep, of_shallow


async def _page(connection: Http, token: str, box: Mailbox, taken: _Taken) -> None:
    reader = Reader(connection, token, box)
    started = time.perf_counter()
    messages = await reader.fetch()
    fetched = time.perf_counter()
    reader.keep(messages)
    kept = time.perf_counter()
    await reader.acknowledge(messages)
    taken.get.add(fetched - started)
    taken.ack.add(time.perf_counter() - kept)
