"""The one place that knows every backend. It opens what is asked for, once, and closes it in reverse order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from router import ids
from router.backends.needs import Need
from router.clock import Clock, SystemClock
from router.config import Config
from router.config.places import Place, Role, places
from router.core.connections import ConnectionManager
from router.core.damage import Damage
from router.core.dependencies import Dependencies, Reports, Silent
from router.core.migrating import Migrator
from router.core.queue import CompositeMessageQueue
from router.core.refusing import Refuser
from router.core.replaying import Replayer
from router.core.routing import Pipeline
from router.core.sweeping import Rules, Sweeper
from router.errors import ConfigError
from router.interfaces import (
    ColdQueue,
    DeadLetterQueue,
    DeadLetters,
    IngressConsumer,
    IngressProducer,
    OnlineStore,
    PokeBus,
    PushNotifier,
)
from router.messages import Message
from router.metrics import Metrics
from router.timekeeping import Timekeeper

if TYPE_CHECKING:
    from router.backends.embedded.backend import EmbeddedBackend
    from router.backends.embedded.push import EmbeddedDeadLetters, EmbeddedOutbox
    from router.backends.firestore.backend import FirestoreBackend
    from router.backends.pubsub.backend import PubSubBackend
    from router.backends.redis.backend import RedisBackend

T = TypeVar("T")
DAY_SECONDS = 86_400
REMEMBERED_MORE_SECONDS = 3600
"""An id is buried some time after its letter is written, and forgotten some time after it may be."""
CANCEL_SECONDS = 5.0
"""A task that has not ended by then is told again."""


class OwnedTasks:
    """``Tasks`` on asyncio: keeps a reference to each task and reports what fails."""

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(task.get_name(), error)

    async def settled(self) -> None:
        """Return when no task is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """End what is still running, also where a task's cleaning up loses the first call to end."""
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.wait(self._tasks, timeout=CANCEL_SECONDS)


