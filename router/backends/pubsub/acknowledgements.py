"""Acknowledges deliveries of one subscription, hands them back and extends their leases, in batches: each call takes
what waits when it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from router import logs
from router.backends.pubsub.wire import PubSubApi
from router.errors import RouterError

LOG = logs.logger(__name__)
BATCH_IDS = 1000
"""Ids of one request; the service takes 512 KiB, and an id has some 200 bytes."""
EXTENSIONS = 8
"""Concurrent requests to extend leases. For 110,000 leases, requests of 65 ms one after another would take 7 s, and the
last would come too late."""
EXTENSION_SECONDS = 3.0
"""Time-out of a request to extend leases: if it hangs, the next one must still come before the leases end."""


WAITING_ACKS = 100_000
"""Most acknowledgements, of about 200 bytes each, that wait while the service takes them more slowly than they come."""


class Settling:
    """Tells the service what became of the deliveries of one subscription.

    A call that fails is repeated only within its budget. Then its ids are given up: the service redelivers these
    messages when their leases run out, and the router recognizes them. The ids that waited behind the failed call are
    given up too: their leases are not extended any more either, and a consumer that stops must not wait while one call
    after another fails.
    """

    def __init__(self, api: PubSubApi, subscription: str, hand_back_seconds: int = 0) -> None:
        """``hand_back_seconds``: how long the service waits before it redelivers what was handed back."""
        self._api = api
        self._subscription = subscription
        self._hand_back_seconds = hand_back_seconds
        self._acks: list[str] = []
        self._nacks: list[str] = []
        self._work: asyncio.Task[None] | None = None
        self.lost = 0
        """Acknowledgements and hand-backs that did not reach the service."""

    def ack(self, ids: Sequence[str]) -> None:
        """Acknowledge these soon. If too many wait, the oldest are given up, since their leases end first."""
        self._acks += ids
        if (over := len(self._acks) - WAITING_ACKS) > 0:
            del self._acks[:over]
            self._lose(over, "too many acknowledgements wait")
        self._start()

    def nack(self, ids: Sequence[str]) -> None:
        """Hand these back soon."""
        self._nacks += ids
        self._start()

    async def told(self) -> None:
        """Return when the service has been told of all that waits, or it was given up."""
        if self._work is not None:
            await asyncio.wait([self._work])

    async def extend(self, ids: Sequence[str], seconds: int) -> None:
        """Extend these leases until ``seconds`` from now."""
        batches = iter([ids[start : start + BATCH_IDS] for start in range(0, len(ids), BATCH_IDS)])
        async with asyncio.TaskGroup() as extending:
            for _ in range(EXTENSIONS):
                extending.create_task(self._extend(batches, seconds))

    async def _extend(self, batches: Iterator[Sequence[str]], seconds: int) -> None:
        for batch in batches:
            try:
                async with asyncio.timeout(EXTENSION_SECONDS):
                    await self._api.modify_ack_deadline(self._subscription, batch, seconds)
            except (RouterError, TimeoutError) as error:
                LOG.warning("leases were not extended", count=len(batch), reason=str(error) or "no answer")

    def _start(self) -> None:
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._acks or self._nacks:
                acks, self._acks = self._acks[:BATCH_IDS], self._acks[BATCH_IDS:]
                nacks, self._nacks = self._nacks[:BATCH_IDS], self._nacks[BATCH_IDS:]
                if not await self._try(acks, self._api.acknowledge):
                    self._give_up(self._acks)
                if not await self._try(nacks, self._hand_back):
                    self._give_up(self._nacks)
        finally:
            self._work = None

    async def _hand_back(self, subscription: str, ids: Sequence[str]) -> None:
        await self._api.modify_ack_deadline(subscription, ids, self._hand_back_seconds)

    async def _try(self, ids: Sequence[str], tell: Callable[[str, Sequence[str]], Awaitable[None]]) -> bool:
        """Tell the service of ``ids``; returns whether that succeeded."""
        if ids:
            try:
                await tell(self._subscription, ids)
            except RouterError as error:
                self._lose(len(ids), str(error))
                return False
        return True

    def _give_up(self, waiting: list[str]) -> None:
        if waiting:
            self._lose(len(waiting), "they waited behind a request that failed")
            waiting.clear()

    def _lose(self, count: int, reason: str) -> None:
        self.lost += count
        LOG.warning("gave up acknowledgements: these deliveries come again", count=count, reason=reason)
