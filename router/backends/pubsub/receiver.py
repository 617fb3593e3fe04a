"""Where deliveries come from: one stream, or a number of calls that wait for some.

Both hand lists of ``ReceivedMessage`` to ``took`` and stop reading while that waits. What fails is told to ``failed``
and tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import grpc

from router.backends.google.calls import pause, translate
from router.backends.pubsub.wire import PubSubApi, StreamingPullRequest
from router.errors import RouterError, Unavailable

OUTSTANDING_MESSAGES = 110_000
"""More than a pipeline ever holds (in an outage of the online store), so that the service does not stop before it."""
HEARTBEAT_SECONDS = 30.0
"""The service ends a stream on which it hears nothing."""
LASTING_SECONDS = 60.0
"""A stream that has lived this long did work, though nothing came: one to a server that cannot be reached, or is gone,
ends before that, by the time-outs of its connection. The service ends each stream, after half an hour or so and always
with an error, and means nothing by it."""
PULL_MESSAGES = 1000
PULL_SECONDS = 2.0
"""How long a Pull call may take. The emulator answers it with nothing a second before that: no delivery meets a call
that was just given up, and a consumer that stops waits for a second only."""
TICK_SECONDS = 0.05
"""How often the emulator looks for what a waiting call may have."""

Took = Callable[[Sequence[Any]], Awaitable[None]]
Failed = Callable[[RouterError], None]


class Source(Protocol):
    async def run(self, took: Took, failed: Failed) -> None:
        """Receive until stopped or cancelled."""
        ...

    async def stop(self) -> None:
        """Let ``run`` return; nothing comes after it has."""
        ...


class Stream:
    """One StreamingPull, opened again whenever it ends."""

    def __init__(self, api: PubSubApi, subscription: str, lease_seconds: int, chance: random.Random) -> None:
        self._api = api
        self._subscription = subscription
        self._lease_seconds = lease_seconds
        self._chance = chance
        self._failures = 0
        self._call: Any = None
        self._stopping = False

    async def run(self, took: Took, failed: Failed) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping:
            opened = loop.time()
            ended = await self._end(took)
            if loop.time() - opened >= LASTING_SECONDS:
                self._failures = 0
            self._failures += 1
            # The service ends each stream now and then; only one that cannot be opened again is a failure.
            if self._failures > 1:
                failed(ended)
            await asyncio.sleep(pause(self._failures, self._chance))

    async def stop(self) -> None:
        """Close this end of the stream. The service then closes the other one, and knows from there on that what is
        handed back can go to others; with a stream that is just cut it may go down that stream once more."""
        self._stopping = True
        if self._call is not None:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.done_writing()

    async def _end(self, took: Took) -> RouterError:
        """Why the stream has ended, once it has."""
        service = f"Pub/Sub, {self._subscription}"
        try:
            await self._read(took)
        except grpc.aio.AioRpcError as error:
            return translate(service, error.code(), error.details() or "")
        return Unavailable(f"{service}: the stream was closed")

    async def _read(self, took: Took) -> None:
        call = self._call = self._api.streaming_pull(self._subscription)
        heart = asyncio.create_task(self._beat(call))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._failures = 0
                await took(response.received_messages)
        finally:
            heart.cancel()
            call.cancel()

    async def _beat(self, call: Any) -> None:
        request = StreamingPullRequest(
            subscription=self._subscription,
            stream_ack_deadline_seconds=self._lease_seconds,
            max_outstanding_messages=OUTSTANDING_MESSAGES,
        )
        try:
            while True:
                await call.write(request)
                request = StreamingPullRequest()
                await asyncio.sleep(HEARTBEAT_SECONDS)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream has ended, which its reader sees too


class Pulls:
    """``count`` Pull calls that wait, each made again when it is answered.

    The emulator looks for a waiting call when it is made and then every ``TICK_SECONDS``. So the calls begin at even
    distances within that time: those that begin together all look together, and a message waits for half of it.

    No call is cancelled: the emulator does not notice, and hands the next messages to the cancelled call.
    """

    def __init__(self, api: PubSubApi, subscription: str, count: int, chance: random.Random) -> None:
        self._api = api
        self._subscription = subscription
        self._count = count
        self._chance = chance
        self._stopping = False

    async def run(self, took: Took, failed: Failed) -> None:
        async with asyncio.TaskGroup() as pulling:
            for number in range(self._count):
                pulling.create_task(self._pull(took, failed, TICK_SECONDS * number / self._count))

    async def stop(self) -> None:
        """Let each call end by itself; see ``PULL_SECONDS``."""
        self._stopping = True

    async def _pull(self, took: Took, failed: Failed, delay: float) -> None:
        await asyncio.sleep(delay)
        failures = 0
        while not self._stopping:
            try:
                received = await self._api.pull(self._subscription, PULL_MESSAGES, PULL_SECONDS)
            except RouterError as error:
                failures += 1
                failed(error)
                await asyncio.sleep(pause(failures, self._chance))
            else:
                failures = 0
                await took(received)
