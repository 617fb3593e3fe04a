"""Redis as the online store keeps the contract, with the rights that the documentation gives its user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.contexts import RememberedContract, StepContract
from tests.contract.damage import DamageContract
from tests.contract.notices import PokeContract
from tests.contract.pipeline import PipelineContract
from tests.contract.purging import PurgeContract
from tests.contract.queues import QueueContract
from tests.contract.records import RecordContract
from tests.contract.traces import StepTraceContract
from tests.support.redis_servers import documented_user
from tests.support.servers import Server
from tests.support.stores_redis import PREFIX, RedisStores

pytestmark = pytest.mark.usefixtures("both_redis_releases")


@pytest.fixture
def stores(tmp_path: Path, redis: Server) -> RedisStores:
    return RedisStores(tmp_path, documented_user(f"redis://{redis.address}", [redis], PREFIX))


class TestRedisQueues(QueueContract):
    """Over a single Redis, beside an embedded cold queue."""


class TestRedisPokes(PokeContract):
    """A channel for each node."""


class TestRedisPipeline(PipelineContract):
    """From an embedded ingress."""


class TestRedisDamage(DamageContract):
    """In Redis, and in a file."""


class TestRedisRecords(RecordContract):
    """By the Lua scripts."""


class TestRedisTraces(StepTraceContract):
    """By one script, and by a look at all users where the recipient is not named."""


class TestRedisContexts(StepContract, RememberedContract):
    """A hash for each user."""


class TestRedisPurge(PurgeContract):
    """In Redis, and in a file."""
