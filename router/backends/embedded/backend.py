"""All embedded components over one data directory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import final

from router.backends.base import (
    ColdBackend,
    FileBackend,
    IngressBackend,
    OnlineBackend,
    PokesBackend,
    PushBackend,
    Tools,
    TracingBackend,
    Upkeep,
)
from router.backends.embedded import backup, checks, library, schema
from router.backends.embedded.books import EmbeddedAuditor
from router.backends.embedded.cold import EmbeddedColdQueue
from router.backends.embedded.database import Database
from router.backends.embedded.direct import EmbeddedRoutingIngress
from router.backends.embedded.ingress import SQL as INGRESS
from router.backends.embedded.ingress import EmbeddedIngressConsumer, EmbeddedIngressProducer, FileLock
from router.backends.embedded.keeper import Keeper, free_pages
from router.backends.embedded.message_traces import EmbeddedMessageTraces
from router.backends.embedded.online import EmbeddedOnlineStore
from router.backends.embedded.pokes import EmbeddedPokeBus
from router.backends.embedded.push import SQL as PUSH
from router.backends.embedded.push import EmbeddedDeadLetters, EmbeddedOutbox
from router.backends.embedded.signals import Signals
from router.backends.embedded.space import Space
from router.backends.embedded.state import EmbeddedState
from router.backends.embedded.trace_contexts import EmbeddedTraceContexts
from router.backends.embedded.turns import Lead
from router.backends.embedded.worker import InlineWorker, ThreadWorker
from router.backends.routing_rules import StoreRules
from router.backups import Backup, Progress
from router.config import Config
from router.config.roles import Role, keeps_all
from router.data_dir import in_use
from router.errors import ConfigError
from router.findings import Check, on_a_thread
from router.interfaces import PokeBus
from router.needs import Need, directory, file

STEP_ROWS = 500
"""Rows that one transaction deletes, so that nobody else waits for long."""


@final
class EmbeddedBackend(
    IngressBackend, OnlineBackend, PokesBackend, ColdBackend, PushBackend, FileBackend, TracingBackend
):
    """Opens the database and the signals of ``embedded.data_dir``; raises ``DataDirError``."""

    name = "embedded"
    local = True
    fix = "check embedded.data_dir"

    def __init__(self, config: Config, tools: Tools) -> None:
        super().__init__(config, tools)
        self._data_dir = config.embedded.data_dir

    async def _open(self, stack: AsyncExitStack) -> None:
        config = self._config
        alone = {Role.INGRESS, Role.ONLINE, Role.COLD} <= self.roles
        self.space = Space(self._data_dir, config.embedded.reserve_bytes, self._clock, within=self._free_within)
        self.space.give_up_file()  # or a full volume would let nobody open the file
        schema.try_out(self._data_dir)
        stack.enter_context(in_use(self._data_dir))
        path = schema.prepare(self._data_dir)
        if not self._in_line:
            schema.refuse_damaged(path)
        workers = InlineWorker if self._in_line else ThreadWorker
        database = Database(path, workers, relaxed=alone, make_room=self.space.give_up_file)
        self._database = await stack.enter_async_context(database)
        self._page_bytes: int
        (self._page_bytes,) = database.read(lambda db: db.execute("PRAGMA page_size").fetchone())
        (known,) = database.read(lambda db: db.execute("SELECT at FROM clock").fetchone())
        self._timekeeper.not_before(known)
        self._lead = Lead(self._data_dir / "leader.lock")
        stack.callback(self._lead.release)
        self._signals = await stack.enter_async_context(Signals(self._data_dir))
        self._rules = StoreRules.of(config, fresh_cold_empty={Role.ONLINE, Role.COLD} <= self.roles)

    def checks(self) -> list[Check]:
        """Of the data directory, also where only the key that signs tokens is in it."""
        look = partial(checks.data_dir, self._data_dir, self._config.embedded.reserve_bytes)
        found = [Check("embedded", on_a_thread(look), "All accepted mail is stored there.", "check its disk")]
        if self.roles:
            found.append(Check("embedded.sqlite", on_a_thread(lambda: [checks.sqlite_library()]), "", ""))
        return found

    def address(self, role: Role) -> str:
        del role
        return str(self._data_dir)

    def check_machine(self, *, trial: bool) -> None:
        library.check()
        (schema.try_out if trial else schema.try_nearest)(self._data_dir)

    @asynccontextmanager
    async def needs(self) -> AsyncIterator[list[Need]]:
        path = self._data_dir / schema.FILE_NAME
        database = file("database", path, lambda: schema.prepare(self._data_dir))
        yield [directory(self._data_dir), database] if self.roles else []

    def is_made(self) -> bool:
        return os.access(self._data_dir / schema.FILE_NAME, os.R_OK)

    def check_made(self) -> None:
        schema.check_made(self._data_dir)

    def back_up(self, file: Path, progress: Progress) -> Backup:
        self.check_made()
        return backup.make(self._data_dir / schema.FILE_NAME, file, self._clock.now(), progress)

    def check_backup(self, file: Path, progress: Progress) -> Backup:
        return backup.check(file, progress)

    def restore(self, file: Path, progress: Progress, *, overwrite: bool) -> Backup:
        return backup.restore(file, self._data_dir, progress, overwrite=overwrite)

    def _free_within(self) -> int:
        return self._database.read(free_pages) * self._page_bytes

    def keeper(self) -> Keeper:
        """The maintenance that a service runs in the background, and once more before the file is closed."""
        keeper = Keeper(self._database, self.space, self._clock, self._timekeeper)
        self._stack.push_async_callback(keeper.end)
        return keeper

    def upkeep(self) -> list[Upkeep]:
        """Looks after the database file, and says what its volume has left."""
        space = self.space
        self._metrics.data_dir(lambda: space.free, lambda: space.short)
        full = "sends: the volume of the data directory is nearly full"
        return [Upkeep("data directory", self.keeper().run, lambda: full if space.short else "")]

    def message_traces(self) -> EmbeddedMessageTraces:
        return EmbeddedMessageTraces(self._database, self._signals, self._rules, self._clock, self.roles)

    def producer(self) -> EmbeddedIngressProducer:
        return EmbeddedIngressProducer(self._database, self._signals, self.space.check)

    @property
    def direct(self) -> bool:
        """Whether this file keeps all that a message passes, so that each of its steps is one transaction."""
        return keeps_all(self._config, self.name)

    @property
    def forgets_at_once(self) -> bool:
        return self.direct and not self._config.embedded.remember_acknowledged

    def routing_ingress(self) -> EmbeddedRoutingIngress | None:
        if not self.direct:
            return None
        return EmbeddedRoutingIngress(
            self._state(self.poke_bus()),
            self._signals,
            self.dead_letters(),
            check_room=self.space.check,
        )

    def auditor(self) -> EmbeddedAuditor | None:
        return EmbeddedAuditor(self._database) if self.direct else None

    async def withdraw(self, user: str) -> int:
        return await self._delete_all(INGRESS["withdraw"], user)

    async def withdraw_commands(self, user: str) -> int:
        return await self._delete_all(PUSH["withdraw_some"], user)

    async def _delete_all(self, statement: str, user: str) -> int:
        """Run ``statement``, which deletes some rows of ``user``, until none is left; returns how many."""
        deleted = 0
        while found := await self._database.write(lambda db: db.execute(statement, (user, STEP_ROWS)).rowcount):
            deleted += found
        return deleted

    def consumer(self) -> EmbeddedIngressConsumer:
        lock = partial(FileLock, self._data_dir / "consumer.lock")
        return EmbeddedIngressConsumer(self._database, self._signals, lock)

    def trace_contexts(self) -> EmbeddedTraceContexts:
        return EmbeddedTraceContexts(self._database, self._clock)

    def online_store(self, pokes: PokeBus) -> EmbeddedOnlineStore:
        return EmbeddedOnlineStore(self._state(pokes))

    def _state(self, pokes: PokeBus) -> EmbeddedState:
        return EmbeddedState(
            self._database,
            pokes,
            self._rules,
            self._clock,
            self._timekeeper,
            direct=self.direct,
            announces=Role.PUSH in self.roles,
            remembers=self._config.embedded.remember_acknowledged,
            nodes=self._signals,
            lead=self._lead.take,
        )

    def poke_bus(self) -> EmbeddedPokeBus:
        return EmbeddedPokeBus(self._signals)

    def cold_queue(self) -> EmbeddedColdQueue:
        return EmbeddedColdQueue(self._database)

    def push_notifier(self) -> EmbeddedOutbox:
        return EmbeddedOutbox(
            self._database, self._clock, self._timekeeper, cold_here=Role.COLD in self.roles, direct=self.direct
        )

    async def outbox(self, subscription: str = "") -> EmbeddedOutbox:
        if subscription:
            raise ConfigError('push.kind = "embedded" keeps its outbox itself: leave --subscription out')
        return self.push_notifier()

    def dead_letters(self) -> EmbeddedDeadLetters:
        return EmbeddedDeadLetters(self._database, self._timekeeper, self._config.embedded, self._metrics)

    def dead_letter_queue(self) -> EmbeddedDeadLetters:
        return self.dead_letters()

    def letters_elsewhere(self) -> str:
        return ""

    def dead_letter_box(self) -> EmbeddedDeadLetters:
        return self.dead_letters()
