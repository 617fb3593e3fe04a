"""The same model over Redis, as the online store, and an embedded cold queue."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.test_promises import Promises
from tests.support.servers import Server
from tests.support.stores import Stores
from tests.support.stores_redis import RedisStores


def test_promises(redis: Server) -> None:
    class RedisPromises(Promises):
        def stores(self) -> Stores:
            return RedisStores(Path(self.directory.name), f"redis://{redis.address}")

    run_state_machine_as_test(
        RedisPromises,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
