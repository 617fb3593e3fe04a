"""The metrics of several processes as those of one."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from router.metrics import Metrics
from router.workers.metric_sums import GAUGES, counts_of, summed
from tests.support.every_metric import every_metric


def whole() -> Metrics:
    metrics = every_metric()
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
    metrics = whole()
    shown = text(metrics)
    assert summed([shown]) == shown


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


def test_the_census_is_that_of_the_one_that_counts_and_what_processes_take_is_added() -> None:
    """Two count for a moment while the lead goes over: both mean the same queues."""
    counting, other = whole(), Metrics()
    other.process("serve", "1.0")
    total = summed([text(counting), text(other), text(counting)])
    assert samples(total, "router_queue_messages") == {("ingress",): 2, ("hot",): 2, ("cold",): 0}
    assert samples(total, "router_queue_oldest_seconds")["hot",] == 3
    assert samples(total, "router_online_users") == {(): 2}
    (build,) = samples(total, "router_build_info").values()
    assert build == 1
    (taken,) = samples(text(other), "process_open_fds").values()
    assert samples(total, "process_open_fds")[()] >= 3 * taken - 3


def test_every_gauge_says_what_several_of_it_are() -> None:
    found = {family.name for family in text_string_to_metric_families(text(whole())) if family.type == "gauge"}
    assert found == GAUGES.keys()


def test_a_gauge_of_another_version_breaks_nothing() -> None:
    later = "# HELP router_later New.\n# TYPE router_later gauge\nrouter_later 3\n"
    assert samples(summed([text(whole()), later]), "router_later") == {(): 3}


def test_what_has_ended_leaves_its_counts_and_no_gauge() -> None:
    left = counts_of(text(whole()))
    assert samples(left, "router_connections") == {}
    assert samples(summed([text(whole()), left]), "router_connections") == {(): 7}
    assert samples(summed([text(whole()), left]), "router_firestore_operations_total") == {("gets",): 6}
