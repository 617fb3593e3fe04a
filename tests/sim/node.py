"""One process of the router: the real core, handlers and connection manager, opened by the real factory."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jwt
from msgspec import structs
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from router.auth.verifier import Authenticator, KeySource, Principal
from router.backends.embedded.cold import EmbeddedColdQueue
from router.backends.embedded.database import Database
from router.backends.embedded.direct import EmbeddedRoutingIngress
from router.backends.embedded.ingress import EmbeddedIngressConsumer, EmbeddedIngressProducer
from router.backends.embedded.online import EmbeddedOnlineStore
from router.backends.embedded.pokes import EmbeddedPokeBus
from router.backends.embedded.push import EmbeddedDeadLetters, EmbeddedOutbox
from router.backends.embedded.state import EmbeddedState
from router.backends.routing_rules import StoreRules
from router.clock import MICROSECONDS
from router.config import Auth, Cold, Config, Embedded, Limits, Online
from router.core.acceptance import Acceptor
from router.core.connections import ConnectionManager
from router.core.pipeline import Pipeline
from router.core.routing_producer import RoutingProducer
from router.core.send_limits import SendLimits
from router.core.work_budget import WorkBudget
from router.errors import RouterError
from router.factory import Factory
from router.interfaces import (
    ColdQueue,
    DeadLetters,
    IngressConsumer,
    IngressProducer,
    OnlineStore,
    PokeBus,
    PushNotifier,
    RoutingIngress,
)
from router.messages import (
    DeadLetter,
    Delivery,
    Message,
    Move,
    MoveRefused,
    Outcome,
    Published,
    Queued,
    QueueTotals,
    Routed,
    Settled,
)
from router.metrics import Metrics
from router.web.api import Api
from router.web.application import Application
from router.web.context import EdgeContext
from router.web.poke_sockets import Sockets
from tests.sim import history as h
from tests.sim.clock import CallClock, NodeClock
from tests.sim.links import LATE, Local, Remote, tag_of
from tests.sim.loop import Process
from tests.sim.plan import SPANS, Bounds, Plan
from tests.sim.signals import SimLock, SimSignals, Stream, Topic

if TYPE_CHECKING:
    from tests.sim.world import World

SECRET = b"the same on all nodes"
DRAIN_SECONDS = 6.0
_METRICS: list[Metrics] = []


class _NoKeys:
    async def candidates(self, kid: str | None) -> Sequence[jwt.PyJWK]:
        del kid
        return []

    async def probe(self) -> None:
        return

    def trusts(self, key: bytes) -> bool:
        del key
        return True


class NameTokens(Authenticator):
    """Tokens that say who and until when, unsigned: what else tokens need is not simulated."""

    async def _verify(self, token: str) -> Principal:
        user, expires_at = token.rsplit("~", 1)
        return Principal(user, int(expires_at), b"")


def token(user: str, expires_at: float) -> str:
    """``expires_at`` in seconds since 1970."""
    return f"{user}~{int(expires_at * MICROSECONDS)}"


class TopicProducer:
    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    async def publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        for message in messages:
            self._topic.publish(message)
        return [None] * len(messages)

    async def probe(self) -> None:
        return

    async def backlog(self) -> QueueTotals:
        return QueueTotals(len(self._topic.waiting()))


class TopicServer:
    """The topic's face towards one consumer; runs on the topic's server."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic

    async def take(self, stream: Stream, limit: int) -> list[Delivery]:
        return self._topic.take(stream, limit)

    async def ack(self, receipts: Sequence[int]) -> None:
        self._topic.ack(receipts)

    async def nack(self, receipts: Sequence[int]) -> None:
        self._topic.nack(receipts)


class TopicConsumer:
    """``IngressConsumer`` over a topic."""

    def __init__(
        self, topic: Topic, server: Any, process: Process, takes: Callable[[Sequence[Delivery]], None]
    ) -> None:
        self._topic = topic
        self._server = server
        self._process = process
        self._takes = takes
        self._stream = Stream(process)

    async def receive(self, limit: int) -> list[Delivery]:
        while True:
            arrival = self._topic.arrival()
            try:
                taken: list[Delivery] = await self._server.take(self._stream, limit)
            except BaseException:
                # The stream is torn: what was on it does not go on before it is delivered again.
                self._stream.torn = True
                self._stream = Stream(self._process)
                raise
            if taken:
                self._takes(taken)
                return taken
            await arrival

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._server.ack([delivery.receipt for delivery in deliveries])

    async def nack(self, deliveries: Sequence[Delivery]) -> None:
        await self._server.nack([delivery.receipt for delivery in deliveries])


