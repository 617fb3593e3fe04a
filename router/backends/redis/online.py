"""The Redis online store, put together from its parts."""

from __future__ import annotations

from router.backends.composed import ComposedOnlineStore
from router.backends.redis.maintenance import RedisMaintenance
from router.backends.redis.migration import RedisMigration
from router.backends.redis.presence import RedisPresence
from router.backends.redis.queue import RedisQueue
from router.backends.redis.routing import RedisRouting
from router.backends.redis.state import RedisState


class RedisOnlineStore(ComposedOnlineStore):
    """``OnlineStore`` over Redis."""

    def __init__(self, state: RedisState) -> None:
        self.state = state
        super().__init__(
            RedisPresence(state),
            RedisRouting(state),
            RedisQueue(state),
            RedisMigration(state),
            RedisMaintenance(state),
        )
