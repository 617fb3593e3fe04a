"""What the configuration asks for, of the backends in the registry: opened once, and closed in reverse order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from router import ids
from router.backends.base import Auditor, Backend, DeadLetterBox, Outbox, Tools, TracingBackend, Upkeep
from router.backends.registry import Backends
from router.backends.routing_rules import StoreRules
from router.clock import Clock, SystemClock
from router.config import Config
from router.config.roles import Place, Role
from router.core.census import CensusTaker
from router.core.connections import ConnectionManager
from router.core.damage import Damage
from router.core.dead_letter_replay import Replayer
from router.core.dead_letters import Refuser
from router.core.dependencies import Dependencies, Reports, Silent
from router.core.message_story import Memory
from router.core.message_tracer import MessageTracer, Source, Unsaid
from router.core.migrator import Migrator
from router.core.pipeline import Pipeline
from router.core.purge import QUIET_SECONDS, Purge
from router.core.routing_producer import RoutingProducer
from router.core.sweeper import Rules, Sweeper
from router.core.user_queue import CompositeMessageQueue
from router.errors import ConfigError, Unavailable
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
from router.metrics import Metrics
from router.timekeeping import Timekeeper

if TYPE_CHECKING:
    from router.spans import Spans

T = TypeVar("T")
B = TypeVar("B", bound=Backend)
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
        make: bool = True,
        open_spans: Callable[[str], Spans | None] | None = None,
    ) -> None:
        """``in_line``: blocking calls run where they are made, and no thread is started.

        ``make``: whether what is opened may be made where it is missing; else ``DataDirError`` is raised.
        """
        self._make = make
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
        self.backends = Backends(config, Tools(self.clock, self.keeper, self.chance, self.metrics, in_line))
        self._open_spans = open_spans
        self.spans: Spans | None = None
        """What makes the spans of a service that is asked for traces."""
        self._made: dict[str, Any] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        if self._open_spans is not None and (spans := self._open_spans(self.node)) is not None:
            self._stack.push_async_callback(spans.close)
            self.spans = spans
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
        return self.dependencies.watched(component, self.place(role))

    def _traced(self, name: str, component: T) -> T:
        """``component``, whose calls have spans if this service is asked for traces. ``name``: of a class of
        ``router.core.traced``."""
        return component if self.spans is None else self._wrapped(name, component, self.spans)

    async def _with_traces(self, name: str, component: T) -> T:
        """The same for a class that remembers the traces of messages."""
        if self.spans is None:
            return component
        from router.core.traced import Traces  # noqa: PLC0415 - the extra otel

        contexts = (await self.open(self.backends.online())).trace_contexts()
        return self._wrapped(name, component, self.spans, Traces(contexts))

    def _wrapped(self, name: str, component: T, *arguments: Any) -> T:
        from router.core import traced  # noqa: PLC0415 - the same

        return cast(T, getattr(traced, name)(component, *arguments))

    def place(self, role: Role) -> Place:
        """Which backend the dependency of this ``role`` is, and where."""
        backend = self.backends.keeping(role)
        return Place(role, backend.name, backend.address(role))

    async def open(self, backend: B) -> B:
        """``backend``, opened once for all that it keeps."""

        async def make() -> B:
            if not self._make:
                backend.check_made()
            await self._stack.enter_async_context(backend)
            return backend

        return await self._once(backend.name, make)

    def upkeep(self) -> list[Upkeep]:
        """What a service runs beside its work, for each backend that is open."""
        opened = [backend for backend in self.backends.used() if backend.name in self._made]
        return [upkeep for backend in opened for upkeep in backend.upkeep()]

    async def ingress_producer(self) -> IngressProducer:
        """What takes accepted messages: it routes them where it can, and else they wait for a pipeline."""
        backend = await self.open(self.backends.ingress())
        ingress = backend.routing_ingress()
        if ingress is None:
            return self._traced("TracedProducer", backend.producer())
        producer = RoutingProducer(
            await self._with_traces("TracedRoutingIngress", ingress),
            await self.poke_bus(),
            clock=self.clock,
            tasks=self.tasks,
            metrics=self.metrics,
            reports=self.reports,
        )
        return self._traced("TracedProducer", producer)

    async def ingress_consumer(self) -> IngressConsumer:
        async def make() -> IngressConsumer:
            backend = await self.open(self.backends.ingress())
            return await self._stack.enter_async_context(backend.consumer())

        return await self._once("ingress_consumer", make)

    async def online_store(self) -> OnlineStore:
        async def make() -> OnlineStore:
            backend = await self.open(self.backends.online())
            return await self._with_traces("TracedOnlineStore", backend.online_store(await self.poke_bus()))

        return await self._once("online_store", make)

    async def cold_queue(self) -> ColdQueue:
        return self._traced("TracedColdQueue", (await self.open(self.backends.cold())).cold_queue())

    async def poke_bus(self) -> PokeBus:
        return (await self.open(self.backends.pokes())).poke_bus()

    async def push_notifier(self) -> PushNotifier:
        return self._traced("TracedPushNotifier", (await self.open(self.backends.push())).push_notifier())

    async def outbox(self, subscription: str = "") -> Outbox:
        """The reading end of the push commands; ``subscription``: where they wait, if the router does not keep them.

        Raises ``ConfigError`` where they cannot be looked at.
        """
        return await (await self.open(self.backends.push())).outbox(subscription)

    async def auditor(self) -> Auditor | None:
        """Reads the exact books; ``None`` where several stores keep what a message passes."""
        return (await self.open(self.backends.ingress())).auditor()

    async def dead_letters(self) -> DeadLetters:
        return (await self.open(self.backends.ingress())).dead_letters()

    async def dead_letter_box(self) -> DeadLetterBox:
        """The reading end of the dead letters; raises ``ConfigError`` where they cannot be listed."""
        backend = self.backends.ingress()
        if elsewhere := backend.letters_elsewhere():
            raise ConfigError(elsewhere)
        return (await self.open(backend)).dead_letter_box()

    async def dead_letter_queue(self) -> DeadLetterQueue:
        return (await self.open(self.backends.ingress())).dead_letter_queue()

    async def replayer(self) -> Replayer:
        remembered = max(DAY_SECONDS, self.config.online.tombstone_seconds) + REMEMBERED_MORE_SECONDS
        return Replayer(await self.dead_letter_queue(), await self.ingress_producer(), self.clock, remembered)

    async def purge(self) -> Purge:
        ingress, push = await self.open(self.backends.ingress()), await self.open(self.backends.push())
        return Purge(
            await self.online_store(),
            await self.cold_queue(),
            await self.dead_letter_queue(),
            await self.poke_bus(),
            withdraw=ingress.withdraw,
            withdraw_commands=push.withdraw_commands,
            quiet_seconds=QUIET_SECONDS + ingress.redelivery_seconds,
            clock=self.clock,
        )

    async def message_tracer(self) -> MessageTracer:
        """What finds out what became of a message. Only what can be asked is opened; what cannot be is named."""
        sources, silent, untraceable = [], list[Unsaid](), list[Unsaid]()
        for backend, places in self._kept():
            why = backend.untraceable()
            untraceable += [Unsaid(place, why[place.role]) for place in places if place.role in why]
            asked = [place for place in places if place.role not in why]
            if not isinstance(backend, TracingBackend):
                continue
            try:
                traces = (await self.open(backend)).message_traces()
            except Unavailable as error:
                silent += [Unsaid(place, str(error)) for place in asked]
                continue
            sources.append(Source(asked, traces, backend.finds_by_id))
        return MessageTracer(sources, self._memory(), silent=silent, untraceable=untraceable)

    def _kept(self) -> list[tuple[Backend, list[Place]]]:
        """Each backend with what it keeps; that of the online store first."""
        kept: dict[str, tuple[Backend, list[Place]]] = {}
        for role in sorted(Role, key=lambda role: role is not Role.ONLINE):
            backend = self.backends.keeping(role)
            kept.setdefault(backend.name, (backend, []))[1].append(self.place(role))
        return list(kept.values())

    def _memory(self) -> Memory:
        rules = StoreRules.of(self.config)
        embedded = self.config.embedded
        return Memory(
            plain=0 if self.backends.online().forgets_at_once else rules.remember_seconds(keyed=False),
            keyed=rules.remember_seconds(keyed=True),
            queued=rules.retention_seconds,
            letters=None if self.backends.ingress().letters_elsewhere() else embedded.dead_letter_days * DAY_SECONDS,
        )

    async def migrator(self) -> Migrator:
        async def make() -> Migrator:
            online = self.watched(Role.ONLINE, await self.online_store())
            cold = self.watched(Role.COLD, await self.cold_queue())
            refuser = await self.refuser()
            migrator = Migrator(
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
            return self._traced("TracedMigrator", migrator)

        return await self._once("migrator", make)

    async def refuser(self) -> Refuser:
        letters = self.watched(Role.DEAD_LETTERS, await self.dead_letters())
        return Refuser(letters, clock=self.clock, metrics=self.metrics, reports=self.reports)

    async def message_queue(self) -> CompositeMessageQueue:
        async def make() -> CompositeMessageQueue:
            online = self.watched(Role.ONLINE, await self.online_store())
            cold = self.watched(Role.COLD, await self.cold_queue())
            queue = CompositeMessageQueue(online, cold, await self.migrator(), clock=self.clock, metrics=self.metrics)
            return await self._with_traces("TracedMessageQueue", queue)

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

    async def census_taker(self) -> CensusTaker:
        letters = None
        if not self.backends.ingress().letters_elsewhere():
            letters = (await self.dead_letter_box()).count
        return CensusTaker(
            self.watched(Role.INGRESS, await self.ingress_producer()),
            self.watched(Role.ONLINE, await self.online_store()),
            self.watched(Role.COLD, await self.cold_queue()),
            letters,
            owner=self.node,
            local=self.backends.online().local and self.backends.cold().local,
            clock=self.clock,
            metrics=self.metrics,
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


def backends(config: Config) -> Backends:
    """Those of ``config``, to ask them what needs none of them open."""
    return Factory(config).backends


def needs_recipient(config: Config) -> str:
    """Why a trace by ``config`` needs the recipient of the message; empty if it does not."""
    online = backends(config).online()
    if not isinstance(online, TracingBackend) or online.finds_by_id:
        return ""
    return f"the online store is {online.name}, which finds a message only with its recipient"


def check_machine(config: Config, *, trial: bool = False) -> None:
    """Raise ``DataDirError`` where this machine cannot hold the embedded database that ``config`` asks for.

    ``trial``: make the data directory for that, where it is missing. What cannot work leaves nothing behind.
    """
    if config.uses_database:
        backends(config).database().check_machine(trial=trial)


def _raise_in_loop(name: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": f"the task {name} failed", "exception": error})
