"""Components whose calls have spans, for a service that is asked for traces; without that, none of this is loaded.

What is done to a message has its span in the message's trace, also where many are done together. What a user asks for
has its span in the request's trace, linked to the messages that it returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from router.core.migrator import Migrated, Migrator
from router.core.user_queue import CompositeMessageQueue
from router.errors import RouterError
from router.interfaces import ColdQueue, IngressProducer, OnlineStore, PushNotifier, RoutingIngress
from router.messages import Delivery, Message, Published, Queued, Routed
from router.spans import MESSAGES, Spans, fail, link, trace_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

OUTCOME = "router.outcome"
"""Where a message went: hot, cold or one of the others of ``Outcome``."""
ACKNOWLEDGED, MOVED, DROPPED = "router.acknowledged", "router.moved", "router.dropped"
WAITS = "waits"
"""The outcome of a message that waits in the ingress, for a pipeline."""


class _Traced:
    """All other calls go to the component."""

    def __init__(self, component: Any, spans: Spans) -> None:
        self._component = component
        self._spans = spans

    def __getattr__(self, name: str) -> Any:
        return getattr(self._component, name)


class TracedProducer(_Traced):
    """``IngressProducer``: messages are in the trace of their send from here on."""

    _component: IngressProducer

    async def publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        with self._spans.around("ingress", {MESSAGES: len(messages)}, publishes=True) as span:
            if kept := trace_of(span):
                messages = [replace(message, trace=kept) for message in messages]
            return await self._component.publish(messages)


class TracedRoutingIngress(_Traced):
    """``RoutingIngress``."""

    _component: RoutingIngress

    async def publish(self, messages: Sequence[Message]) -> Published:
        with self._spans.each("route", messages) as spans:
            published = await self._component.publish(messages)
            _tell(spans, published.routed)
            return published


class TracedOnlineStore(_Traced):
    """``OnlineStore``."""

    _component: OnlineStore

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        with self._spans.each("route", [each.message for each in deliveries if each.message is not None]) as spans:
            routed = await self._component.route(deliveries)
            _tell(spans, routed)
            return routed


def _tell(spans: Sequence[Span], routed: Sequence[Routed | None]) -> None:
    for span, one in zip(spans, routed, strict=True):
        span.set_attribute(OUTCOME, WAITS if one is None else one.outcome.value)


class TracedColdQueue(_Traced):
    """``ColdQueue``."""

    _component: ColdQueue

    async def put(self, messages: Sequence[Queued]) -> list[Queued]:
        with self._spans.each("cold write", [queued.message for queued in messages]) as spans:
            refused = await self._component.put(messages)
            names = {queued.message.name for queued in refused}
            for span, queued in zip(spans, messages, strict=True):
                if queued.message.name in names:
                    fail(span, "refused")
            return refused


class TracedPushNotifier(_Traced):
    """``PushNotifier``: who takes a command finds its span in it."""

    _component: PushNotifier

    async def publish(self, messages: Sequence[Message]) -> None:
        with self._spans.each("push", messages, publishes=True) as spans:
            await self._component.publish(
                [
                    replace(message, trace=trace_of(span)) if message.trace else message
                    for message, span in zip(messages, spans, strict=True)
                ]
            )


class TracedMigrator(_Traced):
    """``Migrator``."""

    _component: Migrator

    async def migrate(
        self, user: str, *, online_too: bool = False, progress: Callable[[int], None] | None = None
    ) -> Migrated:
        with self._spans.around("move", root=True) as span:
            migrated = await self._component.migrate(user, online_too=online_too, progress=progress)
            span.set_attributes({MOVED: migrated.moved, DROPPED: migrated.dropped, OUTCOME: migrated.result.value})
            return migrated


class TracedMessageQueue(_Traced):
    """``CompositeMessageQueue``."""

    _component: CompositeMessageQueue

    async def fetch(self, user: str, limit: int) -> list[Queued]:
        since = time.time_ns()
        with self._spans.around("fetch") as span:
            return self._fetched(span, since, await self._component.fetch(user, limit))

    async def next(self, user: str, ids: Sequence[str], limit: int) -> list[Queued]:
        since = time.time_ns()
        with self._spans.around("fetch", {ACKNOWLEDGED: len(ids)}) as span:
            return self._fetched(span, since, await self._component.next(user, ids, limit))

    async def acknowledge(self, user: str, ids: Sequence[str]) -> None:
        with self._spans.around("ack", {ACKNOWLEDGED: len(ids)}):
            await self._component.acknowledge(user, ids)

    def _fetched(self, span: Span, since: int, page: list[Queued]) -> list[Queued]:
        span.set_attribute(MESSAGES, len(page))
        traces = [queued.message.trace for queued in page if queued.message.trace]
        for kept in traces:
            link(span, kept)
        if len(page) == len(traces) == 1:
            self._spans.deliver(page[0].message, since, span)
        return page
