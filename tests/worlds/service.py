"""A whole service in the process of the test, on real ports, with its clock and its randomness in hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from unittest import mock

from pydantic import SecretStr

from router.auth.embedded import EmbeddedKey
from router.config import Config
from router.core.clocks import ClockWatch
from router.core.readiness import Readiness
from router.factory import Factory
from router.service import _Service
from tests.support.clock import ManualClock
from tests.support.stores import CAP, Stores
from tests.worlds.client import Socket

STEP_SECONDS = 1.0
"""So much time goes by from one step to the next; less than any span of the router's."""
TICK_SECONDS, PAUSE_SECONDS = 0.0001, 0.004
SETTLE_SECONDS = COME_SECONDS = 20.0
"""Until all is where it belongs; until mail has come that will."""
TOKEN_SECONDS = 3600
PAIR_RATE, PAIR_BURST = 0.05, 40
QUEUE_BYTES, LARGE_BYTES = 8192, 8151
"""Beside a large envelope no other one fits into a queue."""
LARGE_COUNT = 4
INBOUND_BYTES, INBOUND_BYTES_PER_SECOND = LARGE_COUNT * LARGE_BYTES, 0.1
"""So many large ones spend what may come to one recipient. It is whole again after days; the stranger's own mail is a
small part of it."""
REPOKE_SECONDS, REPOKES = 16.0, 2
PAGE_BYTES = 1 << 20


class Entropy:
    """Random bytes that depend on nothing but the step that is taken, and on how many were asked for in it: what others
    ask for between two steps of somebody changes nothing for them."""

    def __init__(self) -> None:
        self.begin("start")

    def begin(self, step: str) -> None:
        self._chance = random.Random(step)

    def __call__(self, count: int) -> bytes:
        return self._chance.randbytes(count)


class Running:
    """A router that serves, and what holds it in hand."""

    def __init__(self, service: _Service, factory: Factory, clock: ManualClock, entropy: Entropy) -> None:
        self.port = service._servers[0].port
        self.factory = factory
        self.entropy = entropy
        assert service._pipeline is not None
        self._pipeline = service._pipeline
        self._clock = clock
        self._key = EmbeddedKey.open(factory.config.embedded.data_dir)
        self._next = clock.now()

    def token(self, user: str) -> str:
        return self._key.sign(user, self._clock.now(), TOKEN_SECONDS)

    def begin(self, step: str, seconds: float = STEP_SECONDS) -> None:
        """Begin a step so long after the last one began, whatever was done meanwhile; all that is random in it is that
        of ``step``."""
        self._next += int(seconds * 1_000_000)
        assert self._clock.now() < self._next, "a step took too long"
        self._clock.advance((self._next - self._clock.now()) / 1_000_000)
        self.entropy.begin(step)

    async def poked(self, socket: Socket) -> bool:
        """Whether ``socket`` is poked. A poke that is lost is sent again: for that there is time, which goes by in any
        case."""
        self._next += int((REPOKES + 1) * REPOKE_SECONDS * 1_000_000)
        for _ in range(REPOKES):
            if await socket.poked():
                return True
            self._clock.advance(REPOKE_SECONDS)
        return await socket.poked()

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = SETTLE_SECONDS) -> None:
        """Let a little time go by until ``condition`` holds; raises ``TimeoutError`` after real ``seconds``."""
        async with asyncio.timeout(seconds):
            while not await condition():
                self._clock.advance(TICK_SECONDS)
                await asyncio.sleep(PAUSE_SECONDS)

    def refused(self, reason: str) -> float:
        """How many dead letters there are of this reason."""
        return self._count("router_dead_letters", reason=reason)

    async def settled(self) -> None:
        """Return when all that was accepted is where it belongs, as far as this service knows."""

        async def settled() -> bool:
            routed, accepted = (self._count(f"router_messages_{what}") for what in ("routed", "accepted"))
            return routed >= accepted and not self._pipeline.statistics().tasks

        await self.until(settled)

    async def holds(self, user: str, id_: str) -> bool:
        """Whether ``id_`` comes to the queue of ``user``; nobody looks at it."""
        online, cold = await self.factory.online_store(), await self.factory.cold_queue()

        async def there() -> bool:
            hot, page = await online.inspect(user, CAP), await cold.read(user, CAP, PAGE_BYTES)
            return any(queued.message.id == id_ for queued in (*hot, *page.messages))

        with suppress(TimeoutError):
            await self.until(there, COME_SECONDS)
            return True
        return False

    def _count(self, metric: str, **labels: str) -> float:
        families = self.factory.metrics.registry.collect()
        return sum(
            sample.value
            for family in families
            if family.name == metric
            for sample in family.samples
            if sample.name == f"{metric}_total" and labels.items() <= sample.labels.items()
        )


def config_of(stores: Stores) -> Config:
    """``serve`` on free ports."""
    config = stores.config(cap=CAP)
    secret = SecretStr("the same in all worlds")
    return config.model_copy(
        update={
            "server": config.server.model_copy(
                update={"api_port": 0, "ws_port": 0, "admin_port": 0, "ping_seconds": 300.0}
            ),
            "ingress": config.ingress.model_copy(update={"idempotency_secret": secret}),
            "limits": config.limits.model_copy(
                update={
                    "pair_rate": PAIR_RATE,
                    "pair_burst": PAIR_BURST,
                    "queue_bytes": QUEUE_BYTES,
                    "inbound_bytes": INBOUND_BYTES,
                    "inbound_bytes_per_second": INBOUND_BYTES_PER_SECOND,
                }
            ),
        }
    )


async def _looks_at_no_clock(self: ClockWatch) -> None:
    """A server's clock cannot be held in hand: beside one that goes by days it would be a clock to be distrusted."""
    await asyncio.Event().wait()


async def _does_not_look(self: ClockWatch) -> None:
    """Nor before it begins."""


@asynccontextmanager
async def serving(stores: Stores, *, looks_at_clocks: bool = False) -> AsyncIterator[Running]:
    """``router serve`` over ``stores``, until the end of the block."""
    config, clock, entropy = config_of(stores), ManualClock(), Entropy()
    service = _Service(config, "serve")
    async with AsyncExitStack() as stack:
        if not looks_at_clocks:
            stack.enter_context(mock.patch.object(ClockWatch, "begin", _does_not_look))
            stack.enter_context(mock.patch.object(ClockWatch, "run", _looks_at_no_clock))
        factory = Factory(config, clock=clock, entropy=entropy, chance=random.Random(1), reports=service._reports)
        service._factory = await stack.enter_async_context(factory)
        service._readiness = Readiness(clock)
        await service._open(stack)
        yield Running(service, factory, clock, entropy)
