"""``Stores`` on Google alone: Pub/Sub in front, for push commands and pokes; Firestore for both queues."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from router.backends.google.channels import PUBSUB, open_channel
from router.backends.pubsub.wire import PubSubApi
from router.config import Cold, Config, Online
from tests.support.stores import CAP, Durability
from tests.support.stores_pubsub import PubSubStores


class GoogleStores(PubSubStores):
    """Needs both emulators in the environment."""

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        config = super().config(cap=cap, durability=durability)
        online = Online(kind="firestore", durability=durability)
        return config.model_copy(update={"cold": Cold(kind="firestore"), "online": online})


@asynccontextmanager
async def google_stores(data_dir: Path) -> AsyncIterator[GoogleStores]:
    """Set up, in a project that no other test uses."""
    project = f"test-{secrets.token_hex(8)}"
    async with await open_channel(PUBSUB, Config()) as channel:
        stores = GoogleStores(data_dir, PubSubApi(channel, project, random.Random(1)), project)
        # The emulator gives the keys of a stream that has ended to nobody, or late; Google's service hands them over.
        stores.pulls = 3
        await stores.set_up()
        yield stores
