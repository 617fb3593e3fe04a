"""What a service tells of itself, in few numbers: for ``router top`` and for the page of the admin port.

It is read from the metrics, so that there is one count of everything, and names no user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from router.core.readiness import Failed, State

COUNTED = {
    "accepted": "router_messages_accepted_total",
    "routed": "router_messages_routed_total",
    "fetched": "router_messages_fetched_total",
    "acknowledged": "router_ids_acknowledged_total",
    "pushed": "router_push_commands_total",
    "refused": "router_requests_refused_total",
}
"""By what it counts: a counter, whose series are added up."""
QUEUES = ("ingress", "hot", "cold")
SERVER_ERROR = "5"


class QueueStatus(Struct, frozen=True):
    """All queues of a kind together."""

    messages: int
    bytes: int
    oldest_seconds: float
    """Age of the oldest message when they were counted."""


class Counts(Struct, frozen=True):
    """What was counted since the start, or of rates: how much of it in a second."""

    accepted: float = 0
    """Messages answered 202."""
    routed: float = 0
    fetched: float = 0
    """Messages returned by fetches."""
    acknowledged: float = 0
    pushed: float = 0
    """Push commands."""
    refused: float = 0
    """Requests, and messages of batches, that were refused."""
    errors: float = 0
    """Answers with a status of 500 or more."""


class Status(Struct, frozen=True):
    """One service, or several as one."""

    services: list[str]
    """Which of ``serve``, ``serve-api``, ``serve-ws`` and ``process``, each with its version."""
    started_at: float
    """When the first of them was started, in seconds since 1970."""
    ready: bool
    draining: bool
    failed: list[Failed]
    """Dependencies that do not work, by the probes of readiness and by the calls of the services."""
    limited: list[str]
    """What is not served now."""
    counts: Counts
    connections: int
    """WebSockets of these services."""
    online_users: int | None
    """Users with a connection to any node; null while no process counts."""
    online_connections: int | None
    queues: dict[str, QueueStatus]
    """``ingress``, ``hot`` and ``cold``, as far as they are counted."""
    dead_letters: int | None
    """Those that are kept; null where they go to a topic, and while no process counts."""


def status(exposition: str, state: State) -> Status:
    """``exposition``: the metrics, in the text exposition format."""
    found = _Series(exposition)
    failed = list(state.failed)
    failed += [down for down in found.outages() if down not in failed]
    return Status(
        services=sorted(found.services()),
        started_at=found.value("process_start_time_seconds") or 0.0,
        ready=state.is_ready,
        draining=state.draining,
        failed=failed,
        limited=list(state.limited),
        counts=Counts(**{what: found.total(name) for what, name in COUNTED.items()}, errors=found.errors()),
        connections=int(found.value("router_connections") or 0),
        online_users=found.whole("router_online_users"),
        online_connections=found.whole("router_online_connections"),
        queues={name: queue for name in QUEUES if (queue := found.queue(name)) is not None},
        dead_letters=found.whole("router_dead_letters_kept"),
    )


def rates(before: Counts, after: Counts, seconds: float) -> Counts:
    """What was counted in a second between two looks. A service that was started again counts from 0."""
    grown = {name: getattr(after, name) - getattr(before, name) for name in Counts.__struct_fields__}
    return Counts(**{name: (more if more >= 0 else getattr(after, name)) / seconds for name, more in grown.items()})


class _Series:
    """The values of an exposition, by name and labels."""

    def __init__(self, exposition: str) -> None:
        self._series: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(exposition):
            for sample in family.samples:
                self._series.setdefault(sample.name, []).append((sample.labels, sample.value))

    def _of(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        return self._series.get(name, ())

    def value(self, name: str, **labels: str) -> float | None:
        return next((value for found, value in self._of(name) if found == labels), None)

    def whole(self, name: str, **labels: str) -> int | None:
        value = self.value(name, **labels)
        return None if value is None else int(value)

    def total(self, name: str) -> float:
        return sum(value for _, value in self._of(name))

    def errors(self) -> float:
        answers = self._of("router_http_requests_total")
        return sum(value for labels, value in answers if labels["status"].startswith(SERVER_ERROR))

    def queue(self, name: str) -> QueueStatus | None:
        messages = self.whole("router_queue_messages", queue=name)
        if messages is None:
            return None
        size, oldest = (
            self.whole("router_queue_bytes", queue=name),
            self.value("router_queue_oldest_seconds", queue=name),
        )
        return QueueStatus(messages, size or 0, oldest or 0.0)

    def services(self) -> Iterable[str]:
        return {f"{labels['service']} {labels['version']}" for labels, _ in self._of("router_build_info")}

    def outages(self) -> list[Failed]:
        return [dict(labels) for labels, up in self._of("router_dependency_up") if not up]
