"""A run over the vendors' stores: the real backends, opened by the real factory, over simulated servers."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any, cast
from unittest import mock

from msgspec import structs
from pydantic import SecretStr

from router.backends.firestore import due_index, names
from router.backends.firestore.indexes import TTL_FIELD, cold_fields, online_fields
from router.backends.firestore.names import Layout
from router.backends.firestore.transactions import OnlineLayout
from router.backends.google.channels import FIRESTORE, PUBSUB
from router.backends.pubsub.resources import needs
from router.backends.pubsub.wire import PubSubApi
from router.backends.redis import index, keys
from router.config import Cold, Config, Google, Ingress, Limits, Push
from router.config import Online as OnlineConfig
from router.core.clocks import ClockWatch
from router.errors import RouterError
from router.factory import Factory
from router.interfaces import DeadLetters, OnlineStore, PushNotifier
from router.lifecycle import State
from router.messages import Delivery, Queued, Routed, Settled
from router.metrics import Metrics
from tests.sim import history as h
from tests.sim.clients import user_name
from tests.sim.clock import START, NodeClock
from tests.sim.links import is_call, shown, tag_of
from tests.sim.loop import Process
from tests.sim.node import Node, WatchedLetters, WatchedPush
from tests.sim.plan import EPHEMERAL_SECONDS, NO_BOUNDS, SPANS, Bounds, Fault, Plan, Vendors
from tests.sim.signals import LOST_IN_A_ROW
from tests.sim.stores import miscounted
from tests.sim.vendors.firestore_server import Firestore
from tests.sim.vendors.grpc_channel import Service, SimChannel
from tests.sim.vendors.looking import FirestoreLook, Online, RedisLook, cold_of, flip_cold
from tests.sim.vendors.pubsub_server import PubSub
from tests.sim.vendors.redis_server import Redis
from tests.sim.vendors.sky import Sky
from tests.sim.vendors.wires import Place, Wire
from tests.sim.vendors.wiring import (
    FIRESTORE_ADDRESS,
    PUBSUB_ADDRESS,
    REDIS_HOST,
    simulated_google,
    simulated_redis,
)
from tests.sim.world import MOVED, World

PROJECT, DATABASE = "simulated", "(default)"
START_AGAIN_SECONDS = 1.0
TTL_SECONDS = 5.0
BELIEF_SECONDS = 65.0
"""By then a master has asked anew for what it believes of cold: what the others were told, it now finds."""
REIGN_SECONDS = 10.0
"""So long, at most, a master that thaws does not know that it was replaced."""
SHARDS = 2
"""Of each index over all users: with as few users more of them only cost time."""


class _Counts(Metrics):
    """Kept from run to run."""

    def firestore(self, counts: object) -> None:
        """What the client counts is of no interest here."""


_METRICS: list[Metrics] = []


@lru_cache(maxsize=64)
def config(write_through: bool, cap: int, bounds: Bounds, vendors: Vendors) -> Config:
    """The configuration of every node of a run."""
    durability: Any = "write-through" if write_through else "online-store"
    return Config(
        google=Google(project=PROJECT),
        ingress=Ingress(
            kind="pubsub",
            idempotency_secret=SecretStr("the same on all nodes"),
            ordering_shards=vendors.shards,
            pulls=vendors.pulls,
        ),
        online=OnlineConfig(
            kind=vendors.online, url=SecretStr(f"redis://{REDIS_HOST}"), durability=durability, **SPANS
        ),
        cold=Cold(kind="firestore"),
        push=Push(kind="pubsub"),
        limits=Limits(
            queue_messages=cap,
            ephemeral_seconds=EPHEMERAL_SECONDS,
            send_rate=0,
            outbound_bytes=0,
            work_rate=0,
            **structs.asdict(bounds),
        ),
    )


class VendorWorld(World):
    """All there is in one run."""

    def __init__(self, plan: Plan, *, traced: bool = False) -> None:
        self.config = config(plan.write_through, plan.cap, plan.bounds, plan.vendors)
        super().__init__(plan, traced=traced)
        place = Place(self.chance, self.server.context)
        self.redis, self.pubsub, self.firestore = Redis(place), PubSub(place), Firestore(place)
        self.pubsub.duplicates = plan.duplicates
        self.redis.loses = self._copies
        self._lost: dict[str, int] = {}
        self._sky = Sky(self.weather, plan.vendors.online)
        self._layout = Layout(PROJECT, DATABASE, self.config.cold.collection)
        users = [user_name(number) for number in range(plan.users)]
        online = self.config.online
        self._olds: list[RedisLook] = []
        """Masters that were replaced."""
        self._told_others: set[str] = set()
        """Ids whose cold write one of them was told of."""
        self._look = partial(RedisLook, prefix=online.key_prefix, users=users)
        self._online: Online = (
            self._look(self.redis)
            if plan.vendors.online == "redis"
            else FirestoreLook(self.firestore, OnlineLayout(PROJECT, DATABASE, online.collection), users)
        )

    def _copies(self, channel: str) -> int:
        """How often a poke arrives: it may be lost and doubled, but of all that repeat it, not each one is lost."""
        share = 0.0 if self.weather.calm else self.plan.lost_pokes
        lost = self._lost.get(channel, 0) < LOST_IN_A_ROW and self.chance.random() < share
        self._lost[channel] = self._lost.get(channel, 0) + 1 if lost else 0
        return 0 if lost else 2 if share and self.chance.random() < 0.1 else 1

    # Stores.

    @contextmanager
    def _wired(self) -> Iterator[None]:
        services: dict[str, Service] = {PUBSUB_ADDRESS: self.pubsub, FIRESTORE_ADDRESS: self.firestore}
        variables = {PUBSUB.emulator_variable: PUBSUB_ADDRESS, FIRESTORE.emulator_variable: FIRESTORE_ADDRESS}
        with ExitStack() as stack:
            stack.enter_context(mock.patch.dict(os.environ, variables))
            for module in (keys, index, names, due_index):
                stack.enter_context(mock.patch.object(module, "SHARDS", SHARDS))
            stack.enter_context(simulated_redis(self.redis, self._sky.wire))
            stack.enter_context(simulated_google(services, self._sky.wire))
            yield

    def run(self) -> h.History:
        with self._wired():
            return super().run()

    async def _open_stores(self) -> None:
        """As ``router setup`` does."""
        channel: Any = SimChannel(self.pubsub, Wire())
        for need in needs(PubSubApi(channel, PROJECT, random.Random(1)), self.config):
            await need.make()
        fields = [*cold_fields(self.config.cold.collection), *online_fields(self.config.online.collection)]
        self.firestore.ttl = {field.collection: field.name for field in fields if field.name == TTL_FIELD}
        self.loop.spawn(self.server, self._expire())

    async def _expire(self) -> None:
        """What the TTL policies may delete: nothing, in so short a run."""
        while True:
            await asyncio.sleep(TTL_SECONDS)
            if gone := self.firestore.expire():
                self.failed(f"a TTL policy deletes {gone} documents", None)

    def accepted_by(self, clock: NodeClock, began: float) -> float:
        """The middle one of three clocks dates ephemeral mail, and Pub/Sub's is one of them: it is no later than the
        later of these two."""
        return max(super().accepted_by(clock, began), START + self.loop.time())

    def node(self, number: int, roles: str) -> Node:
        return VendorNode(self, number, roles)

    def factory(self, number: int, process: Process, clock: NodeClock) -> Factory:
        return VendorFactory(self, number, process, clock)

    # Faults.

    async def _fault(self, fault: Fault) -> None:
        if fault.kind not in ("restart", "full", "forget", "replace"):
            await super()._fault(fault)
            return
        await asyncio.sleep(fault.at)
        if self.weather.calm:
            return
        self.note("redis", f"{fault.kind} for {fault.seconds:.1f} s")
        if fault.kind == "full":
            self.redis.full = True
            await asyncio.sleep(fault.seconds)
            self.redis.full = False
            return
        if fault.kind == "replace":
            await self._replace(fault.seconds)
            return
        self.redis.stop()
        if fault.kind == "forget":
            self._forgot = True
            self.add(self._forgotten())
            self.redis.forget()
            self.redis.stop()
        await asyncio.sleep(fault.seconds)
        self.redis.start()

    async def _replace(self, seconds: float) -> None:
        """The master freezes, and another takes over; it thaws, and calls itself the master until it is told."""
        old, self._forgot = self.redis.replaced(), True
        self._olds.append(self._look(old))
        old.ran = self.redis.ran = self._differ
        self._differ()
        await asyncio.sleep(seconds)
        old.thaw()
        await asyncio.sleep(self.chance.random() * REIGN_SECONDS)
        old.stop()

    def _differ(self) -> None:
        """Whatever one master is told, the others do not hear of, and those who ask them see it."""
        own = self._online.states()
        for old in self._olds:
            told = old.states()
            pending = {id_ for id_, state in (*told.items(), *own.items()) if state is State.PENDING}
            self.add(
                h.Forgotten(tuple(id_ for _, id_ in old.hot()), tuple(sorted(pending | (told.keys() ^ own.keys()))))
            )
            self._told_others |= {id_ for id_, state in told.items() if state is not State.PENDING}

    async def _settle(self) -> None:
        self.pubsub.duplicates = 0.0
        self.firestore.calm()
        await super()._settle()
        if self._olds:
            await asyncio.sleep(BELIEF_SECONDS)
            await super()._settle()

    async def _drain(self) -> None:
        await super()._drain()
        if self._olds:  # the copies of acknowledged mail that this has found are deleted as orphans are
            await asyncio.sleep(BELIEF_SECONDS)

    def routes(self, deliveries: Sequence[Delivery]) -> None:
        for id_ in sorted(_ids([one for one in deliveries if one.message is not None and one.message.ephemeral])):
            self.add(h.Published(id_, self.pubsub.published_at[id_]))
        super().routes(deliveries)
        # As long as nobody has heard what the server makes of it: the process may die before.
        self._refused.update(_ids(deliveries) if self.plan.bounds != NO_BOUNDS else ())

    def refuses(self, deliveries: Sequence[Delivery], routed: Sequence[Routed], *, heard: bool) -> None:
        self._refused.difference_update(_ids(deliveries))
        super().refuses(deliveries, routed, heard=heard)

    def gives_up(self, deliveries: Sequence[Delivery]) -> None:
        super().gives_up(deliveries)
        self.unheard(deliveries)

    # The end.

    def can_be_found(self, id_: str) -> bool:
        kept = (State.HOT, State.ACKED, State.DOUBLE, State.ACKED_OWED)
        return any(id_ == other for _, other in self._held("cold", "cold")) or self._online.states().get(id_) in kept

    def _present(self) -> set[object]:
        return set(self._online.present())

    def _waiting(self) -> list[str]:
        name = f"projects/{PROJECT}/subscriptions/{self.config.ingress.subscription}"
        return [message.attributes["id"] for message in self.pubsub.subscriptions[name].waiting()]

    def _hot_and_unmoved(self, now: int) -> tuple[tuple[str, str], ...]:
        return tuple(pair for pair in self._online.hot() if self._online.moving_until(pair[0]) < now - MOVED)

    def _held(self, table: str, store: str) -> tuple[tuple[str, str], ...]:
        return self._online.hot() if table == "hot" else tuple((user, id_) for user, id_, _ in self._cold())

    def _cold(self) -> Iterator[tuple[str, str, int]]:
        return cold_of(self.firestore, self._layout)

    def _under_way(self) -> list[tuple[str, int]]:
        owing = (State.PENDING, State.ACKED_OWED)
        found = [(id_, int(state)) for id_, state in self._online.states().items() if state in owing]
        # What nobody tells of any more holds nothing up after a while, and its record goes with retention.
        return [(id_, state) for id_, state in found if state != State.PENDING or id_ not in self._told_others]

    def _flip_row(self, store: str) -> str | None:
        online = store == "online"
        return self._online.flip(self.chance) if online else flip_cold(self.firestore, self._layout, self.chance)

    def _miscounted(self, *, cold_too: bool) -> list[str]:
        states = self._online.states() if cold_too else {}
        cold = [(user, size) for user, id_, size in self._cold() if states.get(id_) in (State.PENDING, State.COLD)]
        return miscounted(self._online.bytes(), self._online.sizes(), cold, cold_too=cold_too)

    def _oddities(self) -> list[str]:
        found, states = self._online.miscounts(), self._online.states()
        found += self._miscounted(cold_too=not self._forgot)
        hot, cold = ({id_ for _, id_ in self._held(table, table)} for table in ("hot", "cold"))
        if not self.plan.write_through:
            found += [f"{id_} is in hot and in cold" for id_ in sorted(cold & hot)]
        # What is refused may have been put into cold before, in an outage of the online store.
        if not self._forgot and not self.reasons:
            settled = (State.COLD, State.DOUBLE) if self.plan.write_through else (State.COLD,)
            found += [
                f"{id_} is in cold and the store calls it {states.get(id_)}"
                for id_ in sorted(cold)
                if states.get(id_) not in settled
            ]
        return found


def _ids(deliveries: Sequence[Delivery]) -> set[str]:
    return {delivery.message.id for delivery in deliveries if delivery.message is not None}


class VendorNode(Node):
    """Where a process that cannot start is started again, as whatever watches over it does; and compares its clock with
    the store's in runs in which clocks jump. In the others there is nothing to see."""

    async def _start_watching(self) -> None:
        if not any(fault.kind == "jump" for fault in self.world.plan.faults):
            return
        watch = ClockWatch(await self.factory.online_store(), self.clock, self.factory.keeper, self.factory.metrics)
        await watch.begin()
        self.factory.tasks.spawn(watch.run(), "clocks")

    async def start(self) -> None:
        while True:
            try:
                await super().start()
            except RouterError as error:
                self.world.note(f"n{self.number}", f"cannot start: {error}")
                self.crash()
                await asyncio.sleep(START_AGAIN_SECONDS)
            else:
                return


