"""The pipeline: from the ingress to the hot or the cold queue, one recipient's messages strictly in order.

A recipient with messages in work is *busy*: what arrives for them meanwhile waits until these are done, and for nobody
else's. A pass (see ``passes``) that fails is repeated from the top; every step is idempotent, so the repetition
completes what is missing and doubles nothing. ``deliveries`` says how far each delivery has come.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import Any

from router.clock import Clock, Tasks
from router.core.copies import Copies, Unstorable
from router.core.dead_letters import Refuser
from router.core.deliveries import Deliveries, InFlight, Statistics, Step, at, not_at
from router.core.dependencies import Reports
from router.core.ingress_receipts import Receipts
from router.core.outage import Outage
from router.core.passes import Passes
from router.core.placement import Placement
from router.core.recipients import Recipients, by_recipient, portions
from router.core.recovery import Recovery
from router.core.settler import Settler
from router.core.undeliverable import Undeliverable
from router.errors import DataDirLost, Unavailable
from router.interfaces import ColdQueue, IngressConsumer, OnlineStore, PushNotifier
from router.messages import Delivery
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
HAND_BACK_SECONDS = 1.0
"""A process that stops waits for the ingress no longer."""


class Pipeline:
    """Consumes the ingress until it is cancelled; several pipelines may run at once, on any nodes.

    State: its deliveries, who is busy, whether an outage lasts, and the tasks under way.
    """

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
        self._clock, self._chance, self._tasks, self._reports = clock, chance, tasks, reports
        self._deliveries, self._recipients, self._outage = Deliveries(), Recipients(), Outage()
        self._work: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        settler = Settler(online, cold, call_seconds=CALL_SECONDS)
        copies = Copies(cold, settler, push, keeper=keeper, metrics=metrics, call_seconds=CALL_SECONDS)
        self._receipts = receipts = Receipts(consumer, self._deliveries, self._let_go, call_seconds=CALL_SECONDS)
        self._undeliverable = Undeliverable(
            refuser, settler, copies, receipts, self._outage,
            max_attempts=max_attempts, reports=reports, call_seconds=CALL_SECONDS,
        )  # fmt: skip
        recovery = Recovery(
            online, settler, receipts, self._deliveries, self._outage,
            clock=clock, chance=chance, batch=BATCH_MESSAGES, call_seconds=CALL_SECONDS,
        )  # fmt: skip
        placement = Placement(
            online, self._outage, lambda: self._start_work(recovery.run(), "outage"),
            write_through=write_through, clock=clock, metrics=metrics, call_seconds=CALL_SECONDS,
        )  # fmt: skip
        self._passes = Passes(placement, copies, self._undeliverable, receipts, self._start_part)

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

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Start on those whose recipient is free; the others wait behind the work that is under way."""
        begun = self._recipients.begin(self._deliveries.receive(deliveries))
        # Apart, since what is refused takes other ways, which nobody else has to wait for.
        self._start(not_at(begun, Step.REFUSED))
        self._start(at(begun, Step.REFUSED))

    async def finish(self) -> None:
        """Return when all that was received is routed."""
        while self._work:
            await asyncio.wait(self._work)

    async def hand_back(self) -> None:
        """Stop at once, and for good; the ingress gives what is not routed to another pipeline, or to the next."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._receipts.hand_back(HAND_BACK_SECONDS)

    def _has_room(self) -> bool:
        fits = self._deliveries.held < HELD_MESSAGES and self._deliveries.held_bytes < HELD_BYTES
        return fits and self._deliveries.owed < OUTAGE_MESSAGES

    def _let_go(self, gone: Sequence[InFlight]) -> None:
        """These are held no longer; start on what has waited for recipients with nothing else in work."""
        if self._has_room():
            self._room.set()
        self._start(self._recipients.end(gone))

    def _start(self, begun: Sequence[InFlight]) -> None:
        for batch in portions(begun):
            self._start_work(self._advance(batch), "route")

    def _start_part(self, part: Sequence[InFlight]) -> None:
        self._start_work(self._advance(part, is_routed=True), "route")

    def _start_work(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._tasks.spawn(work, name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _advance(self, batch: Sequence[InFlight], *, is_routed: bool = False) -> None:
        """Pass after pass until all is done. ``is_routed``: only what the outcomes owe is left of the first one."""
        passes = tries = 0
        while batch:
            passes += 1
            try:
                left = await (self._passes.follow(batch) if is_routed else self._passes.run(batch))
            except (Unavailable, TimeoutError) as error:
                # A dependency is down: that is not a fault of the messages and does not count as an attempt.
                left = self._deliveries.still_held(batch)
                if isinstance(error, DataDirLost) and len(by_recipient(left)) > 1:
                    # A damaged page is that of some recipients, and the others do not wait for it.
                    self._divide(left)
                    return
            except Exception as error:  # noqa: BLE001 - one message that cannot be routed must not stop the others
                if not isinstance(error, Unstorable):
                    self._reports.bug("routing", error)
                left = self._deliveries.still_held(batch)
                if len(left) > 1:
                    self._divide(left)
                    return
                tries += 1
                blame, behind = self._undeliverable.blame, self._recipients.behind
                left = [flight for flight in left if not await blame(flight, tries, error, behind(flight))]
            batch, is_routed = left, False
            if batch:
                await self._clock.sleep(backoff(passes, self._chance))

    def _divide(self, batch: Sequence[InFlight]) -> None:
        """Narrow down which message fails: each recipient alone, then the first message alone."""
        parts = by_recipient(batch)
        if len(parts) == 1:
            self._recipients.put_back(batch[1:])
            parts = [list(batch[:1])]
        for own in parts:
            self._start(own)

    def statistics(self) -> Statistics:
        """What it has to do at the moment."""
        return Statistics(
            held=self._deliveries.held,
            held_bytes=self._deliveries.held_bytes,
            busy=len(self._recipients),
            owed=self._deliveries.owed,
            outage=self._outage.lasts,
            tasks=len(self._work),
        )

    def __repr__(self) -> str:
        return f"<Pipeline: {self.statistics()}, {self._deliveries}>"
