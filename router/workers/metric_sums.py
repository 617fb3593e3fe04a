"""Adds up the metrics of several processes, in the text exposition format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.utils import floatToGoString

Values = Sequence[float]


def _furthest(values: Values) -> float:
    """From 0, on either side."""
    return max(values, key=abs)


GAUGES: dict[str, Callable[[Values], float]] = {
    "router_connections": sum,
    "router_dependency_up": min,
    "router_queue_messages": max,
    "router_queue_bytes": max,
    "router_queue_oldest_seconds": max,
    "router_online_users": max,
    "router_online_connections": max,
    "router_dead_letters_kept": max,
    "router_build_info": max,
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_start_time_seconds": min,
    "process_open_fds": sum,
    "process_max_fds": sum,
    "router_clock_ahead_seconds": _furthest,
    "router_retention_held": max,
    "router_key_set_age_seconds": max,
    "router_data_dir_free_bytes": min,
    "router_data_dir_short": max,
}
"""What the gauges of several processes are together: all of them, or the one that is worst. Of the queues, only the
process that leads tells anything."""


class _Family:
    """A metric, and of each series what each process says."""

    def __init__(self, head: list[str]) -> None:
        self.head = head
        self.series: dict[str, list[float]] = {}

    @property
    def name(self) -> str:
        return self.head[-1].split()[2]

    @property
    def is_gauge(self) -> bool:
        return self.head[-1].endswith(" gauge")

    def lines(self) -> Iterable[str]:
        # ``router top`` may ask a service of another version, which has gauges that this one does not know.
        total = GAUGES.get(self.name, max) if self.is_gauge else sum
        yield from self.head
        for series, values in self.series.items():
            yield f"{series} {_shown(total(values))}"


def summed(expositions: Iterable[str]) -> str:
    """One exposition for several."""
    return _text(_families(expositions).values())


def counts_of(exposition: str) -> str:
    """``exposition`` without its gauges, which end with their process; what it has counted remains true."""
    return _text(family for family in _families([exposition]).values() if not family.is_gauge)


def _shown(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]  # it has no types


def _families(expositions: Iterable[str]) -> dict[str, _Family]:
    found: dict[str, _Family] = {}
    for exposition in expositions:
        head: list[str] = []
        for line in exposition.splitlines():
            if line.startswith("# HELP"):
                head = [line]
            elif line.startswith("#"):
                head.append(line)
                family = found.setdefault(line.split()[2], _Family(head))
            else:
                series, _, value = line.rpartition(" ")
                family.series.setdefault(series, []).append(float(value))
    return found


def _text(families: Iterable[_Family]) -> str:
    return "".join(f"{line}\n" for family in families for line in family.lines())
