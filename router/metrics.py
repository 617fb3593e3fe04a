"""All metrics of one process, on a registry of its own (docs/metrics.md)."""

from __future__ import annotations

import platform
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from router import ids
from router.clock import MICROSECONDS
from router.dead_reasons import DeadReason
from router.messages import Census, MigrationResult, Outcome, QueueTotals

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_AGES = (
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 3 * _HOUR,
    6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 4 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY,
)  # fmt: skip
"""Bounds of the histograms of how long mail waits for its recipient."""
_AGES_US = tuple(int(seconds * MICROSECONDS) for seconds in _AGES)
_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
Drop = Literal["ephemeral-expired", "ephemeral-migrated", "retention", "letter-age", "letter-bytes"]
Poke = Literal["heard", "repeat", "undeliverable", "unreadable", "left", "gone", "unsent"]
Cut = Literal[
    "silent",
    "slow-body",
    "slow-reader",
    "no-room",
    "crowded-out",
    "no-pong",
    "pipelining",
    "too-many-frames",
    "bad-frame",
]
DROPS: tuple[str, ...] = get_args(Drop)
POKES: tuple[str, ...] = get_args(Poke)
CUTS: tuple[str, ...] = get_args(Cut)
OUR_FAILURES = (500, 503)
"""The answers on which people are woken."""

# When a series was made is a series of its own otherwise, for each counter.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types


