"""All cores of one machine: the same load on one process and on two workers."""

from __future__ import annotations

from benchmarks.figures import Figure, Turn, at_least
from benchmarks.scenarios import end_to_end
from benchmarks.scenarios.pairs import described
from benchmarks.servers import Bench

NAME = "workers"
WORKERS = 2


async def run(bench: Bench) -> list[Figure]:
    """In turn, with the load beside them on the same cores."""
    checked, one, several = list[int](), list[Turn](), list[Turn]()
    turn = end_to_end.turns(bench, checked)
    for _ in range(bench.rounds):
        with bench.server("router") as server:
            one.append(await turn(server))
        with bench.server("router", {"ROUTER_SERVER__WORKERS": str(WORKERS)}) as server:
            several.append(await turn(server))
    what = f"end to end, {end_to_end.ONLINE} online, {end_to_end.SENDERS} senders, {WORKERS} workers"
    ratios = [more.per_second / single.per_second for single, more in zip(one, several, strict=True)]
    note = f"{WORKERS} workers {described(several)}; one process {described(one)}"
    verified = f"all {sum(checked):,} messages of both arrived, once, in order for each sender and recipient"
    return [
        Figure(NAME, what, ratios, "of one process", at_least(1.25), note),
        Figure(NAME, f"{what}: rate", [turn.per_second for turn in several], "/s", None, verified),
    ]
