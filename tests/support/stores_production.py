"""``Stores`` as most run it: Pub/Sub in front and for push commands, Redis as online store, Firestore as cold queue."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from router.backends.google.channels import PUBSUB, open_channel
from router.backends.pubsub.wire import PubSubApi
from router.config import Cold, Config, Online
from tests.support.stores import CAP, Durability
from tests.support.stores_pubsub import PubSubStores


class ProductionStores(PubSubStores):
    """Needs both emulators in the environment."""

    url = ""

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        config = super().config(cap=cap, durability=durability)
        online = Online(kind="redis", url=SecretStr(self.url), key_prefix=self.project, durability=durability)
        return config.model_copy(update={"cold": Cold(kind="firestore"), "online": online})


@asynccontextmanager
async def production_stores(data_dir: Path, url: str) -> AsyncIterator[ProductionStores]:
    """Set up, in a project and under a key prefix that no other test uses; ``url`` is the Redis."""
    project = f"test-{secrets.token_hex(8)}"
    async with await open_channel(PUBSUB, Config()) as channel:
        stores = ProductionStores(data_dir, PubSubApi(channel, project, random.Random(1)), project)
        stores.url = url
        # The emulator gives the keys of a stream that has ended to nobody, or late; Google's service hands them over.
        stores.pulls = 3
        await stores.set_up()
        yield stores
