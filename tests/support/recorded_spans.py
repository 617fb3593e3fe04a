"""The spans of a test, by the real SDK, in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

from router.spans import Spans

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


class Recorder:
    """Makes ``Spans`` and keeps what they have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider)

    @property
    def open(self) -> Callable[[str], Spans]:
        """For a ``Factory``."""
        return lambda _node: self.spans

    @property
    def ended(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """In the order in which they ended."""
        return [span for span in self.ended if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def said(self) -> str:
        """All that the spans tell, as JSON."""
        return "\n".join(span.to_json() for span in self.ended)


def context_of(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None, "one that has ended has it"
    return context


def ids(span: ReadableSpan) -> tuple[str, str]:
    """(trace, span)"""
    return format_trace_id(context_of(span).trace_id), format_span_id(context_of(span).span_id)


def parent(span: ReadableSpan) -> str | None:
    """The id of its parent."""
    return None if span.parent is None else format_span_id(span.parent.span_id)


def linked(span: ReadableSpan) -> list[tuple[str, str]]:
    """(trace, span) of what it is linked to."""
    return [(format_trace_id(link.context.trace_id), format_span_id(link.context.span_id)) for link in span.links]