class VendorFactory(Factory):
    """The factory, whose components are watched."""

    def __init__(self, world: VendorWorld, number: int, process: Process, clock: NodeClock) -> None:
        chance = random.Random(world.chance.getrandbits(48))
        while len(_METRICS) <= number:
            _METRICS.append(_Counts())
        super().__init__(
            world.config,
            clock=clock,
            chance=chance,
            entropy=chance.randbytes,
            task_failed=lambda name, error: world.failed(f"the task {name} failed", error),
            metrics=_METRICS[number],
        )
        self._world = world
        self._process = process

    async def _watched(self, name: str, component: Any) -> Any:
        async def make() -> Any:
            return Watched(component, self._world, self._process)

        return await self._once(f"watched {name}", make)

    async def online_store(self) -> OnlineStore:
        return cast(OnlineStore, await self._watched("online", await super().online_store()))

    async def cold_queue(self) -> Any:
        return await self._watched("cold", await super().cold_queue())

    async def ingress_consumer(self) -> Any:
        return await self._watched("ingress", await super().ingress_consumer())

    async def push_notifier(self) -> PushNotifier:
        return WatchedPush(await super().push_notifier(), self._world)

    async def dead_letters(self) -> DeadLetters:
        return WatchedLetters(await super().dead_letters(), self._world)