class Factory:
    """Components by the configuration, as an async context manager.

    Clock, randomness and the starting of tasks may be handed in. Opening raises ``ConfigError`` (of which
    ``DataDirError`` is one) and ``Unavailable``.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        chance: random.Random | None = None,
        entropy: Callable[[int], bytes] | None = None,
        task_failed: Callable[[str, BaseException], None] | None = None,
        metrics: Metrics | None = None,
        reports: Reports | None = None,
        in_line: bool = False,
    ) -> None:
        """``in_line``: blocking calls run where they are made, and no thread is started."""
        self.config = config
        self.clock = clock or SystemClock()
        self.keeper = Timekeeper(self.clock)
        self.entropy = entropy or ids.Entropy()
        self.chance = chance or random.Random(self.entropy(16))  # noqa: S311 - jitter, no secret
        self.metrics = metrics or Metrics()
        self.node = self.entropy(8).hex()
        self.tasks = OwnedTasks(task_failed or _raise_in_loop)
        self.reports = reports or Silent()
        self.dependencies = Dependencies(self.clock, self.metrics, self.reports)
        self._places = places(config)
        self._in_line = in_line
        self._made: dict[str, Any] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        # First the work, then what it works with.
        await self.tasks.cancel()
        return await self._stack.__aexit__(kind, error, trace)

    async def _once(self, name: str, make: Callable[[], Awaitable[T]]) -> T:
        if name not in self._made:
            self._made[name] = await make()
        made: T = self._made[name]
        return made

    def watched(self, role: Role, component: T) -> T:
        """``component``, whose calls say whether the dependency of this ``role`` works."""
        return self.dependencies.watched(component, self._places[role])

    def place(self, role: Role) -> Place:
        """Which backend the dependency of this ``role`` is, and where."""
        return self._places[role]

    async def embedded(self) -> EmbeddedBackend:
        """The embedded backend, which several components share."""

        async def make() -> EmbeddedBackend:
            from router.backends.embedded.backend import EmbeddedBackend  # noqa: PLC0415 - only where configured

            backend = EmbeddedBackend(self.config, self.clock, self.keeper, in_line=self._in_line)
            return await self._stack.enter_async_context(backend)

        return await self._once("embedded", make)

    async def redis(self) -> RedisBackend:
        """The Redis backend: presence, hot queue and pokes."""

        async def make() -> RedisBackend:
            with _extra("redis", 'online.kind = "redis"'):
                from router.backends.redis.backend import RedisBackend  # noqa: PLC0415 - only where configured

            return await self._stack.enter_async_context(
                RedisBackend(self.config, self.clock, self.keeper, self.chance)
            )

        return await self._once("redis", make)

    async def firestore(self) -> FirestoreBackend:
        """The Firestore backend: the cold queue, and presence and hot queue where configured."""

        async def make() -> FirestoreBackend:
            with _extra("google", 'kind = "firestore"'):
                from router.backends.firestore.backend import FirestoreBackend  # noqa: PLC0415 - only where configured

            backend = await self._stack.enter_async_context(
                FirestoreBackend(self.config, self.clock, self.keeper, self.chance)
            )
            self.metrics.firestore(lambda: msgspec.structs.asdict(backend.client.statistics))
            return backend

        return await self._once("firestore", make)

    async def pubsub(self) -> PubSubBackend:
        """The Pub/Sub backend: ingress, push commands, dead letters, and pokes beside Firestore."""

        async def make() -> PubSubBackend:
            with _extra("google", 'kind = "pubsub"'):
                from router.backends.pubsub.backend import PubSubBackend  # noqa: PLC0415 - only where configured

            return await self._stack.enter_async_context(PubSubBackend(self.config, self.clock, self.chance))

        return await self._once("pubsub", make)

    async def ingress_producer(self) -> IngressProducer:
        if self.config.ingress.kind == "pubsub":
            return (await self.pubsub()).producer()
        return (await self.embedded()).producer()

    async def ingress_consumer(self) -> IngressConsumer:
        async def make() -> IngressConsumer:
            if self.config.ingress.kind == "pubsub":
                return await self._stack.enter_async_context((await self.pubsub()).consumer())
            return await self._stack.enter_async_context((await self.embedded()).consumer())

        return await self._once("ingress_consumer", make)

    async def online_store(self) -> OnlineStore:
        async def make() -> OnlineStore:
            if self.config.online.kind == "redis":
                return (await self.redis()).online_store()
            if self.config.online.kind == "firestore":
                return (await self.firestore()).online_store(await self.poke_bus())
            return (await self.embedded()).online_store()

        return await self._once("online_store", make)

    async def cold_queue(self) -> ColdQueue:
        if self.config.cold.kind == "firestore":
            return (await self.firestore()).cold_queue()
        return (await self.embedded()).cold_queue()

    async def poke_bus(self) -> PokeBus:
        if self.config.online.kind == "redis":
            return (await self.redis()).poke_bus(self.metrics)
        if self.config.online.kind == "firestore":
            return (await self.pubsub()).poke_bus(self.metrics)
        return (await self.embedded()).poke_bus()

    async def push_notifier(self) -> PushNotifier:
        if self.config.push.kind == "none":
            return NoPush()
        if self.config.push.kind == "pubsub":
            return (await self.pubsub()).push_notifier()
        return (await self.embedded()).push_notifier()

    async def outbox(self) -> EmbeddedOutbox:
        """The reading end of the embedded push commands; raises ``ConfigError`` where they go elsewhere."""
        if self.config.push.kind != "embedded":
            where = self.config.push.topic if self.config.push.kind == "pubsub" else "nowhere"
            raise ConfigError(f'push.kind = "{self.config.push.kind}": push commands go to {where}, not to an outbox')
        return (await self.embedded()).push_notifier()

    async def dead_letters(self) -> DeadLetters:
        if self.config.ingress.kind == "pubsub":
            return (await self.pubsub()).dead_letters()
        return (await self.embedded()).dead_letters(self.metrics)

    async def dead_letter_box(self) -> EmbeddedDeadLetters:
        """The reading end of the embedded dead letters; raises ``ConfigError`` where they go elsewhere."""
        if self.config.ingress.kind != "embedded":
            topic = self.config.ingress.dead_letter_topic
            raise ConfigError(
                f'ingress.kind = "{self.config.ingress.kind}": dead letters go to the topic {topic}; read them with '
                f"its subscription, which `router setup` makes: gcloud pubsub subscriptions pull {topic}-sub"
            )
        return (await self.embedded()).dead_letters(self.metrics)

    async def dead_letter_queue(self) -> DeadLetterQueue:
        if self.config.ingress.kind == "pubsub":
            return (await self.pubsub()).dead_letter_queue()
        return (await self.embedded()).dead_letters(self.metrics)

    async def replayer(self) -> Replayer:
        remembered = max(DAY_SECONDS, self.config.online.tombstone_seconds) + REMEMBERED_MORE_SECONDS
        return Replayer(await self.dead_letter_queue(), await self.ingress_producer(), self.clock, remembered)

    async def migrator(self) -> Migrator:
        async def make() -> Migrator:
            online = self.watched(Role.ONLINE, await self.online_store())
            cold = self.watched(Role.COLD, await self.cold_queue())
            refuser = await self.refuser()
            return Migrator(
                online,
                cold,
                self.watched(Role.PUSH, await self.push_notifier()),
                refuser,
                Damage(online, cold, refuser, tasks=self.tasks),
                owner=self.node,
                clock=self.clock,
                keeper=self.keeper,
                chance=self.chance,
                metrics=self.metrics,
            )

        return await self._once("migrator", make)

    async def refuser(self) -> Refuser:
        letters = self.watched(Role.DEAD_LETTERS, await self.dead_letters())
        return Refuser(letters, clock=self.clock, metrics=self.metrics, reports=self.reports)

    async def message_queue(self) -> CompositeMessageQueue:
        async def make() -> CompositeMessageQueue:
            online = self.watched(Role.ONLINE, await self.online_store())
            cold = self.watched(Role.COLD, await self.cold_queue())
            return CompositeMessageQueue(online, cold, await self.migrator(), self.metrics)

        return await self._once("message_queue", make)

    async def pipeline(self) -> Pipeline:
        return Pipeline(
            self.watched(Role.INGRESS, await self.ingress_consumer()),
            self.watched(Role.ONLINE, await self.online_store()),
            self.watched(Role.COLD, await self.cold_queue()),
            self.watched(Role.PUSH, await self.push_notifier()),
            await self.refuser(),
            max_attempts=self.config.ingress.max_attempts,
            write_through=self.config.online.durability == "write-through",
            clock=self.clock,
            keeper=self.keeper,
            chance=self.chance,
            tasks=self.tasks,
            metrics=self.metrics,
            reports=self.reports,
        )

    async def sweeper(self) -> Sweeper:
        online = self.config.online
        return Sweeper(
            self.watched(Role.ONLINE, await self.online_store()),
            self.watched(Role.COLD, await self.cold_queue()),
            self.watched(Role.PUSH, await self.push_notifier()),
            await self.migrator(),
            rules=Rules(online.repoke_seconds, online.push_after_seconds, online.sweep_after_seconds),
            retention_seconds=self.config.cold.retention_days * DAY_SECONDS,
            cold_works=lambda: self.dependencies.works(Role.COLD),
            clock=self.clock,
            keeper=self.keeper,
            metrics=self.metrics,
            reports=self.reports,
        )

    async def connection_manager(self) -> ConnectionManager:
        async def make() -> ConnectionManager:
            return ConnectionManager(
                self.watched(Role.ONLINE, await self.online_store()),
                await self.poke_bus(),
                await self.migrator(),
                node=self.node,
                new_id=lambda: ids.new_id(self.clock.now(), self.entropy(10)),
                heartbeat_seconds=self.config.online.heartbeat_seconds,
                connections_per_user=self.config.limits.connections_per_user,
                clock=self.clock,
                tasks=self.tasks,
                metrics=self.metrics,
            )

        return await self._once("connection_manager", make)


def check_machine(config: Config, *, trial: bool = False) -> None:
    """Raise ``DataDirError`` where this machine cannot hold the embedded database that ``config`` asks for.

    ``trial``: make the data directory for that, where it is missing. What cannot work leaves nothing behind.
    """
    if config.uses_database:
        from router.backends.embedded import library, schema  # noqa: PLC0415 - only where configured

        library.check()
        (schema.try_out if trial else schema.try_nearest)(config.embedded.data_dir)


async def needs_of_servers(config: Config, stack: AsyncExitStack) -> list[Need]:
    """What ``router setup`` makes on the servers that ``config`` names; ``stack`` closes what was opened for it.

    Raises ``ConfigError`` where a library is missing.
    """
    needs: list[Need] = []
    if "pubsub" in (config.ingress.kind, config.push.kind) or config.online.kind == "firestore":
        with _extra("google", 'kind = "pubsub"'):
            from router.backends.pubsub.setup import needs as pubsub_needs  # noqa: PLC0415 - only where configured

        needs += await stack.enter_async_context(pubsub_needs(config))
    return needs


@contextmanager
def _extra(name: str, setting: str) -> Iterator[None]:
    """Translate a missing library into an error that says how to install it; raises ``ConfigError``."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{setting} needs {error.name}, which is missing: install the router with its extra {name!r}: "
            f"pip install '.[{name}]' in the folder of its source, or '….whl[{name}]' with its wheel"
        ) from error


class NoPush:
    """``PushNotifier`` for ``push.kind = "none"``: nobody is to be notified."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Drop the commands."""
        del messages


def _raise_in_loop(name: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"the task {name} failed", "exception": error})
