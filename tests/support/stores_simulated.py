"""``Stores`` on simulated servers: the real backends over ``tests/sim/vendors``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random

import pytest

from router.backends.google.channels import FIRESTORE, PUBSUB
from tests.sim.vendors.firestore_server import Firestore
from tests.sim.vendors.pubsub_server import PubSub
from tests.sim.vendors.redis_server import Redis
from tests.sim.vendors.wires import Place
from tests.sim.vendors.wiring import FIRESTORE_ADDRESS, PUBSUB_ADDRESS, REDIS_HOST, simulated_google, simulated_redis
from tests.support.stores_firestore import use_emulator
from tests.support.stores_google import GoogleStores, google_stores
from tests.support.stores_pubsub import PubSubStores, pubsub_stores
from tests.support.stores_redis import RedisStores


@contextmanager
def simulated_redis_stores(data_dir: Path) -> Iterator[RedisStores]:
    """A simulated Redis beside an embedded cold queue."""
    with simulated_redis(Redis(Place(Random(1)))):
        yield RedisStores(data_dir, f"redis://{REDIS_HOST}")


@asynccontextmanager
async def simulated_pubsub_stores(data_dir: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[PubSubStores]:
    """A simulated Pub/Sub in front of embedded queues."""
    patch.setenv(PUBSUB.emulator_variable, PUBSUB_ADDRESS)
    with simulated_google({PUBSUB_ADDRESS: PubSub(Place(Random(1)))}):
        async with pubsub_stores(data_dir) as made:
            yield made


@contextmanager
def simulated_firestore(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Firestore is simulated, and pokes beside it go over the embedded bus."""
    with simulated_google({FIRESTORE_ADDRESS: Firestore(Place(Random(1)))}):
        use_emulator(FIRESTORE_ADDRESS, patch)
        yield


@asynccontextmanager
async def simulated_google_stores(data_dir: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[GoogleStores]:
    """All of it on a simulated Pub/Sub and a simulated Firestore."""
    place = Place(Random(1))
    patch.setenv(PUBSUB.emulator_variable, PUBSUB_ADDRESS)
    patch.setenv(FIRESTORE.emulator_variable, FIRESTORE_ADDRESS)
    with simulated_google({PUBSUB_ADDRESS: PubSub(place), FIRESTORE_ADDRESS: Firestore(place)}):
        async with google_stores(data_dir) as made:
            made.pulls = 0
            yield made
