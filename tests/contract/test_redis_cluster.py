"""A Redis cluster as the online store keeps the contract: no script ever needs two slots, or a right
that the documentation does not give."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.notices import PokeContract
from tests.contract.pipeline import PipelineContract
from tests.contract.purging import PurgeContract
from tests.contract.queues import QueueContract
from tests.contract.traces import StepTraceContract
from tests.support.redis_servers import Cluster, documented_user
from tests.support.stores_redis import PREFIX, RedisStores


@pytest.fixture
def stores(tmp_path: Path, redis_cluster: Cluster) -> RedisStores:
    return RedisStores(tmp_path, documented_user(redis_cluster.url, redis_cluster.nodes, PREFIX), mode="cluster")


class TestRedisClusterQueues(QueueContract):
    """Over three masters, beside an embedded cold queue."""


class TestRedisClusterPokes(PokeContract):
    """A channel for each node."""


class TestRedisClusterPipeline(PipelineContract):
    """From an embedded ingress."""


class TestRedisClusterTraces(StepTraceContract):
    """Users are on any of the masters."""


class TestRedisClusterPurge(PurgeContract):
    """Indexes in other slots than the user's keys."""
