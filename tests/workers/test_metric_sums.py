"""The metrics of several processes as those of one."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from router.metrics import Metrics
from router.workers.metric_sums import GAUGES, counts_of, summed


def whole() -> Metrics:
    """With each metric that there is."""
    metrics = Metrics()
    metrics.workers()
    metrics.key_set_age(lambda: 5.0)
    metrics.lines_dropped(lambda: 2)
    metrics.data_dir(lambda: 1000, lambda: False)
    metrics.firestore(lambda: {"gets": 3})
    metrics.answered('/a "quoted" path', 200, 0.3)
    metrics.connections(7)
    return metrics


def text(metrics: Metrics) -> str:
    return metrics.render().decode()


def samples(exposition: str, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name
    }


def test_one_process_is_its_own_sum() -> None:
    assert summed([text(whole())]) == text(whole())


def test_counts_are_added_and_of_gauges_the_worst_is_told() -> None:
    other = Metrics()
    other.data_dir(lambda: 10, lambda: True)
    other.answered('/a "quoted" path', 200, 0.002)
    other.answered("/b", 503, 0.1)
    other.connections(4)
    other.clock_ahead(-2.5)
    total = summed([text(whole()), "", text(other)])
    assert samples(total, "router_http_requests_total") == {('/a "quoted" path', "200"): 2, ("/b", "503"): 1}
    assert samples(total, "router_http_request_seconds_count") == {('/a "quoted" path',): 2, ("/b",): 1}
    buckets = samples(total, "router_http_request_seconds_bucket")
    assert {value for labels, value in buckets.items() if "0.0025" in labels} == {0, 1}
    for name, value in (
        ("router_connections", 11),
        ("router_clock_ahead_seconds", -2.5),
        ("router_data_dir_free_bytes", 10),
        ("router_data_dir_short", 1),
    ):
        assert samples(total, name) == {(): value}
    assert samples(total, "router_key_set_age_seconds") == {(): 5}


def test_every_gauge_says_what_several_of_it_are() -> None:
    found = {family.name for family in text_string_to_metric_families(text(whole())) if family.type == "gauge"}
    assert found == GAUGES.keys()


def test_what_has_ended_leaves_its_counts_and_no_gauge() -> None:
    left = counts_of(text(whole()))
    assert samples(left, "router_connections") == {}
    assert samples(summed([text(whole()), left]), "router_connections") == {(): 7}
    assert samples(summed([text(whole()), left]), "router_firestore_operations_total") == {("gets",): 6}
