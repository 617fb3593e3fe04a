"""The pipeline: from the ingress to the hot or the cold queue, one recipient's messages strictly in order.

A batch is routed as a whole, and then divided by what is owed. A recipient with messages in work is *busy*: what
arrives for them meanwhile waits until these are done, and for nobody else's. A pass that fails is repeated from the
top; every step is idempotent, so the repetition completes what is missing and doubles nothing. Without an online store,
mail goes cold (see ``outage``).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import structs

from router.checksum import is_whole
from router.clock import Clock, Tasks
from router.core import damage
from router.core.copies import Copies, Unstorable, message_of
from router.core.dependencies import Reports
from router.core.outage import Outage, Owed
from router.core.outcomes import REFUSED, SILENT, Fate, apart, belongs_in_cold
from router.core.recipients import Recipients, by_recipient, portions, recipient_of, size_of
from router.core.refusing import Refuser
from router.core.settling import Settler
from router.errors import DataDirLost, RouterError, Unavailable
from router.interfaces import ColdQueue, IngressConsumer, OnlineStore, PushNotifier
from router.messages import DeadReason, Delivery, Message, Outcome, Routed
from router.metrics import Metrics
from router.retry import backoff
from router.timekeeping import Timekeeper

BATCH_MESSAGES = 256
HELD_MESSAGES = 2048
HELD_BYTES = 64 * 1024 * 1024
"""Deliveries held at once, and their envelopes; beyond either nothing more is received."""
OUTAGE_MESSAGES = 100_000
"""Messages, without their envelopes, that may wait for the online store; beyond it nothing more is received."""
CALL_SECONDS = 15.0
"""A dependency that has not answered by then counts as failed."""
Refusal = tuple[Delivery, DeadReason, str]
"""What is to be a dead letter, why, and what more there is to say."""
Pass = Callable[[], Awaitable[Sequence[Delivery]]]
"""Returns what must be tried again."""
HAND_BACK_SECONDS = 1.0
"""A process that stops waits for the ingress no longer."""


class Pipeline:
    """Consumes the ingress until it is cancelled; several pipelines may run at once, on any nodes."""

    def __init__(
        self,
        consumer: IngressConsumer,
        online: OnlineStore,
        cold: ColdQueue,
        push: PushNotifier,
        refuser: Refuser,
        *,
        max_attempts: int,
        write_through: bool,
        clock: Clock,
        keeper: Timekeeper,
        chance: random.Random,
        tasks: Tasks,
        metrics: Metrics,
        reports: Reports,
    ) -> None:
        """``write_through``: what goes hot is written to cold too, before the ingress is told."""
        self._consumer = consumer
        self._online = online
        self._copies = Copies(cold, keeper, CALL_SECONDS)
        self._settler = Settler(online, cold, call_seconds=CALL_SECONDS)
        self._push = push
        self._refuser = refuser
        self._max_attempts = max_attempts
        self._write_through = write_through
        self._outage = Outage()
        self._clock = clock
        self._chance = chance
        self._tasks = tasks
        self._metrics = metrics
        self._reports = reports
        self._held: dict[int | str, Delivery] = {}
        self._held_bytes = 0
        self._finished: set[int | str] = set()
        """Receipts of which only the ingress is to be told; it may know already, if its answer was lost."""
        self._refused: dict[int | str, Refusal] = {}
        """By receipt, what the store has refused and no dead letter tells of yet: what came behind it may be in the
        queue, so it is not routed after all when there is room again."""
        self._recipients = Recipients()
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
                await self._clock.sleep(backoff(failures, self._chance))
                continue
            failures = 0
            self.take(deliveries)
            while not self._has_room():
                self._room.clear()
                await self._room.wait()

    def _has_room(self) -> bool:
        fits = len(self._held) < HELD_MESSAGES and self._held_bytes < HELD_BYTES
        return fits and len(self._outage) < OUTAGE_MESSAGES

    def _done(self, deliveries: Sequence[Delivery]) -> None:
        """These are held no longer; start on what has waited for recipients with nothing else in work."""
        gone = [held for delivery in deliveries if (held := self._held.pop(delivery.receipt, None)) is not None]
        self._held_bytes -= sum(map(size_of, gone))
        if self._has_room():
            self._room.set()
        self._start(self._recipients.end(gone))

    async def finish(self) -> None:
        """Return when all that was received is routed."""
        while self._work:
            await asyncio.wait(self._work)

    async def hand_back(self) -> None:
        """Stop at once, and for good; the ingress gives what is not routed to another pipeline, or to the next."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        # If that fails, the ingress redelivers them anyway, when it notices that their holder is gone.
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(HAND_BACK_SECONDS):
                if held := [*self._held.values(), *self._outage.untold()]:
                    await self._consumer.nack(held)

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Start on those whose recipient is free; the others wait behind the work that is under way.

        What comes again while it is held is held already.
        """
        new: list[Delivery] = []
        for received in deliveries:
            if received.receipt not in self._held:
                delivery = self._held[received.receipt] = _checked(received)
                self._held_bytes += size_of(delivery)
                new.append(delivery)
        begun = self._recipients.begin(new)
        # Apart, since it takes other ways, which nobody else has to wait for.
        self._start([delivery for delivery in begun if delivery.message is not None])
        self._start([delivery for delivery in begun if delivery.message is None])

    def _start(self, begun: Sequence[Delivery]) -> None:
        for batch in portions(begun):
            self._start_work(self._route(batch), "route")

    def _start_work(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._tasks.spawn(work, name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _route(self, batch: Sequence[Delivery], routed: Pass | None = None) -> None:
        """Pass after pass until all is done; ``routed`` is the first one where ``batch`` was routed before."""
        passes = tries = 0
        while batch:
            passes += 1
            try:
                left = await (self._pass(batch) if routed is None else routed())
            except (Unavailable, TimeoutError) as error:
                # A dependency is down: that is not a fault of the messages and does not count as an attempt.
                left = self._undone(batch)
                if isinstance(error, DataDirLost) and len(by_recipient(left)) > 1:
                    # A damaged page is that of some recipients, and the others do not wait for it.
                    self._divide(left)
                    return
            except Exception as error:  # noqa: BLE001 - one message that cannot be routed must not stop the others
                if not isinstance(error, Unstorable):
                    self._reports.bug("routing", error)
                left = self._undone(batch)
                if len(left) > 1:
                    self._divide(left)
                    return
                tries += 1
                left = [delivery for delivery in left if not await self._blame(delivery, tries, error)]
            batch, routed = left, None
            if batch:
                await self._clock.sleep(backoff(passes, self._chance))

    def _undone(self, batch: Sequence[Delivery]) -> list[Delivery]:
        """What a pass that failed had not finished: a message that was refused must not be routed after all."""
        return [delivery for delivery in batch if delivery.receipt in self._held]

    def _divide(self, batch: Sequence[Delivery]) -> None:
        """Narrow down which message fails: each recipient alone, then the first message alone."""
        parts = by_recipient(batch)
        if len(parts) == 1:
            self._recipients.put_back(batch[1:])
            parts = [list(batch[:1])]
        for own in parts:
            self._start(own)

    async def _pass(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        """Do all that is owed for ``batch``; returns what must be tried again."""
        await self._ack([delivery for delivery in batch if delivery.receipt in self._finished])
        undone = self._undone(batch)
        refused = [refusal for delivery in undone if (refusal := self._refusal(delivery)) is not None]
        readable = [delivery for delivery in undone if self._refusal(delivery) is None]
        left = await self._refuse_all(refused)
        stuck = await self._copies.write_again(readable)
        left += [delivery for delivery in readable if recipient_of(delivery) in stuck]
        readable = [delivery for delivery in readable if recipient_of(delivery) not in stuck]
        if not readable:
            return left
        routed = await self._ask(readable)
        unknown = routed is None
        if routed is None:
            routed = self._outage.place(readable, self._clock.now())
        self._count(readable, routed)
        parts = apart(list(zip(readable, routed, strict=True)))
        if len(parts) == 1:
            return [*left, *await self._follow(parts[0], unknown=unknown)]
        # Nothing may fail from here on: these are no longer this batch's.
        for part in parts:
            batch = [delivery for delivery, _ in part]
            self._start_work(self._route(batch, partial(self._follow, part, unknown=unknown)), "route")
        return left

    def _refusal(self, delivery: Delivery) -> Refusal | None:
        if delivery.message is None:
            return delivery, delivery.reason, delivery.problem
        return self._refused.get(delivery.receipt)

    async def _ask(self, readable: Sequence[Delivery]) -> list[Routed] | None:
        """Where the online store sends each; ``None`` while it cannot be reached."""
        if self._outage.lasts:
            return None
        try:
            async with asyncio.timeout(CALL_SECONDS):
                routed = await self._online.route(readable)
        except (Unavailable, TimeoutError):
            if not self._outage.lasts:
                self._outage.lasts = True
                self._start_work(self._end_outage(), "outage")
            return None
        return self._outage.saw(readable, routed)

    async def _follow(self, fates: Sequence[Fate], *, unknown: bool) -> Sequence[Delivery]:
        """Do what ``fates`` owe; returns what must be tried again. ``unknown``: to the online store."""
        done: list[Delivery] = []
        refused: list[Refusal] = []
        stored: list[Fate] = []
        for delivery, result in fates:
            if belongs_in_cold((delivery, result), write_through=self._write_through):
                stored.append((delivery, result))
            elif result.outcome in REFUSED:
                refused.append((delivery, *REFUSED[result.outcome]))
            else:
                done.append(delivery)
        self._refused.update((refusal[0].receipt, refusal) for refusal in refused)
        unsaid = await self._refuse_all(refused)
        # Acknowledged before the store was told of the copy: whoever did it found none to delete.
        await self._settler.settle(self._copies.tried(done))
        await self._finish(done)
        left: Sequence[Delivery] = []
        if stored:
            left = await (self._store_in_turn(stored) if unknown else self._store(stored, unknown=False))
        # What has its place comes before what has none.
        return [*left, *unsaid]

    async def _store_in_turn(self, stored: Sequence[Fate]) -> list[Delivery]:
        """Write one recipient's messages to cold one after another, so that what is there is always the head of them.

        Nobody else knows their sequences: where this process ends, those that were not written get later ones.
        """
        left: list[Delivery] = []
        while stored:
            heads = {message_of(pair[0]).recipient: pair for pair in reversed(stored)}
            refused = await self._store(list(heads.values()), unknown=True)
            stuck = {message_of(delivery).recipient for delivery in refused}
            behind = [pair for pair in stored if heads[message_of(pair[0]).recipient] is not pair]
            left += [*refused, *(pair[0] for pair in behind if message_of(pair[0]).recipient in stuck)]
            stored = [pair for pair in behind if message_of(pair[0]).recipient not in stuck]
        return left

    def _count(self, deliveries: Sequence[Delivery], routed: Sequence[Routed]) -> None:
        for result in routed:
            self._metrics.routed(result.outcome)
        oldest = min(delivery.message.accepted_at for delivery in deliveries if delivery.message is not None)
        self._metrics.routing_took((self._clock.now() - oldest) / 1_000_000)

    async def _store(self, stored: Sequence[Fate], *, unknown: bool) -> Sequence[Delivery]:
        """Write to cold, then announce; returns the deliveries whose write was refused."""
        owed: list[Owed] = [
            (delivery, self._copies.place(delivery, result, untold=unknown))
            for delivery, result in stored
            if result.outcome is not Outcome.ANNOUNCE
        ]
        refused = await self._copies.write(owed)
        written = [pair for pair in owed if pair[1].message.name not in refused]
        if not unknown:
            await self._settler.settle([queued for _, queued in written])
        kept = [pair for pair in stored if message_of(pair[0]).name not in refused]
        await self._announce([message_of(delivery) for delivery, result in kept if result.outcome not in SILENT])
        if unknown:
            self._owe(written)
        else:
            await self._finish([delivery for delivery, _ in kept])
        return [delivery for delivery, _ in stored if message_of(delivery).name in refused]

    def _owe(self, written: Sequence[Owed]) -> None:
        self._outage.owe(written)
        self._copies.forget([delivery for delivery, _ in written])
        self._done([delivery for delivery, _ in written])

    async def _end_outage(self) -> None:
        """Return when the online store can be reached again and knows what was routed without it."""
        failures = 0
        while self._outage.lasts:
            failures += 1
            await self._clock.sleep(backoff(failures, self._chance))
            # A refusal too may pass; if this ended, all mail would go cold until the next start.
            with suppress(RouterError, TimeoutError):
                await self._tell_owed()
                self._outage.end()
        self._room.set()

    async def _tell_owed(self) -> None:
        async with asyncio.timeout(CALL_SECONDS):
            await self._online.probe()
        while owed := self._outage.next(BATCH_MESSAGES):
            await self._settler.settle([queued for _, queued in owed])
            await self._ack([delivery for delivery, _ in owed])
            self._outage.told(len(owed))

    async def _announce(self, messages: Sequence[Message]) -> None:
        if messages:
            async with asyncio.timeout(CALL_SECONDS):
                await self._push.publish(messages)
            self._metrics.pushed(len(messages))

    async def _finish(self, deliveries: Sequence[Delivery]) -> None:
        """All is done for these but telling the ingress; where that fails, nothing else of them is done again."""
        self._finished.update(delivery.receipt for delivery in deliveries)
        await self._ack(deliveries)

    async def _ack(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            async with asyncio.timeout(CALL_SECONDS):
                await self._consumer.ack(deliveries)
            self._outage.forget(deliveries)
            self._copies.forget(deliveries)
            for delivery in deliveries:
                self._finished.discard(delivery.receipt)
                self._refused.pop(delivery.receipt, None)
            self._done(deliveries)

    async def _blame(self, delivery: Delivery, tries: int, error: Exception) -> bool:
        """``delivery`` itself cannot be routed: it has its tries, then it is a dead letter. Whether it is one now.

        Earlier deliveries count as none: who gave it back was stopped, or lost it.
        """
        if tries < self._max_attempts:
            return False
        if delivery.message is not None and self._outage.lasts:
            # The store is to forget it, and cannot be told now. What waits behind it is routed by the store again.
            self._outage.withdraw([delivery, *self._recipients.behind(delivery)])
            return False
        try:
            await self._give_up(delivery, error)
        except (Unavailable, TimeoutError):
            return False
        except Exception as failure:  # noqa: BLE001 - it is blamed again later; its recipient must not stay busy for ever
            self._reports.bug("dead letters", failure)
            return False
        return True

    async def _give_up(self, delivery: Delivery, error: Exception) -> None:
        never, message = isinstance(error, Unstorable), delivery.message
        detail = str(error) if never else f"{type(error).__name__} in each attempt"
        await self._refuse(delivery, DeadReason.ATTEMPTS_EXHAUSTED, detail)
        # It may have its place in the order, and readers wait for what is on its way to cold.
        if message is not None:
            if never:
                await self._settler.forget(*message.name)
            else:
                await self._settler.free(message.recipient, message.id, self._announce)
        await self._finish([delivery])

    async def _refuse_all(self, refused: Sequence[Refusal]) -> list[Delivery]:
        """Returns those that the dead letters do not take now; what came together with them does not wait for it."""
        for index, (delivery, reason, detail) in enumerate(refused):
            try:
                await self._free_place(delivery)
                await self._refuse(delivery, reason, detail)
                await self._finish([delivery])
            except (Unavailable, TimeoutError):
                return [left for left, *_ in refused[index:]]
        return []

    async def _free_place(self, delivery: Delivery) -> None:
        """Another pipeline may have given what is damaged now a place on its way to cold: readers wait for that."""
        if delivery.reason != DeadReason.DAMAGED or not (delivery.delivered_before and delivery.recipient):
            return
        await self._settler.free(delivery.recipient, delivery.origin, self._announce)

    async def _refuse(self, delivery: Delivery, reason: DeadReason, detail: str) -> None:
        async with asyncio.timeout(CALL_SECONDS):
            await self._refuser.refuse(delivery, reason, detail)


def _checked(delivery: Delivery) -> Delivery:
    """``delivery``; without its message where that does not match its checksum, since nothing it says can be relied on:
    it holds up nobody, and is routed to nobody."""
    message = delivery.message
    if message is None or is_whole(message):
        return delivery
    return structs.replace(
        delivery, message=None, reason=DeadReason.DAMAGED, problem=damage.DETAIL,
        origin=message.id, recipient=message.recipient, body=message.envelope,
    )  # fmt: skip
