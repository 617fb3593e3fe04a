"""Components whose calls have spans, for a service that is asked for traces; without that, none of this is loaded.

What is done to a message has its span in the message's trace, also where many are done together. What a user asks for
has its span in the request's trace, linked to the messages that it returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from router.core.migrator import Migrated, Migrator
from router.core.user_queue import CompositeMessageQueue
from router.errors import RouterError
from router.interfaces import ColdQueue, IngressProducer, OnlineStore, PushNotifier, RoutingIngress, TraceContexts
from router.messages import Delivery, Message, Move, MoveRefused, Outcome, Published, Queued, Routed
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


class Traces:
    """Remembers and finds the traces of messages. A store that does not answer costs a link, and never a call."""

    def __init__(self, contexts: TraceContexts | None) -> None:
        """``contexts``: ``None`` if the stores keep ``Message.trace`` themselves."""
        self._contexts = contexts

    async def keep(self, messages: Sequence[Message], routed: Sequence[Routed | None]) -> None:
        """Remember those of ``messages`` that are in a queue now."""
        if self._contexts is None:
            return
        queued = [one for one, result in zip(messages, routed, strict=True) if one.trace and _is_queued(result)]
        if queued:
            with suppress(RouterError):
                await self._contexts.keep(queued)

    async def filled(self, user: str, page: list[Queued]) -> list[Queued]:
        """``page``, its messages with their traces."""
        ids = [queued.message.id for queued in page if not queued.message.trace]
        if self._contexts is None or not ids:
            return page
        found: dict[str, str] = {}
        with suppress(RouterError):
            found = await self._contexts.find(user, ids)
        return [_with_trace(queued, found.get(queued.message.id)) for queued in page]

    async def take(self, user: str, ids: Sequence[str]) -> Collection[str]:
        """The traces of messages that are acknowledged."""
        if self._contexts is not None and ids:
            with suppress(RouterError):
                return (await self._contexts.take(user, ids)).values()
        return ()


def _is_queued(result: Routed | None) -> bool:
    return result is not None and result.outcome in (Outcome.HOT, Outcome.COLD)


def _with_trace(queued: Queued, kept: str | None) -> Queued:
    return queued if kept is None else replace(queued, message=replace(queued.message, trace=kept))


class TracedRoutingIngress(_Traced):
    """``RoutingIngress``."""

    _component: RoutingIngress

    def __init__(self, component: RoutingIngress, spans: Spans, traces: Traces) -> None:
        super().__init__(component, spans)
        self._traces = traces

    async def publish(self, messages: Sequence[Message]) -> Published:
        with self._spans.each("route", messages) as spans:
            published = await self._component.publish(messages)
            _tell(spans, published.routed)
        await self._traces.keep(messages, published.routed)
        return published


class TracedOnlineStore(_Traced):
    """``OnlineStore``."""

    _component: OnlineStore

    def __init__(self, component: OnlineStore, spans: Spans, traces: Traces) -> None:
        super().__init__(component, spans)
        self._traces = traces

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        messages = [delivery.message for delivery in deliveries if delivery.message is not None]
        with self._spans.each("route", messages) as spans:
            routed = await self._component.route(deliveries)
            _tell(spans, routed)
        await self._traces.keep(messages, routed)
        return routed

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        move = await self._component.begin_move(user, owner, limit, max_bytes, online_too=online_too)
        if isinstance(move, MoveRefused):
            return move
        return replace(move, messages=await self._traces.filled(user, move.messages))

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        return await self._traces.filled(user, await self._component.unannounced(user, before, limit))


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

    def __init__(self, component: CompositeMessageQueue, spans: Spans, traces: Traces) -> None:
        super().__init__(component, spans)
        self._traces = traces

    async def fetch(self, user: str, limit: int) -> list[Queued]:
        since = time.time_ns()
        with self._spans.around("fetch") as span:
            return await self._fetched(user, span, since, await self._component.fetch(user, limit))

    async def next(self, user: str, ids: Sequence[str], limit: int) -> list[Queued]:
        since = time.time_ns()
        with self._spans.around("fetch", {ACKNOWLEDGED: len(ids)}) as span:
            page = await self._component.next(user, ids, limit)
            await self._acknowledged(user, span, ids)
            return await self._fetched(user, span, since, page)

    async def acknowledge(self, user: str, ids: Sequence[str]) -> None:
        with self._spans.around("ack", {ACKNOWLEDGED: len(ids)}) as span:
            await self._component.acknowledge(user, ids)
            await self._acknowledged(user, span, ids)

    async def _acknowledged(self, user: str, span: Span, ids: Sequence[str]) -> None:
        for kept in await self._traces.take(user, ids):
            link(span, kept)

    async def _fetched(self, user: str, span: Span, since: int, found: list[Queued]) -> list[Queued]:
        span.set_attribute(MESSAGES, len(found))
        page = await self._traces.filled(user, found)
        traced = [queued.message for queued in page if queued.message.trace]
        for message in traced:
            link(span, message.trace)
        if len(page) == len(traced) == 1:
            self._spans.deliver(traced[0], since, span)
        return page
