"""What the metrics of several processes and the queues say together, at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from router import proxies
from router.books import Books
from router.errors import Unavailable
from router.interfaces import ColdQueue, OnlineStore
from router.messages import Outcome

TIMEOUT_SECONDS = 5.0
ENTERED = (Outcome.HOT, Outcome.COLD)
DROPPED = (Outcome.DROPPED_OFFLINE, Outcome.DROPPED_EXPIRED)
REFUSED = (Outcome.QUEUE_FULL, Outcome.QUEUE_BYTES_FULL, Outcome.INBOUND_EXHAUSTED)
Series = Mapping[tuple[str, str], float]
"""By name and the one label that counts here: the sum over all processes."""


class Counted(Struct, frozen=True):
    """All counters of all processes, and what the queues hold."""

    series: dict[tuple[str, str], float]
    starts: dict[str, float]
    """By URL: when the process started."""
    queued: int
    in_flight: int

    def restarted(self, before: Counted) -> bool:
        """Whether a process was started since, whose counters began again at 0."""
        return self.starts != before.starts

    def since(self, before: Counted) -> Books:
        """What has happened since."""

        def more(name: str, *labels: str) -> int:
            return round(sum(self.series.get((name, of), 0) - before.series.get((name, of), 0) for of in labels))

        return Books(
            accepted=more("router_messages_routed_total", *ENTERED, *DROPPED, *REFUSED),
            acknowledged=more("router_ids_acknowledged_total", ""),
            queued=self.queued - before.queued,
            expired=more("router_messages_dropped_total", "retention"),
            dropped=more("router_messages_routed_total", *DROPPED)
            + more("router_messages_dropped_total", "ephemeral-expired", "ephemeral-migrated"),
            dead=more("router_messages_routed_total", *REFUSED) + more("router_dead_letters_total", "damaged"),
        )


class Counters:
    """Reads the admin ports ``urls`` and the queues."""

    def __init__(self, online: OnlineStore, cold: ColdQueue, urls: Sequence[str]) -> None:
        self._online = online
        self._cold = cold
        self._urls = urls

    async def read(self) -> Counted:
        """Raises ``Unavailable``."""
        before, _ = await self._metrics()
        hot, cold = await self._online.totals(None), await self._cold.totals(None)
        series, starts = await self._metrics()
        moved = sum(series[key] - before.get(key, 0) for key in series)
        return Counted(series, starts, hot.messages + cold.messages, round(moved))

    async def _metrics(self) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
        series: dict[tuple[str, str], float] = {}
        starts: dict[str, float] = {}
        async with proxies.client(timeout=TIMEOUT_SECONDS) as client:
            for url in self._urls:
                for name, label, value in _samples(await _text(client, url)):
                    if name == "process_start_time_seconds":
                        starts[url] = value
                    else:
                        series[name, label] = series.get((name, label), 0) + value
        return series, starts


async def _text(client: httpx.AsyncClient, url: str) -> str:
    where = f"{url.rstrip('/')}/metrics"
    try:
        answer = await client.get(where)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(
            f"{where} gives no metrics ({error}): name the admin port of each process with --admin"
        ) from error
    return answer.text


COUNTED = {
    "router_messages_routed_total": "outcome",
    "router_messages_dropped_total": "reason",
    "router_dead_letters_total": "reason",
    "router_ids_acknowledged_total": "",
    "process_start_time_seconds": "",
}
"""The series that count, and the label of each."""


def _samples(text: str) -> list[tuple[str, str, float]]:
    return [
        (sample.name, sample.labels.get(COUNTED[sample.name], ""), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in COUNTED
    ]
