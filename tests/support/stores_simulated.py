"""``Stores`` on simulated servers: the real backends over ``tests/sim/vendors``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.sim.vendors.redis_server import Redis
from tests.sim.vendors.wires import Place
from tests.sim.vendors.wiring import REDIS_HOST, simulated_redis
from tests.support.stores_redis import RedisStores


@contextmanager
def redis_stores(data_dir: Path) -> Iterator[RedisStores]:
    """A simulated Redis beside an embedded cold queue."""
    with simulated_redis(Redis(Place(Random(1)))):
        yield RedisStores(data_dir, f"redis://{REDIS_HOST}")
