"""Floor and router under the same load, in turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from msgspec import Struct

from benchmarks.figures import Turn, median
from benchmarks.servers import Bench, Server

T = TypeVar("T")


class Pair(Struct, Generic[T]):
    """What the same turn gave on each."""

    floor: T
    router: T


class Pairs(Struct):
    """The turns of each, in their order."""

    floor: list[Turn]
    router: list[Turn]

    @property
    def ratios(self) -> list[float]:
        """The router's rate as a share of the floor's, pair by pair."""
        return [router.per_second / floor.per_second for router, floor in zip(self.router, self.floor, strict=True)]

    @property
    def rates(self) -> list[float]:
        """The router's."""
        return [turn.per_second for turn in self.router]

    @property
    def cpu(self) -> list[float]:
        """The router's CPU-seconds for 1,000 messages."""
        return [turn.cpu_per_1000 for turn in self.router]

    @property
    def note(self) -> str:
        return f"router {described(self.router)}; floor {described(self.floor)}"


def described(turns: list[Turn]) -> str:
    """The medians of a server's turns."""
    rate, cpu = median([turn.per_second for turn in turns]), median([turn.cpu_per_1000 for turn in turns])
    p50, p99 = median([turn.latencies.p50_ms for turn in turns]), median([turn.latencies.p99_ms for turn in turns])
    load = median([turn.load for turn in turns])
    return f"{rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {cpu:.2f} CPU-s per 1,000, load at {load:.0%} of a core"


async def in_turn(bench: Bench, turn: Callable[[Server], Awaitable[T]]) -> list[Pair[T]]:
    """``turn`` on a fresh floor, on a fresh router, and so on, ``bench.rounds`` times."""
    pairs = []
    for _ in range(bench.rounds):
        with bench.server("floor") as server:
            floor = await turn(server)
        with bench.server("router") as server:
            pairs.append(Pair(floor, await turn(server)))
    return pairs


def pairs_of(measured: list[Pair[T]], choose: Callable[[T], Turn]) -> Pairs:
    """One kind of turn out of what was measured."""
    return Pairs([choose(pair.floor) for pair in measured], [choose(pair.router) for pair in measured])
