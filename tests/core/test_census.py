"""One process counts for all, and none tells an old count."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from router.core.census import LOCAL_SECONDS, SHARE, CensusTaker
from router.errors import Unavailable
from router.interfaces import ColdQueue, IngressProducer, OnlineStore
from router.messages import QueueTotals
from router.metrics import Metrics
from tests.contract.stage import until
from tests.support.clock import ManualClock

pytestmark = pytest.mark.anyio


class Stores:
    """All that is counted, as a test has it; a count takes ``seconds``."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.leader = "a"
        self.works = True
        self.seconds = 0.0
        self.backlogged: QueueTotals | None = QueueTotals()
        self.counts = 0

    async def lead(self, owner: str) -> bool:
        return owner == self.leader

    async def backlog(self) -> QueueTotals | None:
        return self.backlogged

    async def online(self) -> QueueTotals:
        return QueueTotals(messages=3, users=2)

    async def totals(self, user: str | None) -> QueueTotals:
        assert user is None
        if not self.works:
            raise Unavailable("simulated")
        self._clock.advance(self.seconds)
        self.counts += 1
        return QueueTotals(5, 700, 2, self._clock.now() - 90_000_000)


def taker(stores: Stores, clock: ManualClock, metrics: Metrics, owner: str = "a") -> CensusTaker:
    return CensusTaker(
        cast(IngressProducer, stores),
        cast(OnlineStore, stores),
        cast(ColdQueue, stores),
        None,
        owner=owner,
        local=True,
        clock=clock,
        metrics=metrics,
    )


def held(metrics: Metrics, queue: str = "hot") -> float | None:
    return metrics.registry.get_sample_value("router_queue_messages", {"queue": queue})


async def test_who_leads_counts_and_who_leads_no_more_tells_nothing() -> None:
    clock, metrics = ManualClock(), Metrics()
    stores = Stores(clock)
    first = taker(stores, clock, metrics)
    await first.take()
    assert held(metrics) == held(metrics, "cold") == 5
    assert metrics.registry.get_sample_value("router_queue_oldest_seconds", {"queue": "cold"}) == 90
    assert metrics.registry.get_sample_value("router_online_users") == 2
    assert metrics.registry.get_sample_value("router_online_connections") == 3
    assert metrics.registry.get_sample_value("router_dead_letters_kept") is None
    stores.leader = "b"
    await first.take()
    assert held(metrics) is None


async def test_a_count_that_fails_leaves_no_old_one() -> None:
    clock, metrics = ManualClock(), Metrics()
    stores = Stores(clock)
    counting = taker(stores, clock, metrics)
    await counting.take()
    stores.works = False
    await counting.take()
    assert held(metrics) is None


async def test_a_topic_that_cannot_say_is_left_out() -> None:
    clock, metrics = ManualClock(), Metrics()
    stores = Stores(clock)
    stores.backlogged = None
    await taker(stores, clock, metrics).take()
    assert held(metrics, "ingress") is None
    assert held(metrics, "cold") == 5


async def test_counting_takes_a_small_part_of_the_time() -> None:
    clock, metrics = ManualClock(), Metrics()
    stores = Stores(clock)
    running = asyncio.create_task(taker(stores, clock, metrics).run())
    await until(lambda: stores.counts == 2 and clock.sleepers > 0)
    stores.seconds = 2.0
    clock.advance(LOCAL_SECONDS)
    await until(lambda: stores.counts == 4 and clock.sleepers > 0)
    clock.advance(4 * SHARE - 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert stores.counts == 4
    clock.advance(1)
    await until(lambda: stores.counts == 6)
    running.cancel()
    await asyncio.wait([running])
