"""All Redis components over one client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import final

from router import logs
from router.backends.base import OnlineBackend, PokesBackend, TracingBackend
from router.backends.redis import address, checks, facts
from router.backends.redis.client import Client
from router.backends.redis.error_translation import NoCluster, Unauthenticated
from router.backends.redis.facts import RedisFacts
from router.backends.redis.keys import Keys
from router.backends.redis.message_traces import RedisMessageTraces
from router.backends.redis.online import RedisOnlineStore
from router.backends.redis.pokes import RedisPokeBus
from router.backends.redis.scripts import Scripts
from router.backends.redis.state import RedisState
from router.backends.redis.trace_contexts import RedisTraceContexts
from router.backends.routing_rules import StoreRules
from router.config import redis_url
from router.config.roles import Role
from router.errors import ConfigError, Forbidden, Unavailable
from router.findings import WITHOUT, Check, Finding
from router.interfaces import PokeBus

LOG = logs.logger(__name__)
OLDEST = 7


@final
class RedisBackend(OnlineBackend, PokesBackend, TracingBackend):
    """Opens connections to ``online.url``; raises ``ConfigError``.

    A server that is down raises nothing here: the router runs without it, and logs that.
    """

    name = "redis"
    fix = "start the Redis, or name another in online.url"

    async def _open(self, stack: AsyncExitStack) -> None:
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
        await stack.enter_async_context(self.client)
        await self._look_at_servers()

    def settings(self) -> Iterator[Finding]:
        return checks.reached(self._config.online)

    def checks(self) -> list[Check]:
        return [Check("redis.answers", self._look, WITHOUT[Role.ONLINE], f"online.kind is redis: {self.fix}")]

    async def _look(self) -> AsyncIterator[Finding]:
        async with self:
            async for finding in checks.look(self.client, self._config, self._clock):
                yield finding

    def address(self, role: Role) -> str:
        del role
        url, mode = self._config.online.url, self._config.online.mode
        found = redis_url.parse(url.get_secret_value() if url is not None else "", mode)
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in found.hosts)
        return f"{hosts} ({mode})"

    def online_store(self, pokes: PokeBus) -> RedisOnlineStore:
        del pokes  # its scripts publish them in the step that owes them
        return RedisOnlineStore(self._state())

    def trace_contexts(self) -> RedisTraceContexts:
        return RedisTraceContexts(self.client, self._keys)

    def message_traces(self) -> RedisMessageTraces:
        return RedisMessageTraces(self._state())

    def _state(self) -> RedisState:
        return RedisState(
            self.client,
            self._keys,
            self._scripts,
            StoreRules.of(self._config),
            clock=self._clock,
            keeper=self._timekeeper,
            chance=self._chance,
        )

    def poke_bus(self) -> RedisPokeBus:
        return RedisPokeBus(self.client, self._keys, self._clock, self._chance, self._metrics)

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
