"""The simulated servers keep the contract with the real backends over them, as the real servers do: what holds in the
simulation holds there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.notices import PokeContract
from tests.contract.pipeline import PipelineContract
from tests.contract.queues import QueueContract
from tests.support.stores_redis import RedisStores
from tests.support.stores_simulated import redis_stores


class OverRedis:
    """A simulated Redis is the online store, beside an embedded cold queue."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> Iterator[RedisStores]:
        with redis_stores(tmp_path) as made:
            yield made


class TestSimulatedRedisQueues(OverRedis, QueueContract):
    """As ``TestRedisQueues``."""


class TestSimulatedRedisPokes(OverRedis, PokeContract):
    """As ``TestRedisPokes``."""


class TestSimulatedRedisPipeline(OverRedis, PipelineContract):
    """As ``TestRedisPipeline``."""
