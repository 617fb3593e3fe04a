"""When one's own mail arrives, beside somebody else's: a router without its edge, whose cold queue is slow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from unittest import mock

from benchmarks.load import PAGE
from benchmarks.load_http import ANSWER_SECONDS
from benchmarks.mail import envelope, user
from router.bench.latencies import Latencies
from router.config import Config, Embedded, Online
from router.factory import Factory
from router.messages import Connection, Lane, Message, Queued

COLD_SECONDS = 0.06
"""What a write to cold takes, as over a network."""
LOOK_SECONDS = 0.001
LEASE_SECONDS = 3600
STATES = ("online", "offline")
CURIOUS = {state: user(f"curious-{state}-", 0) for state in STATES}
OTHERS = {state: user(f"other-{state}-", 0) for state in STATES}
Arrivals = dict[tuple[str, str], Latencies]
"""By one's own state and the other one's."""


async def arrivals(data_dir: Path, count: int) -> Arrivals:
    """``count`` probes in turns: to another and to oneself at once, then to oneself again, until that has arrived."""
    taken: Arrivals = {(own, other): Latencies() for own in STATES for other in STATES}
    config = Config(embedded=Embedded(data_dir=data_dir), online=Online(lease_seconds=LEASE_SECONDS))
    async with Factory(config) as factory, routing(factory):
        for number in range(count):
            for (own, other), latencies in taken.items():
                latencies.add(await probe(factory, CURIOUS[own], OTHERS[other], f"{number}-{own}-{other}"))
    return taken


@contextlib.asynccontextmanager
async def routing(factory: Factory) -> AsyncIterator[None]:
    """A pipeline at work over a slow cold queue, and who is online."""
    online, cold = await factory.online_store(), await factory.cold_queue()
    put = type(cold).put

    async def slow(of: object, messages: Sequence[Queued]) -> list[Queued]:
        del of
        await asyncio.sleep(COLD_SECONDS)
        return await put(cold, messages)

    for person in (CURIOUS["online"], OTHERS["online"]):
        await online.connect(Connection(person, "phone", factory.node, factory.clock.now()), 1)
    with mock.patch.object(type(cold), "put", slow):
        pipeline = await factory.pipeline()
        work = asyncio.create_task(pipeline.run())
        try:
            yield
        finally:
            work.cancel()
            await asyncio.wait([work])
            await pipeline.hand_back()


async def probe(factory: Factory, own: str, other: str, name: str) -> float:
    """Seconds until the second message to ``own`` can be fetched; then all that there is goes."""
    producer, queue = await factory.ingress_producer(), await factory.message_queue()

    def message(what: str, recipient: str) -> Message:
        return Message(f"{name}-{what}", recipient, envelope(recipient), Lane.NORMAL, False, factory.clock.now())

    async def fetched(person: str, wanted: str) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                ids = [queued.message.id for queued in await queue.fetch(person, PAGE)]
                if wanted in ids:
                    break
                await asyncio.sleep(LOOK_SECONDS)
        await queue.acknowledge(person, ids)

    await asyncio.gather(producer.publish([message("other", other)]), producer.publish([message("first", own)]))
    since = time.perf_counter()
    await producer.publish([message("second", own)])
    await fetched(own, f"{name}-second")
    took = time.perf_counter() - since
    await fetched(other, f"{name}-other")
    # The next probe finds nothing under way.
    await asyncio.sleep(COLD_SECONDS)
    return took