class Watched:
    """A component that tells of its calls, where the run is traced; and cannot route one message in so many."""

    def __init__(self, component: Any, world: VendorWorld, process: Process) -> None:
        self._component = component
        self._world = world
        self._process = process

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._component, name)
        tell = self._world.weather.tell
        if tell is None or not is_call(name, method):
            return method

        async def call(*args: Any, **more: Any) -> Any:
            try:
                result = await method(*args, **more)
            except Exception as error:
                tell(self._process.name, f"{name}{shown(args)} fails: {error}")
                raise
            tell(self._process.name, f"{name}{shown(args)} -> {shown(result)}")
            return result

        return call

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        poison = self._world.plan.poison
        for delivery in deliveries if poison else ():
            if delivery.message is not None and int(tag_of(delivery.message.envelope)[1:], 36) % poison == 1:
                raise ValueError("simulated: poison")
        self._world.routes(deliveries)
        try:
            routed: list[Routed] = await self.__getattr__("route")(deliveries)
        except BaseException:
            self._world.gives_up(deliveries)
            raise
        self._world.refuses(deliveries, routed, heard=True)
        return routed

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        settled: Settled = await self.__getattr__("settle")(messages)
        self._world.settles(messages, settled)
        return settled

    async def put(self, messages: Sequence[Queued]) -> list[Queued]:
        self._world.unsettles(messages)
        refused: list[Queued] = await self.__getattr__("put")(messages)
        return refused
