"""Spans by OpenTelemetry. They name no user, no token and no payload, and of an error only its class: the words of a
library's error may quote what it was given (docs/tracing.md)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router import __version__
from router.logs import SPAN_ID, TRACE_ID
from router.messages import Message
from router.trace_context import TRACEPARENT, TRACESTATE, joined, parted

ERROR = "error.type"
MESSAGE_ID, MESSAGES = "messaging.message.id", "messaging.batch.message_count"
Value = str | int
CLOSE_SECONDS = 2.0
"""A collector that has not taken the last spans by then does not get them."""
_propagator = TraceContextTextMapPropagator()
_NO_PARENT = Context()


def provider(service: str, node: str, exporters: Sequence[SpanExporter]) -> TracerProvider:
    """Sends spans to ``exporters`` from a thread. ``OTEL_…`` variables override the names, and say what is sampled."""
    named = dict(OTELResourceDetector().detect().attributes)
    ours = {SERVICE_NAME: f"sealed-router-{service}", "service.version": __version__, "service.instance.id": node}
    made = TracerProvider(resource=Resource.create({**ours, **named}), shutdown_on_exit=False)
    for exporter in exporters:
        made.add_span_processor(BatchSpanProcessor(exporter))
    return made


class Spans:
    """Begins spans, and finds their parents in requests and messages."""

    def __init__(self, made: TracerProvider) -> None:
        self._provider = made
        self._tracer = made.get_tracer("sealed-router", __version__)

    @contextmanager
    def around(
        self,
        name: str,
        attributes: Mapping[str, Value] | None = None,
        *,
        root: bool = False,
        publishes: bool = False,
    ) -> Iterator[Span]:
        """A span of what is done within. ``root``: it belongs to no request. ``publishes``: something that others take
        up."""
        kind = SpanKind.PRODUCER if publishes else SpanKind.INTERNAL
        span = self._tracer.start_span(name, _NO_PARENT if root else None, kind, attributes=attributes)
        with _current(span):
            yield span

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Value]) -> Iterator[Span]:
        """A span for a request, in the trace that its ``headers`` name."""
        parent = _propagator.extract(headers, _NO_PARENT)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes=attributes)
        with _current(span):
            yield span

    @contextmanager
    def each(self, name: str, messages: Iterable[Message], *, publishes: bool = False) -> Iterator[list[Span]]:
        """For each message a span, in its own trace, of what is done within to all of them; for one without a trace, a
        span that nobody sees. ``publishes`` as above."""
        kind, since = SpanKind.PRODUCER if publishes else SpanKind.INTERNAL, time.time_ns()
        spans = [
            self._tracer.start_span(
                name, context_of(one.trace), kind, attributes={MESSAGE_ID: one.id}, start_time=since
            )
            if one.trace
            else trace.INVALID_SPAN
            for one in messages
        ]
        with _ending(spans):
            yield spans

    def deliver(self, message: Message, since: int, fetch: Span) -> None:
        """The span that ends the trace of ``message``: it began at ``since`` (ns since 1970), ends now, and links to
        the ``fetch`` that returned it."""
        links, attributes = [Link(fetch.get_span_context())], {MESSAGE_ID: message.id}
        context = context_of(message.trace)
        self._tracer.start_span("deliver", context, attributes=attributes, links=links, start_time=since).end()

    async def close(self) -> None:
        """Send what is left."""
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(closed.set)

        # Not on a thread of the loop's: the loop would wait for it at its end.
        threading.Thread(target=close, name="spans", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await closed.wait()


@contextmanager
def _current(span: Span) -> Iterator[None]:
    """``span`` is the parent of those that begin within, and then ends."""
    with trace.use_span(span, record_exception=False, set_status_on_exception=False), _ending([span]):
        yield


@contextmanager
def _ending(spans: Sequence[Span]) -> Iterator[None]:
    """End ``spans``, with the class of the error if there is one."""
    try:
        yield
    except BaseException as error:
        for span in spans:
            fail(span, type(error).__qualname__)
        raise
    finally:
        for span in spans:
            span.end()


def fail(span: Span, kind: str) -> None:
    """What ``span`` tells of has failed, with an error of this ``kind``."""
    span.set_attribute(ERROR, kind)
    span.set_status(Status(StatusCode.ERROR))


def trace_of(span: Span) -> str:
    """What a message keeps of ``span``, so that later spans are its children; empty if nobody sees it."""
    if not span.get_span_context().trace_flags.sampled:
        return ""
    carrier = dict[str, str]()
    _propagator.inject(carrier, trace.set_span_in_context(span, _NO_PARENT))
    return joined(carrier[TRACEPARENT], carrier.get(TRACESTATE, ""))


def context_of(kept: str) -> Context:
    """The parent that ``trace_of`` told of."""
    return _propagator.extract(dict(parted(kept)), _NO_PARENT)


def link(span: Span, kept: str) -> None:
    """Link ``span`` to the one that ``trace_of`` told of."""
    span.add_link(trace.get_current_span(context_of(kept)).get_span_context())


def log_fields() -> Mapping[str, str]:
    """What a line of the log says of the span in which it is written."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {TRACE_ID: trace.format_trace_id(context.trace_id), SPAN_ID: trace.format_span_id(context.span_id)}
