"""Metrics of a process that has every metric there is."""

from __future__ import annotations

from router.messages import Census, QueueTotals
from router.metrics import Metrics


def every_metric() -> Metrics:
    metrics = Metrics()
    metrics.process("serve", "1.0")
    metrics.workers()
    metrics.depends("online", "redis", lambda: True)
    metrics.key_set_age(lambda: 5.0)
    metrics.lines_dropped(lambda: 2)
    metrics.data_dir(lambda: 1000, lambda: False)
    metrics.firestore(lambda: {"gets": 3})
    held = QueueTotals(messages=2, bytes=100, users=1, oldest_at=1_000_000)
    metrics.census(Census(4_000_000, held, held, QueueTotals(), QueueTotals(messages=3, users=2), 1))
    return metrics


def names(metrics: Metrics) -> set[str]:
    """As they are shown, but for the parts of histograms."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in metrics.registry.collect()}
