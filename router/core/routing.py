"""The pipeline: from the ingress to the hot or the cold queue, one recipient's messages strictly in order.

A batch is worked on as a whole. A recipient with messages in work is *busy*: what arrives for them meanwhile
waits until that work is done. A pass that fails is repeated from the top; every step is idempotent, so the
repetition completes what is missing and doubles nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from router.clock import Clock, Tasks
from router.core.retrying import backoff
from router.errors import Unavailable
from router.interfaces import ColdQueue, DeadLetters, IngressConsumer, OnlineStore, PushNotifier
from router.messages import DeadLetter, Delivery, Message, Outcome, Queued, Routed
from router.metrics import Metrics

BATCH_MESSAGES = 256
HELD_MESSAGES = 2048
"""Deliveries held at once; beyond it nothing more is received."""
CALL_SECONDS = 15.0
"""A dependency that has not answered by then counts as failed."""
HAND_BACK_SECONDS = 1.0
"""A process that stops waits for the ingress no longer."""

_REFUSED = {
    Outcome.QUEUE_FULL: "the recipient's queue holds limits.queue_messages",
    Outcome.ID_CONFLICT: "the id is that of a message for another recipient; was an Idempotency-Key reused?",
}


class Pipeline:
    """Consumes the ingress until it is cancelled; several pipelines may run at once, on any nodes."""

    def __init__(
        self,
        consumer: IngressConsumer,
        online: OnlineStore,
        cold: ColdQueue,
        push: PushNotifier,
        letters: DeadLetters,
        *,
        max_attempts: int,
        clock: Clock,
        chance: random.Random,
        tasks: Tasks,
        metrics: Metrics,
    ) -> None:
        self._consumer = consumer
        self._online = online
        self._cold = cold
        self._push = push
        self._letters = letters
        self._max_attempts = max_attempts
        self._clock = clock
        self._chance = chance
        self._tasks = tasks
        self._metrics = metrics
        self._held: dict[int | str, Delivery] = {}
        self._waiting: dict[str, list[Delivery]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()

    async def run(self) -> None:
        """Receive and route until cancelled; then ``finish`` or ``hand_back``."""
        failures = 0
        while True:
            try:
                deliveries = await self._consumer.receive(BATCH_MESSAGES)
            except Unavailable:
                failures += 1
                self._metrics.dependency_failed("ingress")
                await self._clock.sleep(backoff(failures, self._chance))
                continue
            failures = 0
            self.take(deliveries)
            while len(self._held) >= HELD_MESSAGES:
                self._room.clear()
                await self._room.wait()

    async def finish(self) -> None:
        """Return when all that was received is routed."""
        while self._work:
            await asyncio.wait(self._work)

    async def hand_back(self) -> None:
        """Stop at once; the ingress gives what is not routed to another pipeline, or to the next."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                if self._held:
                    await self._consumer.nack(list(self._held.values()))
        except (Unavailable, TimeoutError):
            # It gives them out again all the same, when it notices that their holder is gone.
            self._metrics.dependency_failed("ingress")
        self._held.clear()

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Start on those whose recipient is free; the others wait behind the work that is under way."""
        ready = []
        for delivery in deliveries:
            self._held[delivery.receipt] = delivery
            if (waiting := self._waiting.get(_recipient(delivery))) is not None:
                waiting.append(delivery)
            else:
                ready.append(delivery)
        if ready:
            self._start(ready)

    def _start(self, batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            self._waiting.setdefault(_recipient(delivery), [])
        task = self._tasks.spawn(self._route(batch), "route")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _route(self, batch: Sequence[Delivery]) -> None:
        passes = tries = 0
        while batch:
            passes += 1
            try:
                left = await self._pass(batch)
            except (Unavailable, TimeoutError):
                # A dependency is down: that is no fault of the messages and no try of theirs.
                self._metrics.dependency_failed("routing")
                left = self._undone(batch)
            except Exception as error:  # noqa: BLE001 - one message that cannot be routed must not stop the others
                left = self._undone(batch)
                if len(left) > 1:
                    self._release(batch, left)
                    self._divide(left)
                    return
                tries += 1
                left = [delivery for delivery in left if not await self._blame(delivery, tries, error)]
            self._release(batch, left)
            batch = left
            if batch:
                await self._clock.sleep(backoff(passes, self._chance))

    def _undone(self, batch: Sequence[Delivery]) -> list[Delivery]:
        """What a pass that failed had not finished: a message that was refused must not be routed after all."""
        return [delivery for delivery in batch if delivery.receipt in self._held]

    def _divide(self, batch: Sequence[Delivery]) -> None:
        """Narrow down which message fails: each recipient alone, then the first message alone."""
        by_recipient: dict[str, list[Delivery]] = {}
        for delivery in batch:
            by_recipient.setdefault(_recipient(delivery), []).append(delivery)
        if len(by_recipient) == 1:
            self._waiting[_recipient(batch[0])][:0] = batch[1:]
            self._start(batch[:1])
            return
        for own in by_recipient.values():
            self._start(own)

    def _release(self, batch: Sequence[Delivery], left: Sequence[Delivery]) -> None:
        """Recipients with nothing left are no longer busy; start on what has waited for them."""
        if len(self._held) < HELD_MESSAGES:
            self._room.set()
        freed = {_recipient(delivery) for delivery in batch}
        freed.difference_update(_recipient(delivery) for delivery in left)
        waited = [delivery for recipient in freed for delivery in self._waiting.pop(recipient)]
        if waited:
            self._start(waited)

    async def _pass(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        """Do all that is owed for ``batch``; returns what must be tried again."""
        readable = []
        for delivery in batch:
            if delivery.message is None:
                await self._refuse(delivery, "undecodable", delivery.problem)
            else:
                readable.append(delivery)
        if not readable:
            return []
        async with asyncio.timeout(CALL_SECONDS):
            routed = await self._online.route(readable)
        done: list[Delivery] = []
        stored: list[tuple[Delivery, Routed]] = []
        for delivery, result in zip(readable, routed, strict=True):
            if result.outcome is Outcome.COLD or result.outcome is Outcome.ANNOUNCE:
                stored.append((delivery, result))
            elif result.outcome in _REFUSED:
                await self._refuse(delivery, result.outcome.value, _REFUSED[result.outcome])
            else:
                done.append(delivery)
        self._count(readable, routed)
        if done:
            await self._ack(done)
        return await self._store(stored) if stored else []

    def _count(self, deliveries: Sequence[Delivery], routed: Sequence[Routed]) -> None:
        for result in routed:
            self._metrics.routed(result.outcome)
        oldest = min(delivery.message.accepted_at for delivery in deliveries if delivery.message is not None)
        self._metrics.routing_took((self._clock.now() - oldest) / 1_000_000)

    async def _store(self, stored: Sequence[tuple[Delivery, Routed]]) -> Sequence[Delivery]:
        """Write to cold, then announce; returns the deliveries whose write was refused."""
        owed = [
            Queued(_message(delivery), result.sequence, result.queued_at, attempts=delivery.attempt)
            for delivery, result in stored
            if result.outcome is Outcome.COLD
        ]
        async with asyncio.timeout(CALL_SECONDS):
            refused = {queued.message.id for queued in await self._cold.put(owed)} if owed else set()
        await self._settle([queued for queued in owed if queued.message.id not in refused])
        kept = [delivery for delivery, _ in stored if _message(delivery).id not in refused]
        await self._announce([_message(delivery) for delivery in kept])
        await self._ack(kept)
        return [delivery for delivery, _ in stored if _message(delivery).id in refused]

    async def _settle(self, written: Sequence[Queued]) -> None:
        async with asyncio.timeout(CALL_SECONDS):
            for queued in await self._online.settle(written) if written else ():
                await self._cold.delete(queued.message.recipient, [queued.message.id])
                await self._online.forget_orphans(queued.message.recipient, [queued.message.id])

    async def _announce(self, messages: Sequence[Message]) -> None:
        if messages:
            async with asyncio.timeout(CALL_SECONDS):
                await self._push.publish(messages)
            self._metrics.pushed(len(messages))

    async def _ack(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            async with asyncio.timeout(CALL_SECONDS):
                await self._consumer.ack(deliveries)
            for delivery in deliveries:
                self._held.pop(delivery.receipt, None)

    async def _blame(self, delivery: Delivery, tries: int, error: Exception) -> bool:
        """``delivery`` itself cannot be routed: it has its tries, then it is a dead letter. Whether it is one now."""
        if delivery.attempt + tries <= self._max_attempts:
            return False
        try:
            await self._refuse(delivery, "attempts-exhausted", f"{type(error).__name__} in each of its tries")
        except Exception:  # noqa: BLE001 - it is blamed again later; its recipient must not stay busy for ever
            self._metrics.dependency_failed("dead-letters")
            return False
        return True

    async def _refuse(self, delivery: Delivery, reason: str, detail: str) -> None:
        message = delivery.message
        letter = DeadLetter(
            id=message.id if message else str(delivery.receipt),
            recipient=message.recipient if message else "",
            reason=reason,
            detail=detail,
            body=message.envelope if message else delivery.body,
            attempts=delivery.attempt,
            at=self._clock.now(),
        )
        async with asyncio.timeout(CALL_SECONDS):
            await self._letters.publish([letter])
        self._metrics.dead_letter(reason)
        await self._ack([delivery])


def _recipient(delivery: Delivery) -> str:
    """Whose order ``delivery`` belongs to; one that could not be read has an order of its own."""
    return delivery.message.recipient if delivery.message else f"?{delivery.receipt}"


def _message(delivery: Delivery) -> Message:
    assert delivery.message is not None, "only readable deliveries are stored"
    return delivery.message