class WatchedPush:
    """Tells the history what went out."""

    def __init__(self, push: PushNotifier, world: World) -> None:
        self._push = push
        self._world = world

    async def publish(self, messages: Sequence[Message]) -> None:
        await self._push.publish(messages)
        for message in messages:
            self._world.pushes(message)


class WatchedLetters:
    """Tells the history what was given up."""

    def __init__(self, letters: DeadLetters, world: World) -> None:
        self._letters = letters
        self._world = world

    async def publish(self, letters: Sequence[DeadLetter]) -> None:
        await self._letters.publish(letters)
        for letter in letters:
            self._world.buries(letter)


class Choking(EmbeddedOnlineStore):
    """An online store that cannot route one message in so many; 0: it routes all."""

    poison = 0
    asked: Callable[[Sequence[Delivery]], None]
    given_up: Callable[[Sequence[Delivery]], None]
    told: Callable[[Sequence[Queued], Settled], None]
    pushes: Callable[[Message], None]
    refused: Callable[..., None]

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        for delivery in deliveries if self.poison else ():
            if delivery.message is not None and int(tag_of(delivery.message.envelope)[1:], 36) % self.poison == 1:
                raise ValueError("simulated: poison")
        self.asked(deliveries)
        if LATE.get():
            self.given_up(deliveries)
        routed = await super().route(deliveries)
        self.refused(deliveries, routed, heard=not LATE.get())
        return routed

    async def begin_move(self, *args: Any, **more: Any) -> Move | MoveRefused:
        move = await super().begin_move(*args, **more)
        for queued in move.moved if isinstance(move, Move) else ():
            if not queued.announced:
                self.pushes(queued.message)
        return move

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        settled = await super().settle(messages)
        self.told(messages, settled)
        return settled


class Direct(EmbeddedRoutingIngress):
    """An ingress that routes on publish, and tells the history what came of it."""

    poison = 0
    world: World

    async def publish(self, messages: Sequence[Message]) -> Published:
        published = await super().publish(messages)
        deliveries = [Delivery(message, 0, 1) for message in messages]
        routed = [(one, result) for one, result in zip(deliveries, published.routed, strict=True) if result is not None]
        self.world.routes([delivery for delivery, _ in routed])
        self.world.refuses([delivery for delivery, _ in routed], [result for _, result in routed], heard=True)
        for letter in published.letters:
            if self.world.is_buried(letter):
                self.world.buries(letter)
        for message, result in zip(messages, published.routed, strict=True):
            if result is not None and result.outcome is Outcome.COLD:
                self.world.commands(message)
        return published

    def _route(self, db: sqlite3.Connection, messages: Sequence[Message], now: int) -> Any:
        if self.poison and any(int(tag_of(one.envelope)[1:], 36) % self.poison == 1 for one in messages):
            raise ValueError("simulated: poison")
        return super()._route(db, messages, now)


class Heard:
    """An online store as its callers know it, who may not hear what became of a call."""

    def __init__(self, store: Any, world: World) -> None:
        self._store = store
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        try:
            routed: list[Routed] = await self._store.route(deliveries)
        except BaseException:
            self._world.unheard(deliveries)
            raise
        return routed


class Told(EmbeddedColdQueue):
    """A cold queue that says what it is asked to take."""

    asked: Callable[[Sequence[Queued]], None]

    async def put(self, messages: Sequence[Queued]) -> list[Queued]:
        self.asked(messages)
        return await super().put(messages)


