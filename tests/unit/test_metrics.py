"""An alert on ``increase()`` sees the first event only where its series was there before, with 0."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from router.core import connections
from router.core.readiness import Readiness
from router.dead_reasons import DeadReason
from router.messages import MigrationResult, Outcome
from router.metrics import CUTS, DROPS, POKES, Metrics
from router.web import openapi
from router.web.application import Application
from router.web.context import EdgeContext
from router.web.health import Health
from tests.support.clock import ManualClock

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


@pytest.fixture(scope="module")
def series() -> dict[str, dict[tuple[str, ...], float]]:
    """By the name of each labelled counter: the values of its labels, and its own, before anything has happened."""
    metrics = Metrics()
    context = EdgeContext([], metrics)
    Application(Health(Readiness(ManualClock()), metrics).admin_routes(), context, lambda: 0.0)
    metrics.depends("online", "redis", lambda: True)
    metrics.closes(connections.CLOSE_CODES)
    metrics.firestore(lambda: dict.fromkeys(("gets", "queries"), 0))
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.type == "counter":
            found[family.name] = {
                tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in family.samples
            }
    return found


def test_every_counter_has_its_series_from_the_start(series: dict[str, dict[tuple[str, ...], float]]) -> None:
    assert [name for name, values in series.items() if not values] == []
    assert {value for values in series.values() for value in values.values()} == {0.0}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("router_dead_letters", list(DeadReason)),
        ("router_messages_routed", list(Outcome)),
        ("router_migrations", list(MigrationResult)),
        ("router_messages_dropped", DROPS),
        ("router_pokes", POKES),
        ("router_clients_cut_off", CUTS),
    ],
)
def test_every_value_of_a_label_has_its_series_and_its_word_in_the_docs(
    series: dict[str, dict[tuple[str, ...], float]], name: str, values: list[str]
) -> None:
    assert set(series[name]) == {(value,) for value in values}
    (row,) = re.findall(rf"^\| `{name}_total` .*$", PAGE, re.MULTILINE)
    assert [value for value in values if f"`{value}`" not in row] == []


def test_every_code_that_a_socket_is_closed_with_has_its_series(
    series: dict[str, dict[tuple[str, ...], float]],
) -> None:
    used = re.findall(r"self\._close\(held, ([A-Z_]+),", Path(connections.__file__).read_text())
    codes = {str(getattr(connections, name)) for name in used}
    assert codes
    assert set(series["router_connections_closed"]) == {(clean, code) for code in codes for clean in ("true", "false")}
    assert [code for code in codes if f"`{code}`" not in PAGE] == []


def test_refusals_and_our_own_failures_have_their_series(series: dict[str, dict[tuple[str, ...], float]]) -> None:
    assert set(series["router_http_requests"]) >= {("/readyz", "500"), ("/readyz", "503")}
    refused = series["router_requests_refused"]
    assert refused.keys() >= {("missing",), ("expired",), ("rate-limited",), ("unavailable",), ("malformed-request",)}
    assert [reason for (reason,) in refused if f"`{reason}`" not in PAGE] == []


def test_a_route_has_its_time_from_the_start() -> None:
    metrics = Metrics()
    Application([Route("/healthz", lambda _: None)], EdgeContext([], metrics), lambda: 0.0)
    assert metrics.registry.get_sample_value("router_http_request_seconds_count", {"route": "/healthz"}) == 0


def test_a_route_has_each_status_that_it_is_described_with() -> None:
    metrics = Metrics()
    metrics.serves("/api/send", openapi.statuses("/api/send"))
    for status in (202, 400, 401, 429, 500, 503):
        labels = {"route": "/api/send", "status": str(status)}
        assert metrics.registry.get_sample_value("router_http_requests_total", labels) == 0


def test_a_process_says_what_it_is_and_what_it_takes() -> None:
    metrics = Metrics()
    metrics.process("serve-ws", "1.2.3")
    found = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    (build,) = found["router_build_info"].samples
    assert build.value == 1
    said = {"service": "serve-ws", "version": "1.2.3", "python": platform.python_version()}
    assert build.labels.items() >= said.items()
    assert found["process_resident_memory_bytes"].samples[0].value > 0
    assert found["process_cpu_seconds"].samples[0].value > 0


def test_no_line_says_when_a_series_was_made() -> None:
    assert b"_created" not in Metrics().render()
