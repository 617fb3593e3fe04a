"""Whether OpenTelemetry is asked for, and what of it is missing (docs/tracing.md). Imports nothing of it otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.spans import Spans

EXPORTERS = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
DISABLED = "OTEL_SDK_DISABLED"
OTLP, NONE = "otlp", "none"
HTTP = "http/protobuf"
GROUP = "opentelemetry_traces_exporter"
"""The entry points by which packages offer exporters."""
_PACKAGES = {"otlp_proto_http": "opentelemetry-exporter-otlp-proto-http"}
INSTALL = (
    "install the router with its extra 'otel': pip install '.[otel]' in the folder of its source, or '….whl[otel]' "
    "with its wheel"
)


def asked_by(environ: Mapping[str, str]) -> str | None:
    """The variable that asks for traces; ``None`` if none does."""
    if environ.get(DISABLED, "").strip().lower() == "true" or environ.get(EXPORTERS, "").strip() == NONE:
        return None
    return next((name for name in (EXPORTERS, *ENDPOINTS) if environ.get(name, "").strip()), None)


def exporters(environ: Mapping[str, str]) -> Iterator[str]:
    """The entry points of what is asked for: ``otlp_proto_http``, ``console`` …"""
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), HTTP)
    otlp = "otlp_proto_http" if protocol == HTTP else f"otlp_proto_{protocol}"
    for name in (environ.get(EXPORTERS) or OTLP).split(","):
        yield otlp if name.strip() == OTLP else name.strip()


def problem(environ: Mapping[str, str]) -> str | None:
    """Why there are no traces although they are asked for, and what to do."""
    if asked_by(environ) is None:
        return None
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return f"asks for traces, but opentelemetry-sdk is missing; {INSTALL}"
    for name in exporters(environ):
        if not found(name):
            package = _PACKAGES.get(name)
            missing = (
                f"{package} is missing; {INSTALL}" if package else f"no package with the exporter {name!r} is installed"
            )
            return f"asks for traces, but {missing}"
    return None


def found(name: str) -> tuple[EntryPoint, ...]:
    """What is installed under the name of an exporter."""
    return tuple(entry_points(group=GROUP, name=name))


def open_spans(environ: Mapping[str, str], service: str, node: str) -> Spans | None:
    """What makes the spans of this process, if they are asked for and can be made; its owner closes it.

    ``service`` and ``node``: what the log calls this process.
    """
    if asked_by(environ) is None or problem(environ) is not None:
        return None
    from router.spans import Spans, provider  # noqa: PLC0415 - the extra

    return Spans(provider(service, node, [found(name)[0].load()() for name in exporters(environ)]))
