"""All Firestore components over one database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import final

from msgspec import structs

from router.backends.base import ColdBackend, OnlineBackend, TracingBackend
from router.backends.firestore import checks, resources
from router.backends.firestore.admin import Admin
from router.backends.firestore.client import Client
from router.backends.firestore.cold import FirestoreColdQueue
from router.backends.firestore.message_traces import FirestoreMessageTraces
from router.backends.firestore.names import Layout
from router.backends.firestore.online import FirestoreOnlineStore
from router.backends.firestore.state import FirestoreState
from router.backends.firestore.transactions import OnlineLayout, Transactions
from router.backends.firestore.write_batches import Writer
from router.backends.google.calls import Patience
from router.backends.google.channels import FIRESTORE, open_channel, open_channels, project
from router.backends.routing_rules import StoreRules
from router.config.roles import Role
from router.findings import WITHOUT, Check
from router.interfaces import PokeBus
from router.needs import Need


@final
class FirestoreBackend(OnlineBackend, ColdBackend, TracingBackend):
    """Opens channels to the database of the configuration, or to ``FIRESTORE_EMULATOR_HOST``.

    Raises ``ConfigError`` where there is no project or there are no credentials. Nothing is sent before the first call.
    """

    name = "firestore"
    fix = "check google.project, the credentials and the network"
    finds_by_id = False
    patience = Patience()

    async def _open(self, stack: AsyncExitStack) -> None:
        database = self._config.google.firestore_database
        self._layout = Layout(project(self._config), database, self._config.cold.collection)
        channels = await stack.enter_async_context(open_channels(FIRESTORE, self._config))
        self.client = Client(channels, self._layout.database, self._chance, self.patience)
        self._writer = Writer(self.client)
        stack.push_async_callback(self._writer.aclose)
        self._metrics.firestore(lambda: structs.asdict(self.client.statistics))

    @asynccontextmanager
    async def needs(self) -> AsyncIterator[list[Need]]:
        config = self._config
        if FIRESTORE.emulator():
            yield resources.needs(None, config)
            return
        database = Layout(project(config), config.google.firestore_database, config.cold.collection).database
        async with await open_channel(FIRESTORE, config) as channel:
            yield resources.needs(Admin(channel, database, self._chance), config)

    def checks(self) -> list[Check]:
        look = partial(checks.look, self._config, self._chance)
        return [Check("firestore.database", look, WITHOUT[Role.COLD], f"cold.kind is firestore: {self.fix}")]

    def address(self, role: Role) -> str:
        collection = self._config.online.collection if role is Role.ONLINE else self._config.cold.collection
        return FIRESTORE.address(self._config, f"collection {collection}")

    def cold_queue(self) -> FirestoreColdQueue:
        retention_days = self._config.cold.retention_days
        return FirestoreColdQueue(self.client, self._writer, self._layout, retention_days, self._clock)

    def online_store(self, pokes: PokeBus) -> FirestoreOnlineStore:
        transactions = self._transactions()
        return FirestoreOnlineStore(FirestoreState(transactions, self._writer, pokes, self._clock, self._timekeeper))

    def _transactions(self) -> Transactions:
        config = self._config
        layout = OnlineLayout(project(config), config.google.firestore_database, config.online.collection)
        return Transactions(self.client, layout, StoreRules.of(config), self._clock)

    def message_traces(self) -> FirestoreMessageTraces:
        return FirestoreMessageTraces(
            self.client,
            self._clock,
            online=self._transactions() if Role.ONLINE in self.roles else None,
            cold=self._layout if Role.COLD in self.roles else None,
        )
