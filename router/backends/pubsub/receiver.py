"""Receives deliveries: by one stream, or by a number of Pull calls.

Both hand lists of ``ReceivedMessage`` to ``took``, and read nothing more until it returns. They call ``failed`` with
each failure, and try again.
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
"""More than a pipeline ever holds (in an outage of the online store), so that the service never stops sending first."""
HEARTBEAT_SECONDS = 30.0
"""The service ends a stream on which the client sends nothing."""
LASTING_SECONDS = 60.0
"""A stream that has lived this long worked, even if nothing came: a stream to a server that is gone or cannot be
reached ends before that, by the time-outs of its connection. The service ends each stream after half an hour or so,
always with an error; that is normal."""
PULL_MESSAGES = 1000
PULL_SECONDS = 2.0
"""Time-out of a Pull call. If there is nothing, the emulator answers a second before it. So no delivery goes to a call
that was just given up, and a consumer that stops waits for a second only."""
TICK_SECONDS = 0.05
"""How often the emulator looks for messages for a waiting call."""

Took = Callable[[Sequence[Any]], Awaitable[None]]
Failed = Callable[[RouterError], None]


class Source(Protocol):
    async def run(self, took: Took, failed: Failed) -> None:
        """Receive until stopped or cancelled."""
        ...

    async def stop(self) -> None:
        """Make ``run`` return; nothing is received after that."""
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
        """Close this end of the stream; the service then closes the other. From then on it sends what is handed back to
        other consumers. If the stream were cancelled instead, it might send that down this stream once more."""
        self._stopping = True
        if self._call is not None:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.done_writing()

    async def _end(self, took: Took) -> RouterError:
        """Read until the stream ends; returns why it did."""
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
    """Keeps ``count`` Pull calls open: each is made again when it is answered.

    The emulator looks for messages when a call is made and then every ``TICK_SECONDS``. So the calls begin at even
    intervals within that time: if all began together, a message would wait for half of it on average.

    No call is cancelled: the emulator does not notice that, and hands the next messages to the cancelled call.
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
