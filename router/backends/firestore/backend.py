"""All Firestore components over one database."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from router.backends.firestore.client import Client
from router.backends.firestore.cold import FirestoreColdQueue
from router.backends.firestore.names import Layout
from router.backends.firestore.online import FirestoreOnlineStore
from router.backends.firestore.transactions import OnlineLayout, Transactions
from router.backends.firestore.writing import Writer
from router.backends.google.calls import Patience
from router.backends.google.channels import FIRESTORE, open_channels, project
from router.backends.rules import StoreRules
from router.clock import Clock
from router.config import Config
from router.interfaces import PokeBus
from router.timekeeping import Timekeeper


class FirestoreBackend:
    """Opens channels to the database of the configuration, or to ``FIRESTORE_EMULATOR_HOST``.

    Raises ``ConfigError`` where there is no project or there are no credentials. Nothing is sent before the first call.
    """

    patience = Patience()

    def __init__(self, config: Config, clock: Clock, keeper: Timekeeper, chance: random.Random) -> None:
        self._config = config
        self._database = config.google.firestore_database
        self._clock = clock
        self._keeper = keeper
        self._chance = chance
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._layout = Layout(project(self._config), self._database, self._config.cold.collection)
        channels = await self._stack.enter_async_context(open_channels(FIRESTORE, self._config))
        self.client = Client(channels, self._layout.database, self._chance, self.patience)
        self._writer = Writer(self.client)
        self._stack.push_async_callback(self._writer.aclose)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    def cold_queue(self) -> FirestoreColdQueue:
        retention_days = self._config.cold.retention_days
        return FirestoreColdQueue(self.client, self._writer, self._layout, retention_days, self._clock)

    def online_store(self, pokes: PokeBus) -> FirestoreOnlineStore:
        layout = OnlineLayout(project(self._config), self._database, self._config.online.collection)
        transactions = Transactions(self.client, layout, StoreRules.of(self._config), self._clock)
        return FirestoreOnlineStore(transactions, self._writer, pokes, self._clock, self._keeper)