class Metrics:
    """What is counted, each with its reason. Spans are in seconds.

    Every value that a label can have is there from the start, with 0: ``increase()`` of a series that is born with 1
    is 0, and an alert on it misses the first event.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = _Answers()
        self.registry.register(self._answers)
        self._census = _Census()
        self.registry.register(self._census)
        self._accepted = self._kept("router_messages_accepted", "Messages answered 202")
        self._refusals = self._counter("router_requests_refused", "Requests refused", "reason")
        self._routed = self._kept("router_messages_routed", "Messages routed, by outcome", "outcome", Outcome)
        self._routing = self._histogram(
            "router_routing_seconds", "Time from acceptance to routing, of the oldest message of each batch"
        )
        self._dropped = self._kept("router_messages_dropped", "Messages dropped, by reason", "reason", DROPS)
        letters = "Messages that became dead letters, by reason"
        self._letters = self._kept("router_dead_letters", letters, "reason", DeadReason)
        self._pokes = self._kept("router_pokes", "Pokes, by result", "kind", POKES)
        self._pushed = self._kept("router_push_commands", "Push commands published")
        self._fetched = self._kept("router_messages_fetched", "Messages returned by fetches")
        self._acknowledged = self._kept("router_ids_acknowledged", "Ids in acknowledgements")
        self._fetched_after = _Ages("router_fetched_after_seconds", "Time from acceptance to a fetch")
        self._acknowledged_after = _Ages("router_acknowledged_after_seconds", "Time from acceptance to acknowledgement")
        self.registry.register(self._fetched_after)
        self.registry.register(self._acknowledged_after)
        self._migrations = self._kept("router_migrations", "Migrations, by result", "result", MigrationResult)
        self._moved = self._kept("router_messages_migrated", "Messages moved from hot to cold")
        self._connections = Gauge("router_connections", "Live WebSockets of this process", registry=self.registry)
        self._clock = Gauge(
            "router_clock_ahead_seconds",
            "How far this clock is ahead of that of the online store",
            registry=self.registry,
        )
        self._retention = Gauge(
            "router_retention_held",
            "1 while retention waits because it does not trust the clock",
            registry=self.registry,
        )
        self._closes = self._counter("router_connections_closed", "WebSockets closed by the server", "code", "clean")
        self._cuts = self._kept("router_clients_cut_off", "Clients disconnected, by reason", "reason", CUTS)
        self._failures = self._counter("router_dependency_failures", "Failed calls", "dependency", "kind")
        self._works = Gauge(
            "router_dependency_up",
            "1 while calls to it work, 0 in an outage",
            ("dependency", "kind"),
            registry=self.registry,
        )

    def _kept(self, name: str, help_text: str, label: str = "", values: Iterable[str] = ("",)) -> dict[str, int]:
        """A counter, by each of the ``values`` of its label: everything here happens on the event loop, so it needs no
        lock, and 0.1 µs of a core instead of 0.7."""
        counts = {str(value): 0 for value in values}
        self.registry.register(_Counts(name, help_text, lambda: counts, *filter(None, [label])))
        return counts

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, registry=self.registry, buckets=_LATENCY)

    def _begin(self, counter: Counter, values: Iterable[str]) -> None:
        for value in values:
            counter.labels(value)

    def refusals(self, reasons: Iterable[str]) -> None:
        """Requests may be refused for these ``reasons``."""
        self._begin(self._refusals, reasons)

    def serves(self, route: str, statuses: Iterable[int]) -> None:
        """``route`` is served here; it may answer with these ``statuses``."""
        self._answers.serve(route, statuses)

    def depends(self, dependency: str, kind: str, works: Callable[[], bool]) -> None:
        """This process depends on it. ``works``: asked whenever the metrics are."""
        self._failures.labels(dependency, kind)
        self._works.labels(dependency, kind).set_function(works)

    def closes(self, codes: Iterable[int]) -> None:
        """WebSockets may be closed with these ``codes``."""
        for code in codes:
            for clean in ("true", "false"):
                self._closes.labels(str(code), clean)

    def key_set_age(self, seconds: Callable[[], float]) -> None:
        """``seconds``: asked whenever the metrics are, since an identity service said last which keys it has."""
        Gauge(
            "router_key_set_age_seconds",
            "Seconds since the identity service last gave its keys",
            registry=self.registry,
        ).set_function(seconds)

    def lines_dropped(self, count: Callable[[], int]) -> None:
        """``count``: asked whenever the metrics are, for all lines of the log that were dropped since the start."""
        self.registry.register(
            _Counts("router_log_lines_dropped", "Log lines dropped because nobody read the log", lambda: {"": count()})
        )

    def data_dir(self, free: Callable[[], int], short: Callable[[], bool]) -> None:
        """``free``: the bytes free on the volume of the data directory; ``short``: whether sends are refused for it."""
        for name, help_text, value in (
            ("router_data_dir_free_bytes", "Free bytes on the volume of the data directory", free),
            ("router_data_dir_short", "1 while sends are refused for lack of free space", short),
        ):
            Gauge(name, help_text, registry=self.registry).set_function(value)

    def firestore(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """``counts``: asked whenever the metrics are, for all that was counted since the start, by what."""
        self.registry.register(
            _Counts("router_firestore_operations", "Firestore requests and documents", counts, "operation")
        )

    def process(self, service: str, version: str) -> None:
        """This process runs ``service`` of the router's ``version``: what it takes of the machine, and what it is."""
        ProcessCollector(registry=self.registry)
        python, system = platform.python_version(), f"{platform.system()} {platform.machine()}"
        build = Gauge(
            "router_build_info",
            "1; the labels say what runs",
            ("service", "version", "python", "sqlite", "platform"),
            registry=self.registry,
        )
        build.labels(service, version, python, sqlite3.sqlite_version, system).set(1)

    def workers(self) -> None:
        """This process starts workers and replaces them."""
        self._replaced = self._counter("router_workers_replaced", "Workers that ended and were replaced")

    def worker_replaced(self) -> None:
        self._replaced.inc()

    async def expose(self) -> bytes:
        return self.render()

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._answers.add(route, status, seconds)

    def accepted(self) -> None:
        self._accepted[""] += 1

    def refused(self, reason: str) -> None:
        self._refusals.labels(reason).inc()

    def routed(self, outcome: Outcome) -> None:
        self._routed[outcome] += 1

    def clock_ahead(self, seconds: float) -> None:
        """This process's clock is so far ahead of the online store's, or behind it where negative."""
        self._clock.set(seconds)

    def retention_held(self, *, held: bool) -> None:
        """Whether mail that seems to be long overdue is kept, since the clock may be wrong."""
        self._retention.set(held)

    def routing_took(self, seconds: float) -> None:
        self._routing.observe(max(0.0, seconds))

    def dropped(self, reason: Drop, count: int) -> None:
        self._dropped[reason] += count

    def dead_letter(self, reason: DeadReason) -> None:
        self._letters[reason] += 1

    def poked(self, kind: Poke, count: int) -> None:
        self._pokes[kind] += count

    def pushed(self, count: int) -> None:
        self._pushed[""] += count

    def fetched(self, accepted_at: Sequence[int], now: int) -> None:
        """Messages that were accepted at these times were returned at ``now`` (µs since 1970)."""
        self._fetched[""] += len(accepted_at)
        self._fetched_after.add(accepted_at, now)

    def acknowledged(self, message_ids: Sequence[str], now: int) -> None:
        """``message_ids`` were acknowledged at ``now`` (µs since 1970); some of them tell when they were accepted."""
        self._acknowledged[""] += len(message_ids)
        times = [at for message_id in message_ids if (at := ids.accepted_at(message_id)) is not None]
        self._acknowledged_after.add(times, now)

    def migration(self, result: MigrationResult) -> None:
        self._migrations[result] += 1

    def migrated(self, count: int) -> None:
        self._moved[""] += count

    def census(self, census: Census | None) -> None:
        """What all queues hold; ``None``: another process tells that, or nobody can."""
        self._census.census = census

    def connections(self, count: int) -> None:
        self._connections.set(count)

    def closed(self, code: int, *, clean: bool) -> None:
        self._closes.labels(str(code), str(clean).lower()).inc()

    def cut(self, reason: Cut) -> None:
        self._cuts[reason] += 1

    def dependency_failed(self, dependency: str, kind: str) -> None:
        self._failures.labels(dependency, kind).inc()


