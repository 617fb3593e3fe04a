"""All embedded components over one data directory."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

from router.backends.embedded import schema
from router.backends.embedded.cold import EmbeddedColdQueue
from router.backends.embedded.database import Database
from router.backends.embedded.ingress import EmbeddedIngressConsumer, EmbeddedIngressProducer, FileLock
from router.backends.embedded.online import EmbeddedOnlineStore
from router.backends.embedded.pokes import EmbeddedPokeBus
from router.backends.embedded.push import EmbeddedDeadLetters, EmbeddedOutbox
from router.backends.embedded.signals import Signals
from router.backends.embedded.worker import InlineWorker, ThreadWorker
from router.backends.rules import StoreRules
from router.clock import Clock
from router.config import Config


class EmbeddedBackend:
    """Opens the database and the signals of ``embedded.data_dir``; raises ``DataDirError``."""

    def __init__(self, config: Config, clock: Clock, *, in_line: bool) -> None:
        self._config = config
        self._clock = clock
        self._in_line = in_line
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        config = self._config
        alone = {config.ingress.kind, config.online.kind, config.cold.kind} == {"embedded"}
        self._data_dir = config.embedded.data_dir
        path = schema.prepare(self._data_dir)
        if not self._in_line:
            schema.refuse_damaged(path)
        database = Database(path, InlineWorker if self._in_line else ThreadWorker, relaxed=alone)
        self._database = await self._stack.enter_async_context(database)
        self._signals = await self._stack.enter_async_context(Signals(self._data_dir))
        self._rules = StoreRules.of(config)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    def producer(self) -> EmbeddedIngressProducer:
        return EmbeddedIngressProducer(self._database, self._signals)

    def consumer(self) -> EmbeddedIngressConsumer:
        lock = partial(FileLock, self._data_dir / "consumer.lock")
        return EmbeddedIngressConsumer(self._database, self._signals, self._clock, lock)

    def online_store(self) -> EmbeddedOnlineStore:
        return EmbeddedOnlineStore(self._database, self.poke_bus(), self._rules, self._clock, self._signals)

    def poke_bus(self) -> EmbeddedPokeBus:
        return EmbeddedPokeBus(self._signals)

    def cold_queue(self) -> EmbeddedColdQueue:
        return EmbeddedColdQueue(self._database, self._config.cold.retention_days, self._clock)

    def push_notifier(self) -> EmbeddedOutbox:
        return EmbeddedOutbox(self._database, self._clock, cold_here=self._config.cold.kind == "embedded")

    def dead_letters(self) -> EmbeddedDeadLetters:
        return EmbeddedDeadLetters(self._database)