class SimFactory(Factory):
    """The factory, with stores that the world holds."""

    def __init__(self, world: World, number: int, process: Process, clock: NodeClock) -> None:
        chance = random.Random(world.chance.getrandbits(48))
        while len(_METRICS) <= number:
            _METRICS.append(Metrics())
        super().__init__(
            config(world.plan),
            clock=clock,
            chance=chance,
            entropy=chance.randbytes,
            task_failed=lambda name, error: world.failed(f"the task {name} failed", error),
            metrics=_METRICS[number],
        )
        self._world = world
        self._number = number
        self._process = process
        self._signals = SimSignals(world.post, process)
        self._databases: dict[str, Database] = {}

    async def _database(self, store: str) -> Database:
        if self._world.apart:
            return self._world.server_databases[store]
        if "" not in self._databases:
            self._databases[""] = await self._stack.enter_async_context(self._world.database("file"))
        return self._databases[""]

    def _linked(self, component: Any, store: str) -> Any:
        world = self._world
        if not world.apart:
            return Local(component, self._process.name, world.weather)
        return Remote(component, store, self._number, world.server, self.clock, world.weather)

    @property
    def _store_clock(self) -> Any:
        return CallClock() if self._world.apart else self.clock

    async def ingress_producer(self) -> IngressProducer:
        async def make() -> IngressProducer:
            if self._world.is_direct(self._number):
                return await self._direct()
            if self._world.apart:
                producer: Any = TopicProducer(self._world.topic)
            else:
                producer = EmbeddedIngressProducer(await self._database("ingress"), self._signals)
            return cast(IngressProducer, self._linked(producer, "ingress"))

        return await self._once("producer", make)

    async def _direct(self) -> IngressProducer:
        letters = EmbeddedDeadLetters(await self._database("push"), self.keeper, self.config.embedded, self.metrics)
        direct = Direct(await self._state(), self._signals, letters)
        direct.world, direct.poison = self._world, self._world.plan.poison
        return RoutingProducer(
            cast(RoutingIngress, self._linked(direct, "ingress")),
            await self.poke_bus(),
            clock=self.clock,
            tasks=self.tasks,
            metrics=self.metrics,
            reports=self.reports,
        )

    async def _state(self) -> EmbeddedState:
        rules = StoreRules.of(self.config, fresh_cold_empty=not self._world.apart)
        database, bus = await self._database("online"), await self.poke_bus()
        return EmbeddedState(
            database, bus, rules, self._store_clock, self.keeper, direct=self._world.is_direct(self._number)
        )

    async def ingress_consumer(self) -> IngressConsumer:
        async def make() -> IngressConsumer:
            if self._world.apart:
                server = self._linked(TopicServer(self._world.topic), "ingress")
                return TopicConsumer(self._world.topic, server, self._process, self._world.takes)
            database, process, locks = await self._database("ingress"), self._process, self._world.locks
            consumer = EmbeddedIngressConsumer(database, self._signals, lambda: SimLock(locks, "consumer", process))
            return cast(IngressConsumer, self._linked(await self._stack.enter_async_context(consumer), "ingress"))

        return await self._once("ingress_consumer", make)

    async def online_store(self) -> OnlineStore:
        async def make() -> OnlineStore:
            store = Choking(await self._state())
            store.poison = self._world.plan.poison
            store.asked = self._world.routes
            store.given_up = self._world.gives_up
            store.told = self._world.settles
            store.pushes = self._world.commands
            store.refused = self._world.refuses
            return cast(OnlineStore, Heard(self._linked(store, "online"), self._world))

        return await self._once("online_store", make)

    async def cold_queue(self) -> ColdQueue:
        async def make() -> ColdQueue:
            cold = Told(await self._database("cold"))
            cold.asked = self._world.unsettles
            return cast(ColdQueue, self._linked(cold, "cold"))

        return await self._once("cold_queue", make)

    async def poke_bus(self) -> PokeBus:
        return EmbeddedPokeBus(self._signals)

    async def push_notifier(self) -> PushNotifier:
        async def make() -> PushNotifier:
            database = await self._database("push")
            outbox = EmbeddedOutbox(
                database, self._store_clock, self.keeper, direct=self._world.is_direct(self._number)
            )
            return cast(PushNotifier, self._linked(WatchedPush(outbox, self._world), "push"))

        return await self._once("push", make)

    async def dead_letters(self) -> DeadLetters:
        async def make() -> DeadLetters:
            letters = EmbeddedDeadLetters(await self._database("push"), self.keeper, self.config.embedded, self.metrics)
            return cast(DeadLetters, self._linked(WatchedLetters(letters, self._world), "push"))

        return await self._once("letters", make)


_CONFIGS: dict[tuple[bool, int, Bounds, int, bool], Config] = {}


def config(plan: Plan) -> Config:
    """The configuration of every node of a run."""
    key = (plan.write_through, plan.cap, plan.bounds, plan.connections, plan.day)
    if key not in _CONFIGS:
        durability: Any = "write-through" if plan.write_through else "online-store"
        _CONFIGS[key] = Config(
            embedded=Embedded(data_dir=Path("/simulated")),
            limits=Limits(
                queue_messages=plan.cap,
                connections_per_user=plan.connections,
                ephemeral_seconds=plan.ephemeral_seconds,
                send_rate=0,
                outbound_bytes=0,
                work_rate=0,
                **structs.asdict(plan.bounds),
            ),
            online=Online(**({} if plan.day else SPANS), durability=durability),
            cold=Cold(retention_days=plan.retention_seconds / 86_400),
        )
    return _CONFIGS[key]