class _Answers(Collector):
    """Answers by route and status, and how long each route took. Two look-ups by labels and two locks would be 5 µs of
    each request."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, int], int] = {}
        self._by_latency: dict[str, list[int]] = {}
        """By route: how many took as long as each of ``_LATENCY``, and longer than the one before; then the others."""
        self._seconds: dict[str, float] = {}

    def serve(self, route: str, statuses: Iterable[int]) -> None:
        """``route`` is served, also where nobody asks for it."""
        self._by_latency.setdefault(route, [0] * (len(_LATENCY) + 1))
        self._seconds.setdefault(route, 0.0)
        for status in sorted({*statuses, *OUR_FAILURES}):
            self._answers.setdefault((route, status), 0)

    def add(self, route: str, status: int, seconds: float) -> None:
        if route not in self._seconds:
            self._by_latency[route], self._seconds[route] = [0] * (len(_LATENCY) + 1), 0.0
        self._answers[route, status] = self._answers.get((route, status), 0) + 1
        self._by_latency[route][bisect_left(_LATENCY, seconds)] += 1
        self._seconds[route] += seconds

    def collect(self) -> Iterator[Metric]:
        answers, seconds = self.describe()
        for (route, status), count in self._answers.items():
            answers.add_metric([route, str(status)], count)
        for route, counts in self._by_latency.items():
            bounds = [*map(str, map(float, _LATENCY)), "+Inf"]
            seconds.add_metric([route], list(zip(bounds, accumulate(counts), strict=True)), self._seconds[route])
        yield from (answers, seconds)

    def describe(self) -> tuple[CounterMetricFamily, HistogramMetricFamily]:
        return (
            CounterMetricFamily("router_http_requests", "HTTP answers", labels=("route", "status")),
            HistogramMetricFamily("router_http_request_seconds", "Time until the answer", labels=("route",)),
        )


class _Ages(Collector):
    """How long mail has waited, by ``_AGES``: 0.15 µs a message, a tenth of what the library's histogram takes."""

    def __init__(self, name: str, help_text: str) -> None:
        self._name = name
        self._help = help_text
        self._counts = [0] * (len(_AGES) + 1)
        self._microseconds = 0

    def add(self, since: Iterable[int], now: int) -> None:
        """Times in µs since 1970; one that is ahead of ``now``, by another machine's clock, counts as ``now``."""
        counts, waited = self._counts, 0
        for at in since:
            age = now - at if now > at else 0
            counts[bisect_left(_AGES_US, age)] += 1
            waited += age
        self._microseconds += waited

    def collect(self) -> Iterator[HistogramMetricFamily]:
        (family,) = self.describe()
        buckets = zip([*map(str, map(float, _AGES)), "+Inf"], accumulate(self._counts), strict=True)
        family.add_metric([], list(buckets), self._microseconds / MICROSECONDS)
        yield family

    def describe(self) -> Iterator[HistogramMetricFamily]:
        yield HistogramMetricFamily(self._name, self._help, labels=())


class _Census(Collector):
    """The last count of all queues, while this process is the one that counts."""

    def __init__(self) -> None:
        self.census: Census | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        held, size, oldest, users, connections, letters = families = self.describe()
        if (census := self.census) is not None:
            for queue, totals in (("ingress", census.ingress), ("hot", census.hot), ("cold", census.cold)):
                if totals is not None:
                    held.add_metric([queue], totals.messages)
                    size.add_metric([queue], totals.bytes)
                    oldest.add_metric([queue], _age_seconds(totals, census.at))
            users.add_metric([], census.online.users)
            connections.add_metric([], census.online.messages)
            if census.dead_letters is not None:
                letters.add_metric([], census.dead_letters)
        yield from families

    def describe(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily("router_queue_messages", "Messages in all queues of a kind", labels=("queue",)),
            GaugeMetricFamily("router_queue_bytes", "Bytes of their envelopes", labels=("queue",)),
            GaugeMetricFamily("router_queue_oldest_seconds", "Age of the oldest message", labels=("queue",)),
            GaugeMetricFamily("router_online_users", "Users with a live connection, of all nodes"),
            GaugeMetricFamily("router_online_connections", "Live connections of all nodes"),
            GaugeMetricFamily("router_dead_letters_kept", "Dead letters that wait for an operator"),
        ]


def _age_seconds(totals: QueueTotals, now: int) -> float:
    return max(0, now - totals.oldest_at) / MICROSECONDS if totals.messages else 0.0


class _Counts(Collector):
    """Counts that somebody else keeps."""

    def __init__(self, name: str, help_text: str, counts: Callable[[], Mapping[str, int]], *labels: str) -> None:
        self._name = name
        self._help = help_text
        self._counts = counts
        self._labels = labels

    def collect(self) -> Iterator[CounterMetricFamily]:
        (family,) = self.describe()
        for value, count in self._counts().items():
            family.add_metric([value] if self._labels else [], count)
        yield family

    def describe(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._help, labels=self._labels)
