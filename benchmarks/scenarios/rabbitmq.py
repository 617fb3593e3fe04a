"""The router beside RabbitMQ, which the load drives by RabbitMQ's own client, over standing connections."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.figures import WRITTEN, Figure, Turn, at_least, median
from benchmarks.load import Bound, Crowd, Mailbox, Writer, cost, crowd, drain_by_next, mailboxes, send_all, senders
from benchmarks.load import warm_up as warmed_up
from benchmarks.rabbitmq import Broker, broker, needed
from benchmarks.scenarios import draining
from benchmarks.scenarios.end_to_end import MOST, conversation
from benchmarks.scenarios.pairs import described
from benchmarks.scenarios.poking import OFFERED, Offered
from benchmarks.servers import Bench, Measured, Server
from tests.support.servers import MissingServer

NAME = "rabbitmq"
ONLINE, SENDERS, WORKERS = 100, 32, 2
SECONDS = 3.0
PAGE = 500


class Side(Protocol):
    """One of the two, under the load."""

    @property
    def measured(self) -> Measured: ...

    async def prepare(self, boxes: Sequence[Mailbox], /) -> None:
        """Make the queues of ``boxes``, where that is to be done."""

    def senders(self) -> AbstractAsyncContextManager[Sequence[Writer]]: ...

    def crowd(self, boxes: Sequence[Mailbox], /) -> AbstractAsyncContextManager[Crowd]: ...

    async def drained_per_second(self, box: Mailbox, count: int, /) -> float: ...

    async def check(self, boxes: Sequence[Mailbox], /) -> None:
        """Raise ``LoadError`` unless all that was accepted is held, once, and nothing is left."""


class Router:
    def __init__(self, server: Server) -> None:
        self.measured = server

    async def prepare(self, boxes: Sequence[Mailbox], /) -> None:
        pass

    def senders(self) -> AbstractAsyncContextManager[Sequence[Writer]]:
        return senders(self.measured, SENDERS)

    def crowd(self, boxes: Sequence[Mailbox], /) -> AbstractAsyncContextManager[Crowd]:
        return crowd(self.measured, boxes)

    async def drained_per_second(self, box: Mailbox, count: int, /) -> float:
        return await draining.drained_per_second(self.measured, box, PAGE, count, drain_by_next)

    async def check(self, boxes: Sequence[Mailbox], /) -> None:
        for box in boxes:
            box.check()


class RabbitMq:
    def __init__(self, measured: Broker) -> None:
        from benchmarks import load_amqp  # noqa: PLC0415 - its client may be missing

        self.measured = measured
        self._load = load_amqp

    async def prepare(self, boxes: Sequence[Mailbox], /) -> None:
        await self._load.declare(self.measured.port, boxes)

    def senders(self) -> AbstractAsyncContextManager[Sequence[Writer]]:
        return self._load.amqp_senders(self.measured.port, SENDERS)

    def crowd(self, boxes: Sequence[Mailbox], /) -> AbstractAsyncContextManager[Crowd]:
        return self._load.amqp_crowd(self.measured.port, boxes)

    async def drained_per_second(self, box: Mailbox, count: int, /) -> float:
        return await self._load.drained_per_second(self.measured.port, box, count, PAGE)

    async def check(self, boxes: Sequence[Mailbox], /) -> None:
        await self._load.check(self.measured.port, boxes)


class Turns(Struct):
    """All three loads on one side."""

    busy: Turn
    """As fast as it goes."""
    quiet: Turn
    """At ``OFFERED`` a second; the latencies are from the send until its recipient held it."""
    accept: Turn
    """For one person offline."""
    drained: float
    """Of that, messages a second."""


class Round(Struct):
    router: Turns
    rabbitmq: Turns
    workers: Turn
    """``Turns.busy`` of a router of ``WORKERS`` processes."""

    def ratio(self, choose: Callable[[Turns], float]) -> float:
        """What the router has of RabbitMQ's."""
        return choose(self.router) / choose(self.rabbitmq)


async def run(bench: Bench) -> list[Figure]:
    """By turns, each on a new data directory; no rows where RabbitMQ or its client is not installed."""
    try:
        program = needed()
    except MissingServer as missing:
        sys.stderr.write(f"{NAME} is left out, since {missing}\n")
        return []
    rounds, release = [], ""
    for _ in range(bench.rounds):
        with bench.server("router") as server:
            router = await turns(bench, Router(server))
        with broker(program, bench.directory) as running:
            rabbitmq, release = await turns(bench, RabbitMq(running)), running.release
        with bench.server("router", {"ROUTER_SERVER__WORKERS": str(WORKERS)}) as server:
            workers = await _busy_alone(bench, Router(server))
        rounds.append(Round(router, rabbitmq, workers))
    return rows(rounds, release)


