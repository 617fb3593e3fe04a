"""A pipeline at work in a test, and how to wait for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from router.core.pipeline import Pipeline
from tests.contract.stage import Stage
from tests.support.clock import AHEAD_SECONDS, run_until

TURN_SECONDS = 60.0


@asynccontextmanager
async def running(stage: Stage, seconds: float = TURN_SECONDS) -> AsyncIterator[Pipeline]:
    """A pipeline at work, for ``seconds`` at most; on leaving, what it holds is handed back."""
    pipeline = await stage.factory.pipeline()
    consuming = asyncio.create_task(pipeline.run())
    try:
        async with asyncio.timeout(seconds):
            yield pipeline
    finally:
        consuming.cancel()
        await asyncio.wait([consuming])
        await pipeline.hand_back()


async def eventually(stage: Stage, condition: Callable[[], Awaitable[bool]], ahead: float = AHEAD_SECONDS) -> None:
    """Let the clock run until ``condition`` holds, as ``run_until`` does; the caller bounds the time."""
    await run_until(stage.clock, condition, ahead)


async def waiting(stage: Stage, count: int) -> bool:
    """Whether ``count`` messages wait in the ingress."""
    backlog = await stage.producer.backlog()
    return backlog is not None and backlog.messages == count


async def routed(stage: Stage) -> None:
    """Return when the ingress is empty."""
    await eventually(stage, lambda: waiting(stage, 0))
