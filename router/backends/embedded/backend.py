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
from router.backends.embedded.keeper import Keeper, free_pages
from router.backends.embedded.online import EmbeddedOnlineStore
from router.backends.embedded.pokes import EmbeddedPokeBus
from router.backends.embedded.push import EmbeddedDeadLetters, EmbeddedOutbox
from router.backends.embedded.signals import Signals
from router.backends.embedded.space import Space
from router.backends.embedded.state import EmbeddedState
from router.backends.embedded.worker import InlineWorker, ThreadWorker
from router.backends.rules import StoreRules
from router.clock import Clock
from router.config import Config
from router.metrics import Metrics
from router.timekeeping import Timekeeper


class EmbeddedBackend:
    """Opens the database and the signals of ``embedded.data_dir``; raises ``DataDirError``."""

    def __init__(self, config: Config, clock: Clock, timekeeper: Timekeeper, *, in_line: bool) -> None:
        self._config = config
        self._clock = clock
        self._timekeeper = timekeeper
        self._in_line = in_line
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        config = self._config
        alone = {config.ingress.kind, config.online.kind, config.cold.kind} == {"embedded"}
        self._data_dir = config.embedded.data_dir
        self.space = Space(self._data_dir, config.embedded.reserve_bytes, self._clock, within=self._free_within)
        self.space.give_up_file()  # or a full volume would let nobody open the file
        path = schema.prepare(self._data_dir)
        if not self._in_line:
            schema.refuse_damaged(path)
        workers = InlineWorker if self._in_line else ThreadWorker
        database = Database(path, workers, relaxed=alone, make_room=self.space.give_up_file)
        self._database = await self._stack.enter_async_context(database)
        self._page_bytes: int
        (self._page_bytes,) = database.read(lambda db: db.execute("PRAGMA page_size").fetchone())
        (known,) = database.read(lambda db: db.execute("SELECT at FROM clock").fetchone())
        self._timekeeper.not_before(known)
        self._signals = await self._stack.enter_async_context(Signals(self._data_dir))
        self._rules = StoreRules.of(config)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    def _free_within(self) -> int:
        return self._database.read(free_pages) * self._page_bytes

    def keeper(self) -> Keeper:
        """The maintenance that a service runs in the background, and once more before the file is closed."""
        keeper = Keeper(self._database, self.space, self._clock, self._timekeeper)
        self._stack.push_async_callback(keeper.end)
        return keeper

    def producer(self) -> EmbeddedIngressProducer:
        return EmbeddedIngressProducer(self._database, self._signals, self.space.check)

    def consumer(self) -> EmbeddedIngressConsumer:
        lock = partial(FileLock, self._data_dir / "consumer.lock")
        return EmbeddedIngressConsumer(self._database, self._signals, self._clock, lock)

    def online_store(self) -> EmbeddedOnlineStore:
        pokes = self.poke_bus()
        return EmbeddedOnlineStore(
            EmbeddedState(self._database, pokes, self._rules, self._clock, self._timekeeper, self._signals)
        )

    def poke_bus(self) -> EmbeddedPokeBus:
        return EmbeddedPokeBus(self._signals)

    def cold_queue(self) -> EmbeddedColdQueue:
        return EmbeddedColdQueue(self._database)

    def push_notifier(self) -> EmbeddedOutbox:
        here = self._config.cold.kind == "embedded"
        return EmbeddedOutbox(self._database, self._clock, self._timekeeper, cold_here=here)

    def dead_letters(self, metrics: Metrics) -> EmbeddedDeadLetters:
        return EmbeddedDeadLetters(self._database, self._timekeeper, self._config.embedded, metrics)
