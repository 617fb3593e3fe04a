"""Publishing to one topic, batched over all callers without making anybody wait for a batch.

Each request takes what waits for one ordering key when it starts. One request of a key is under way at a time, so that
requests cannot overtake one another. A request that fails does not stop the next one of its key.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from router.backends.pubsub.wire import PubSubApi
from router.errors import Refused, RouterError, Unavailable

CALLS = 32
"""Requests under way at once."""
SHARED_KEY_CALLS = 8
"""The same if many recipients share a few keys: messages wait a little longer, and batches are larger."""
BATCH_MESSAGES = 500
BATCH_BYTES = 4_000_000
"""Of one request; the service takes 1,000 messages and 10 MB."""
WAITING_MESSAGES = 20_000
WAITING_BYTES = 64_000_000
"""Bounds of what waits for confirmation; beyond either, ``publish`` fails at once."""
PUBLISH_SECONDS = 10.0
"""A message that is not confirmed by then has failed; if it was not sent yet, it is never sent."""


class _Waiting(Struct, eq=False):
    message: Any
    size: int
    confirmed: asyncio.Future[None]
    behind: _Waiting | None = None
    """The next of its key in one call of ``publish_each``."""


class Publisher:
    """The write end of one topic, as an async context manager."""

    def __init__(self, api: PubSubApi, topic: str, calls: int = CALLS) -> None:
        """``topic``: its full name; ``calls``: how many requests may be under way at once."""
        self._api = api
        self._topic = topic
        self._most_calls = calls
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._ready: dict[str, None] = {}
        """Keys with something to send and no request under way, the longest ready first."""
        self._busy: set[str] = set()
        self._calls: set[asyncio.Task[None]] = set()
        self._messages = 0
        self._bytes = 0
        self._turn: asyncio.Handle | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._turn is not None:
            self._turn.cancel()
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        for waiting in [waiting for lane in self._waiting.values() for waiting in lane]:
            self._settle(waiting, Unavailable("the router is stopping"))

    async def publish(self, messages: Sequence[Any]) -> None:
        """Return once all of ``messages`` (``PubsubMessage``) are confirmed; raises ``Unavailable``.

        Messages of one ordering key keep their order, within a call and from call to call.
        """
        confirmed = [self._enqueue(message).confirmed for message in messages]
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await (confirmed[0] if len(confirmed) == 1 else _all(confirmed))
        except TimeoutError as error:
            raise Unavailable(f"{self._topic} did not confirm within {PUBLISH_SECONDS:g} s") from error
        finally:
            for future in confirmed:
                future.cancel()

    async def publish_each(self, messages: Sequence[Any]) -> list[RouterError | None]:
        """Like ``publish``, but return the error of each message, or ``None``.

        After one that fails with ``Unavailable``, the later ones of its key fail too, and are not sent any more.
        """
        waiting, last = list[_Waiting](), dict[str, _Waiting]()
        full: RouterError | None = None
        try:
            for message in messages:
                each = self._enqueue(message)
                if before := last.get(message.ordering_key):
                    before.behind = each
                last[message.ordering_key] = each
                waiting.append(each)
        except Unavailable as error:
            full = error
        try:
            if waiting:
                await asyncio.wait([each.confirmed for each in waiting], timeout=PUBLISH_SECONDS)
            late = Unavailable(f"{self._topic} did not confirm within {PUBLISH_SECONDS:g} s")
            outcomes = [_error(each.confirmed) if each.confirmed.done() else late for each in waiting]
        finally:
            for each in waiting:
                each.confirmed.cancel()
                _forget(each.confirmed)
        return outcomes + [full] * (len(messages) - len(waiting))

    def offer(self, message: Any) -> bool:
        """Send ``message`` without waiting for it; returns whether there was room for it."""
        try:
            self._enqueue(message).confirmed.add_done_callback(_forget)
        except Unavailable:
            return False
        return True

    def _enqueue(self, message: Any) -> _Waiting:
        size = message.ByteSize()
        if self._messages >= WAITING_MESSAGES or self._bytes + size > WAITING_BYTES:
            raise Unavailable(f"too many messages wait to be published to {self._topic}; try again")
        self._messages += 1
        self._bytes += size
        waiting = _Waiting(message, size, self._loop.create_future())
        self._waiting.setdefault(message.ordering_key, deque()).append(waiting)
        self._make_ready(message.ordering_key)
        return waiting

    def _make_ready(self, key: str) -> None:
        if key not in self._busy:
            self._ready.setdefault(key)
            if self._turn is None:
                # Once for all that is published in this turn of the loop.
                self._turn = self._loop.call_soon(self._send_ready)

    def _send_ready(self) -> None:
        self._turn = None
        while self._ready and len(self._calls) < self._most_calls:
            key = next(iter(self._ready))
            del self._ready[key]
            if batch := self._take(key):
                if key:
                    self._busy.add(key)
                elif key in self._waiting:
                    self._ready[key] = None
                self._start(key, batch)

    def _take(self, key: str) -> list[_Waiting]:
        """The next batch of ``key``, without messages whose callers have given up."""
        lane, batch, size = self._waiting[key], list[_Waiting](), 0
        while lane and len(batch) < BATCH_MESSAGES and (not batch or size + lane[0].size <= BATCH_BYTES):
            waiting = lane.popleft()
            if waiting.confirmed.done():
                self._leave(waiting)
            else:
                batch.append(waiting)
                size += waiting.size
        if not lane:
            del self._waiting[key]
        return batch

    def _start(self, key: str, batch: list[_Waiting]) -> None:
        task = self._loop.create_task(self._send(batch))
        self._calls.add(task)
        task.add_done_callback(lambda done: self._sent(key, batch, done))

    def _sent(self, key: str, batch: list[_Waiting], task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._busy.discard(key)
        if task.cancelled():
            for waiting in batch:
                self._settle(waiting, Unavailable("the router is stopping"))
            return
        task.result()
        if key in self._waiting:
            self._make_ready(key)
        elif self._ready and self._turn is None:
            self._turn = self._loop.call_soon(self._send_ready)

    async def _send(self, batch: list[_Waiting]) -> None:
        error: RouterError | None = None
        try:
            await self._api.publish(self._topic, [waiting.message for waiting in batch])
        except Refused as refused:
            if len(batch) > 1:
                # At least one message of the batch is refused: send them one by one, in their order.
                for waiting in batch:
                    if waiting.confirmed.done():
                        self._leave(waiting)
                    else:
                        await self._send([waiting])
                return
            error = refused
        except Unavailable as unavailable:
            error = unavailable
        for waiting in batch:
            self._settle(waiting, error)

    def _settle(self, waiting: _Waiting, error: RouterError | None) -> None:
        self._leave(waiting)
        if waiting.confirmed.done():
            return
        if error is None:
            waiting.confirmed.set_result(None)
        else:
            waiting.confirmed.set_exception(error)
        if isinstance(error, Unavailable):
            # None behind it may overtake it; what is not sent yet leaves when its turn comes.
            behind = waiting.behind
            while behind is not None and not behind.confirmed.done():
                behind.confirmed.set_exception(error)
                behind = behind.behind

    def _leave(self, waiting: _Waiting) -> None:
        self._messages -= 1
        self._bytes -= waiting.size


async def _all(futures: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*futures)


def _error(future: asyncio.Future[None]) -> RouterError | None:
    """The error of a future that is done."""
    error = future.exception()
    assert error is None or isinstance(error, RouterError)
    return error


def _forget(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
