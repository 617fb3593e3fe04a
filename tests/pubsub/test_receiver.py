"""How a stream is opened again: the service ends each one, and means nothing by it."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import grpc
import pytest

from router.backends.pubsub import receiver
from router.backends.pubsub.receiver import Stream
from router.backends.pubsub.wire import PubSubApi
from router.errors import RouterError
from tests.contract.ingress import TURN_SECONDS

pytestmark = pytest.mark.anyio
STREAMS = 5


class Ended:
    """A stream on which nothing comes until the service ends it."""

    def __init__(self, code: grpc.StatusCode | None) -> None:
        """``code``: ``None`` for an end without an error."""
        self._code = code

    async def write(self, request: Any) -> None:
        del request

    async def read(self) -> Any:
        if self._code is None:
            return grpc.aio.EOF
        raise grpc.aio.AioRpcError(self._code, grpc.aio.Metadata(), grpc.aio.Metadata(), "the stream has ended")

    def cancel(self) -> None:
        pass


class Ending:
    """A service that ends each stream."""

    def __init__(self, code: grpc.StatusCode | None) -> None:
        self.opened = 0
        self.all = asyncio.Event()
        self._code = code

    def streaming_pull(self, subscription: str) -> Ended:
        del subscription
        self.opened += 1
        if self.opened > STREAMS:
            self.all.set()
        return Ended(self._code)


async def failures(code: grpc.StatusCode | None) -> list[RouterError]:
    """What is told of ``STREAMS`` streams that end one after another, and which are all opened again."""
    api, told = Ending(code), list[RouterError]()

    async def took(received: object) -> None:
        raise AssertionError(received)

    stream = Stream(cast(PubSubApi, api), "the-subscription", 10, random.Random(1))
    running = asyncio.create_task(stream.run(took, told.append))
    async with asyncio.timeout(TURN_SECONDS):
        await api.all.wait()
    running.cancel()
    await asyncio.wait([running])
    return told[: STREAMS - 1]


ENDS = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED, None]


@pytest.mark.parametrize("code", ENDS)
async def test_an_idle_stream_that_the_service_ends_is_no_failure(
    code: grpc.StatusCode | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "LASTING_SECONDS", 0.0)
    assert await failures(code) == []


@pytest.mark.parametrize("code", ENDS)
async def test_streams_that_end_at_once_are_failures_after_the_first(code: grpc.StatusCode | None) -> None:
    assert len(await failures(code)) == STREAMS - 1


async def test_a_stream_that_cannot_be_opened_is_tried_more_and_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it ends without an error."""
    tries: list[int] = []

    def noted(attempt: int, chance: random.Random) -> float:
        del chance
        tries.append(attempt)
        return 0.0

    monkeypatch.setattr(receiver, "pause", noted)
    await failures(None)
    assert tries[:STREAMS] == [1, 2, 3, 4, 5]
