"""A router without its edge: real components on a clock in hand, and short words for what tests do with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from router.checksum import checksum
from router.config.roles import Role
from router.core.connections import ConnectionManager
from router.core.dependencies import Reports
from router.core.migrator import Migrator
from router.core.sweeper import Sweeper
from router.core.user_queue import CompositeMessageQueue
from router.factory import Factory
from router.interfaces import ColdQueue, IngressProducer, OnlineStore
from router.messages import Connection, Delivery, Lane, Message, Move, Outcome, Queued, Routed, Settled
from router.spans import Spans
from tests.support.clock import ManualClock
from tests.support.stores import CAP, Durability, Stores

BOB = "urn:sm:user:bob"
EVE = "urn:sm:user:{eve}/__x__"
PAGE_BYTES = 1 << 30


def envelope(user: str, lane: Lane, ephemeral: bool) -> bytes:
    """The canonical envelope that says the same as the arguments."""
    said = b',"isEphemeral":true' if ephemeral else b""
    said += b',"priority":5' if lane is Lane.EXPRESS else b""
    return b'{"recipientId":"%b"%b}' % (user.encode(), said)


class Socket:
    """A ``Socket`` that counts."""

    def __init__(self) -> None:
        self.pokes = 0
        self.pings = 0
        self.silent_seconds = 0.0
        self.codes: list[int] = []

    def ping(self) -> None:
        self.pings += 1

    async def poke(self) -> None:
        self.pokes += 1

    async def close(self, code: int, reason: str) -> None:
        del reason
        self.codes.append(code)


def queue_of(stage: Stage) -> CompositeMessageQueue:
    """A queue over the components of ``stage`` as they are now, which a test may have wrapped."""
    factory = stage.factory
    return CompositeMessageQueue(stage.online, stage.cold, stage.migrator, clock=stage.clock, metrics=factory.metrics)


@dataclass
class Stage:
    """One process's components."""

    stores: Stores
    factory: Factory
    clock: ManualClock
    producer: IngressProducer
    online: OnlineStore
    cold: ColdQueue
    queue: CompositeMessageQueue
    manager: ConnectionManager
    migrator: Migrator
    sweeper: Sweeper

    def message(
        self,
        id_: str,
        user: str = BOB,
        *,
        lane: Lane = Lane.NORMAL,
        ephemeral: bool = False,
        keyed: bool = False,
        size: int = 0,
    ) -> Message:
        """``size``: of the envelope, which is filled up with spaces; what is too small to be one is zeroes."""
        body = envelope(user, lane, ephemeral)
        if size:
            body = body.ljust(size) if len(body) <= size else bytes(size)
        return Message(id_, user, body, lane, ephemeral, self.clock.now(), keyed, checksum(id_, user, body))

    async def route(self, *messages: Message, attempt: int = 1) -> list[Routed]:
        return await self.online.route([Delivery(message, 0, attempt) for message in messages])

    async def go(self, id_: str, user: str = BOB, **more: int) -> Outcome:
        """Route one message and do all that is owed for it."""
        message = self.message(id_, user, **more)  # type: ignore[arg-type]  # passes on keyword arguments
        (routed,) = await self.route(message)
        doubled = self.factory.config.online.durability == "write-through" and not message.ephemeral
        if routed.outcome in (Outcome.COLD, Outcome.COPY) or (routed.outcome is Outcome.HOT and doubled):
            await self.store(message, routed)
        return routed.outcome

    async def store(self, message: Message, routed: Routed) -> None:
        queued = self.factory.keeper.dated(Queued(message, routed.sequence, routed.queued_at))
        assert await self.cold.put([queued]) == []
        assert await self.online.settle([queued]) == Settled([], [])

    async def fill(self, user: str) -> None:
        """Let so many messages wait for ``user`` that one more is refused."""
        for number in range(self.factory.config.limits.queue_messages):
            await self.go(f"before {number}", user)

    async def connect(self, user: str = BOB, name: str = "phone") -> Connection:
        connection = Connection(user, name, self.factory.node, self.clock.now())
        await self.online.connect(connection, 20)
        return connection

    async def ids(self, user: str = BOB, limit: int = 500) -> list[str]:
        return [queued.message.id for queued in await self.queue.fetch(user, limit)]

    async def hot(self, user: str = BOB) -> list[str]:
        return [queued.message.id for queued in await self.online.inspect(user, 1000)]

    async def in_cold(self, user: str = BOB) -> list[str]:
        return [queued.message.id for queued in (await self.cold.read(user, 1000, PAGE_BYTES)).messages]

    async def pushed(self) -> list[str]:
        return await self.stores.pushed(self.factory)

    def count(self, metric: str, **labels: str) -> float:
        return self.factory.metrics.registry.get_sample_value(metric, labels) or 0.0

    def failures(self, role: str) -> float:
        """How many calls to the dependency of this role have failed."""
        kind = self.factory.place(Role(role)).backend
        return self.count("router_dependency_failures_total", dependency=role, kind=kind)

    def moved(self) -> float:
        """How many messages this process has migrated."""
        return self.count("router_messages_migrated_total")

    async def letters(self) -> list[tuple[str, str]]:
        return await self.stores.letters(self.factory)


@asynccontextmanager
async def staged(
    stores: Stores,
    clock: ManualClock,
    *,
    cap: int = CAP,
    durability: Durability = "online-store",
    in_line: bool = False,
    reports: Reports | None = None,
    limits: Mapping[str, float] | None = None,
    open_spans: Callable[[str], Spans] | None = None,
) -> AsyncIterator[Stage]:
    """One process's components over ``stores``, opened; ``limits``: those that are not as always."""
    config = stores.config(cap=cap, durability=durability)
    config = config.model_copy(update={"limits": config.limits.model_copy(update=limits or {})})
    async with Factory(config, clock=clock, in_line=in_line, reports=reports, open_spans=open_spans) as factory:
        yield Stage(
            stores=stores,
            factory=factory,
            clock=clock,
            producer=await factory.ingress_producer(),
            online=await factory.online_store(),
            cold=await factory.cold_queue(),
            queue=await factory.message_queue(),
            manager=await factory.connection_manager(),
            migrator=await factory.migrator(),
            sweeper=await factory.sweeper(),
        )


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until ``condition`` holds, for a bounded number of turns."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


def names(messages: Sequence[Queued]) -> list[str]:
    return [queued.message.id for queued in messages]


async def moved_by_a_wrong_clock(stage: Stage) -> None:
    """A migrator whose clock is a day ahead takes a message, and dies; then its user acknowledges it, and leaves."""
    phone = await stage.connect()
    await stage.go("m1")
    async with staged(stage.stores, ManualClock(stage.clock.time + 86_400_000_000)) as wrong:
        assert isinstance(await wrong.online.begin_move(BOB, "dies", 10, PAGE_BYTES, online_too=True), Move)
    await stage.online.disconnect([phone])
    assert await stage.online.ack(BOB, ["m1"]) == ["m1"]
