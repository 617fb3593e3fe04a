"""Publishes to an ingress that routes what it takes, and does what is then due for others than the sender."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.clock import MICROSECONDS, Clock, Tasks
from router.core.dependencies import Reports
from router.errors import RouterError
from router.interfaces import PokeBus, RoutingIngress
from router.messages import Message, Outcome, Published, QueueTotals
from router.metrics import Metrics


class _Turn:
    """What is published together, and who waits for that."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.waiting: list[asyncio.Future[None]] = []

    def succeed(self) -> None:
        for durable in self.waiting:
            if not durable.done():
                durable.set_result(None)

    def fail(self, error: Exception) -> None:
        for durable in self.waiting:
            if not durable.done():
                durable.set_exception(error)

    def cancel(self) -> None:
        for durable in self.waiting:
            durable.cancel()


class RoutingProducer:
    """``IngressProducer`` over a ``RoutingIngress``. Messages that come in one turn of the event loop are published
    together: a statement costs more than its rows. It counts and reports what a pipeline would, and sends the pokes.

    State: the turn that takes messages, and the pokes that go out next.
    """

    def __init__(
        self,
        ingress: RoutingIngress,
        pokes: PokeBus,
        *,
        clock: Clock,
        tasks: Tasks,
        metrics: Metrics,
        reports: Reports,
    ) -> None:
        self._ingress = ingress
        self._pokes = pokes
        self._clock = clock
        self._tasks = tasks
        self._metrics = metrics
        self._reports = reports
        self._turn: _Turn | None = None
        self._due: list[tuple[str, str]] = []

    async def publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        if self._turn is None:
            self._turn = _Turn()
            self._tasks.spawn(self._publish(self._turn), "publish")
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turn.messages += messages
        self._turn.waiting.append(durable)
        await durable
        return [None] * len(messages)

    async def _publish(self, turn: _Turn) -> None:
        """Publish what came in one turn of the event loop; it goes on where a sender no longer waits."""
        self._turn = None
        try:
            published = await self._ingress.publish(turn.messages)
        except asyncio.CancelledError:
            turn.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to the senders
            turn.fail(error)
            return
        turn.succeed()
        self._poke(published.pokes)
        self._count(min((message.accepted_at for message in turn.messages), default=0), published)

    def _count(self, accepted_at: int, published: Published) -> None:
        outcomes = [routed.outcome for routed in published.routed if routed is not None]
        for outcome in outcomes:
            self._metrics.routed(outcome)
        if outcomes:
            self._metrics.routing_took((self._clock.now() - accepted_at) / MICROSECONDS)
        if announced := outcomes.count(Outcome.COLD):
            self._metrics.pushed(announced)
        for letter in published.letters:
            self._metrics.dead_letter(letter.reason)
            self._reports.dead_letter(letter)

    def _poke(self, pokes: list[tuple[str, str]]) -> None:
        """Send ``pokes`` from a task of its own: the senders of this turn of the loop get their answers first, so no
        answer comes later because its recipient is online."""
        if not pokes:
            return
        if not self._due:
            self._tasks.spawn(self._send(), "pokes")
        self._due += pokes

    async def _send(self) -> None:
        pokes, self._due = self._due, []
        await self._pokes.publish(pokes)

    async def probe(self) -> None:
        await self._ingress.probe()

    async def backlog(self) -> QueueTotals | None:
        return await self._ingress.backlog()