async def turns(bench: Bench, side: Side) -> Turns:
    """The load, on a server that has just started."""
    box, count = mailboxes("away", 1)[0], bench.count(draining.MESSAGES)
    async with side.senders() as writers:
        await _warm_up(side, writers)
        busy, quiet = await _busy(bench, side, writers), await _quiet(bench, side, writers)
        await side.prepare([box])
        accept = await cost(side.measured, send_all(writers, [box], Bound(count, draining.FOREVER)))
    drained = await side.drained_per_second(box, count)
    await side.check([box])
    return Turns(busy, quiet, accept, drained)


async def _busy_alone(bench: Bench, side: Side) -> Turn:
    async with side.senders() as writers:
        await _warm_up(side, writers)
        return await _busy(bench, side, writers)


async def _warm_up(side: Side, writers: Sequence[Writer]) -> None:
    await side.prepare(mailboxes(NAME, len(writers)))
    await warmed_up(side.measured, writers, NAME)


async def _busy(bench: Bench, side: Side, writers: Sequence[Writer]) -> Turn:
    boxes = mailboxes("busy", ONLINE)
    await side.prepare(boxes)
    async with side.crowd(boxes) as people:
        bound = Bound(bench.count(MOST), SECONDS / (3 if bench.quick else 1))
        measured = await cost(side.measured, conversation(people, writers, boxes, bound))
    await side.check(boxes)
    return measured


async def _quiet(bench: Bench, side: Side, writers: Sequence[Writer]) -> Turn:
    boxes = mailboxes("quiet", ONLINE)
    await side.prepare(boxes)
    async with side.crowd(boxes) as people:
        offered = Offered(people, writers, boxes, bench.count(round(OFFERED * SECONDS)))
        measured = await cost(side.measured, offered.run())
    await side.check(boxes)
    return replace(measured, latencies=people.waits.held)


def rows(rounds: Sequence[Round], release: str) -> list[Figure]:
    """What the router has of RabbitMQ's, pair by pair."""
    router, rabbitmq = [each.router for each in rounds], [each.rabbitmq for each in rounds]

    def both(choose: Callable[[Turns], Turn]) -> str:
        ours, theirs = [choose(turns) for turns in router], [choose(turns) for turns in rabbitmq]
        return f"router {described(ours)}; RabbitMQ {described(theirs)}"

    def row(what: str, choose: Callable[[Turns], float], note: str = "") -> Figure:
        return Figure(NAME, what, [each.ratio(choose) for each in rounds], "of RabbitMQ", None, note)

    busy = f"beside RabbitMQ: end to end, {ONLINE} online, {SENDERS} senders"
    quiet = f"beside RabbitMQ: at {OFFERED}/s offered, {ONLINE} online"
    several = [each.workers.per_second / each.rabbitmq.busy.per_second for each in rounds]
    drained = [median([turns.drained for turns in side]) for side in (router, rabbitmq)]
    return [
        row(f"{busy}, rate", lambda turns: turns.busy.per_second, both(lambda turns: turns.busy)),
        row(f"{busy}, cost", lambda turns: turns.busy.cpu_per_1000, f"{release}, all threads of its Erlang machine"),
        Figure(
            NAME,
            f"{busy}, {WORKERS} workers, rate",
            several,
            "of RabbitMQ",
            at_least(1.0),
            f"router {described([each.workers for each in rounds])}",
        ),
        row(f"{quiet}, cost", lambda turns: turns.quiet.cpu_per_1000, both(lambda turns: turns.quiet)),
        row(f"{quiet}, written", lambda turns: turns.quiet.written, WRITTEN),
        row(f"{quiet}, send→received p50", lambda turns: turns.quiet.latencies.p50_ms),
        row(f"{quiet}, send→received p99", lambda turns: turns.quiet.latencies.p99_ms),
        row(
            "beside RabbitMQ: stored offline, accepted",
            lambda turns: turns.accept.per_second,
            both(lambda turns: turns.accept),
        ),
        row(
            "beside RabbitMQ: stored offline, then drained",
            lambda turns: turns.drained,
            f"router {drained[0]:,.0f}/s; RabbitMQ {drained[1]:,.0f}/s; all messages of both arrived, once, in order",
        ),
    ]
