"""When traces are asked for, and what is said where they cannot be made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from router import tracing
from router.config import load_with_origins
from router.doctor.settings import traces
from router.findings import Severity
from router.trace_context import STATE_BYTES, kept, parted
from tests.support.recorded_spans import TRACEPARENT

ENDPOINT = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "router", "OTEL_TRACES_SAMPLER": "always_on"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ENDPOINT}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_SDK_DISABLED": "True"}, None),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ENDPOINT}, None),
    ],
)
def test_traces_are_made_only_where_a_variable_asks_for_them(environ: dict[str, str], variable: str | None) -> None:
    assert tracing.asked_by(environ) == variable


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            ["otlp_proto_http"],
        ),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
    ],
)
def test_which_exporters_are_meant(environ: dict[str, str], names: list[str]) -> None:
    assert list(tracing.exporters(environ)) == names


def test_an_exporter_that_is_missing_is_named() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "no"}
    why = tracing.problem(environ)
    assert why is not None
    assert "'otlp_proto_no'" in why
    assert tracing.open_spans(environ, "serve", "n1") is None
    (warning,) = load_with_origins(None, environ).warnings
    assert (warning.key, warning.message) == ("OTEL_EXPORTER_OTLP_ENDPOINT", why)
    (finding,) = traces(environ)
    assert (finding.severity, why in finding.found) == (Severity.WARNING, True)


def test_a_missing_extra_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    why = tracing.problem({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT})
    assert why is not None
    assert "opentelemetry-sdk is missing" in why
    assert "pip install '.[otel]'" in why


def test_what_is_fine_is_said_by_doctor_alone() -> None:
    environ = {"OTEL_TRACES_EXPORTER": "console"}
    assert load_with_origins(None, environ).warnings == []
    (finding,) = traces(environ)
    assert (finding.severity, "console" in finding.found) == (Severity.FINE, True)
    assert list(traces({})) == []


_OFF = """
import asyncio, sys
from pathlib import Path
from router import service
from router.config import Config, Embedded
from router.factory import Factory
from router.tracing import open_spans

async def run():
    config = Config(embedded=Embedded(data_dir=Path(sys.argv[1])))
    async with Factory(config, open_spans=lambda node: open_spans({}, "serve", node)) as factory:
        await factory.message_queue()
        await factory.pipeline()

asyncio.run(run())
print([name for name in sys.modules if name.startswith("opentelemetry") or name.endswith((".traced", ".spans"))])
"""


def test_while_nobody_asks_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OFF, str(tmp_path / "data")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_state_goes_along_if_it_is_short_and_plain() -> None:
    assert dict(parted(kept(TRACEPARENT, "vendor=value"))) == {"traceparent": TRACEPARENT, "tracestate": "vendor=value"}
    for state in (None, "", "x" * (STATE_BYTES + 1), "ä=1", "a=1\nb=2"):
        assert dict(parted(kept(TRACEPARENT, state))) == {"traceparent": TRACEPARENT}
    assert kept("not valid", "vendor=value") == kept(None, None) == ""
    assert dict(parted("")) == {}
