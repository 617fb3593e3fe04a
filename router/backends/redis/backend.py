"""All Redis components over one client."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from router import logs
from router.backends.redis import address, facts
from router.backends.redis.client import Client
from router.backends.redis.facts import RedisFacts
from router.backends.redis.failing import NoCluster, Unauthenticated
from router.backends.redis.keys import Keys
from router.backends.redis.online import RedisOnlineStore
from router.backends.redis.pokes import RedisPokeBus
from router.backends.redis.scripts import Scripts
from router.backends.redis.state import RedisState
from router.backends.rules import StoreRules
from router.clock import Clock
from router.config import Config
from router.errors import ConfigError, Forbidden, Unavailable
from router.metrics import Metrics
from router.timekeeping import Timekeeper

LOG = logs.logger(__name__)
OLDEST = 7


class RedisBackend:
    """Opens connections to ``online.url``; raises ``ConfigError``.

    A server that is down raises nothing here: the router runs without it, and logs that.
    """

    def __init__(self, config: Config, clock: Clock, keeper: Timekeeper, chance: random.Random) -> None:
        self._config = config
        self._clock = clock
        self._keeper = keeper
        self._chance = chance
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        online = self._config.online
        if online.url is None:
            raise ConfigError('online.kind = "redis" needs online.url')
        self._keys, self._scripts = Keys(online.key_prefix), Scripts()
        found = address.parse(online.url.get_secret_value(), online.mode)
        address.check_files(found.options)
        self.client = Client(
            found,
            online.mode,
            self._scripts,
            service=online.sentinel_service,
            pool_size=online.pool_size,
            timeout_seconds=online.timeout_seconds,
        )
        async with AsyncExitStack() as opening:
            await opening.enter_async_context(self.client)
            await self._look_at_servers()
            self._stack = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    def online_store(self) -> RedisOnlineStore:
        state = RedisState(
            self.client,
            self._keys,
            self._scripts,
            StoreRules.of(self._config),
            clock=self._clock,
            keeper=self._keeper,
            chance=self._chance,
        )
        return RedisOnlineStore(state)

    def poke_bus(self, metrics: Metrics) -> RedisPokeBus:
        return RedisPokeBus(self.client, self._keys, self._clock, self._chance, metrics)

    async def _look_at_servers(self) -> None:
        try:
            found = await facts.gather(self.client)
        except (Forbidden, Unauthenticated, NoCluster) as error:
            raise ConfigError(str(error)) from error
        except Unavailable as error:
            LOG.warning(
                "Redis cannot be reached: its settings are not checked, and all mail goes to cold",
                error=str(error),
            )
            return
        for server in found:
            self._check(server)

    def _check(self, server: RedisFacts) -> None:
        if server.major < OLDEST:
            raise ConfigError(f"Redis {server.version} is too old: the router needs {OLDEST}.0 or newer")
        if server.cluster != (self._config.online.mode == "cluster"):
            fit = "cluster" if server.cluster else "single"
            raise ConfigError(f'online.mode is "{self._config.online.mode}", but the server is not: set it to "{fit}"')
        if server.evicts:
            LOG.warning(
                "this Redis drops mail when its memory is full; set maxmemory-policy to noeviction",
                server=server.server,
                policy=server.maxmemory_policy,
            )
        if server.forgets and self._config.online.durability != "write-through":
            LOG.warning(
                "this Redis forgets hot mail when it restarts; set appendonly, or online.durability to write-through",
                server=server.server,
            )