class Node:
    """One place where a process runs, dies and starts again."""

    def __init__(self, world: World, number: int, roles: str) -> None:
        self.world = world
        self.number = number
        self.roles = roles.split()
        skew = world.plan.skew * (2 * world.chance.random() - 1)
        self.clock = NodeClock(world.loop, skew)
        self.process = Process(f"n{number}")
        self.process.alive = False
        self.app: ASGIApp | None = None
        self.listening = False
        self.requests = 0
        self.stopping = False
        self.pipeline: Pipeline | None = None

    async def start(self) -> None:
        """A new process begins to serve."""
        self.process = Process(f"n{self.number}")
        self.stopping = False
        starting = self.world.loop.spawn(self.process, self._start(), "start")
        await self.world.gone_or_done(self.process, starting)

    async def _start(self) -> None:
        factory = self.factory = self.world.factory(self.number, self.process, self.clock)
        await factory.__aenter__()
        self.manager: ConnectionManager | None = None
        self.pipeline = None
        context = EdgeContext([], factory.metrics, entropy=self.world.entropy)
        authenticator = NameTokens(cast(KeySource, _NoKeys()), Auth(leeway_seconds=0), self.clock)
        routes: list[BaseRoute] = []
        await self._start_watching()
        if "process" in self.roles:
            self.pipeline = await factory.pipeline()
            self.consuming = factory.tasks.spawn(self.pipeline.run(), "pipeline")
            factory.tasks.spawn((await factory.sweeper()).run(), "sweeper")
        if "api" in self.roles:
            routes += await self._api(factory, authenticator, context.refusals.refused)
        if "ws" in self.roles:
            self.manager = await factory.connection_manager()
            factory.tasks.spawn(self.manager.run(), "connections")
            work = WorkBudget(clock=self.clock, rate=0, burst=1)
            routes += Sockets(authenticator, self.manager, work, context.cors).routes()
        self.app = Application(routes, context, asyncio.get_running_loop().time)
        self.listening = True

    async def _start_watching(self) -> None:
        """Compare the clocks, as a service does whose store is on another machine."""

    async def _api(
        self, factory: Factory, authenticator: Authenticator, refused: Callable[[RouterError], None]
    ) -> Sequence[BaseRoute]:
        limits = factory.config.limits
        acceptor = Acceptor(
            await factory.ingress_producer(),
            SendLimits.of(factory.config, self.clock, factory.entropy),
            clock=self.clock,
            entropy=factory.entropy,
            idempotency_secret=SECRET,
            max_bytes=limits.envelope_bytes,
            metrics=factory.metrics,
        )
        return Api(
            authenticator,
            acceptor,
            await factory.message_queue(),
            WorkBudget(clock=self.clock, rate=limits.work_rate, burst=limits.work_burst),
            envelope_bytes=limits.envelope_bytes,
            body_seconds=factory.config.server.client_seconds,
            refused=refused,
        ).routes()

    def crash(self) -> None:
        """Gone, with all that was in its memory."""
        self.process.alive = False
        self.process.paused = False
        self.listening = False
        self.world.add(h.Died(self.process.name))
        self.world.net.reset(self)

    @property
    def routing(self) -> bool:
        """Its pipeline has something in work, or has to tell the online store of an outage."""
        return self.process.alive and self.pipeline is not None and self.pipeline.statistics().tasks > 0

    async def stop(self) -> None:
        """SIGTERM, as the service takes it."""
        if not self.process.alive or self.stopping:
            return
        self.stopping = True
        process = self.process
        await self.world.gone_or_done(process, self.world.loop.spawn(process, self._drain(), "drain"))
        if process.alive:
            self.crash()

    async def _drain(self) -> None:
        self.listening = False
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                if self.manager is not None:
                    await self.manager.drain()
                if self.pipeline is not None:
                    self.consuming.cancel()
                    await asyncio.wait([self.consuming])
                    await self.pipeline.finish()
        except TimeoutError:
            pass
        try:
            if self.pipeline is not None:
                await self.pipeline.hand_back()
        except Exception as error:  # noqa: BLE001 - the process ends either way
            self.world.note(self.process.name, f"cannot hand back: {error}")
        await self.factory.__aexit__(None, None, None)
