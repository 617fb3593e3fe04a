"""The connection between the parent and a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from router.errors import Unavailable
from router.workers.link import Answers, Link

pytestmark = pytest.mark.anyio
EVENT_SECONDS = 60.0


class Pair:
    """Both ends in one process, which is what neither of them can see."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.parent_gone = asyncio.Event()
        ours, self._theirs = socket.socketpair()
        self.parent = Link(ours, {"who": self._parent}, lambda: None)
        answers: Answers = {"long": self._long, "slow": self._slow, "quick": self._quick}
        self.worker = Link(self._theirs, answers, self.parent_gone.set)

    async def _parent(self) -> str:
        return "parent"

    async def _long(self) -> str:
        return "é\n" * 500_000

    async def _slow(self) -> None:
        await self.let_go.wait()

    async def _quick(self) -> int:
        return 1


@pytest.fixture
async def pair(anyio_backend: str) -> AsyncIterator[Pair]:
    del anyio_backend
    made = Pair()
    async with made.parent, made.worker, asyncio.timeout(EVENT_SECONDS):
        yield made


async def test_each_end_asks_and_a_slow_answer_holds_up_no_other(pair: Pair) -> None:
    slow = asyncio.create_task(pair.parent.ask("slow"))
    assert await pair.parent.ask("quick") == 1
    assert await pair.worker.ask("who") == "parent"
    assert await pair.parent.ask("long") == "é\n" * 500_000
    assert not slow.done()
    pair.let_go.set()
    assert await slow is None


async def test_an_answer_that_nobody_waits_for_any_more_is_for_nobody(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await pair.parent.ask("slow")
    pair.let_go.set()
    assert await pair.parent.ask("quick") == 1


async def test_who_is_asked_and_goes_answers_no_more() -> None:
    pair = Pair()
    async with AsyncExitStack() as parent, pair.worker, asyncio.timeout(EVENT_SECONDS):
        await parent.enter_async_context(pair.parent)
        asking = asyncio.create_task(pair.worker.ask("who"))
        await parent.aclose()
        await pair.parent_gone.wait()
        with pytest.raises(Unavailable):
            await asking
        with pytest.raises(Unavailable):
            await pair.worker.ask("who")
