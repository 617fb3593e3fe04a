"""The same model over Redis, as the online store, and an embedded cold queue."""

from __future__ import annotations

from pathlib import Path

from tests.model.test_promises import Promises, keeps
from tests.support.servers import Server
from tests.support.stores import Stores
from tests.support.stores_redis import RedisStores


def test_promises(redis: Server) -> None:
    class RedisPromises(Promises):
        def stores(self) -> Stores:
            return RedisStores(Path(self.directory.name), f"redis://{redis.address}")

    keeps(RedisPromises, examples=25, steps=40)
