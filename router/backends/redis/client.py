"""One client for three kinds of Redis: a single server, a master under sentinels, and a cluster.

A caller sends a batch of commands, which costs one round trip. All time-outs and retries are set here. A retry can run
a script twice; every script is idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain
from types import TracebackType
from typing import Any, Literal, Self

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from router import logs
from router.backends.redis.address import Address
from router.backends.redis.error_translation import FOREIGN, translated
from router.backends.redis.exchange import Exchange
from router.backends.redis.internals import Connection, connections_of
from router.backends.redis.masters import Masters, NoMaster
from router.backends.redis.scripts import Command, Scripts, not_run
from router.backends.redis.sentinels import Sentinels
from router.config.redis_url import Mode
from router.errors import Refused

LOG = logs.logger(__name__)
Refusals = Literal["raise", "skip"]
CLOSE_SECONDS = 2.0
TIMES_AGAIN = 2
"""Two, since a server may refuse twice: first since it does not know the script, and then, when it has got the text,
since it is a replica."""


class Client:
    """Sends batches of commands, at most ``pool_size`` at once; others wait."""

    def __init__(
        self, address: Address, mode: Mode, scripts: Scripts, *, service: str, pool_size: int, timeout_seconds: float
    ) -> None:
        """``service``: the name of the master at the sentinels."""
        self._scripts = scripts
        self._service = service
        self._hosts = address.hosts
        self._timeout_seconds = timeout_seconds
        self._room = asyncio.Semaphore(pool_size)
        """The client of a cluster: redis-py sends each command to the node that has its keys."""
        times = {"protocol": 2, "socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
        self._options: dict[str, Any] = {**address.options, **times}
        # One retry, since only a write shows that the server has closed an idle connection. None after a time-out: the
        # server may be about to answer.
        retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
        options = {**self._options, "max_connections": pool_size + 1, "retry": retry}
        # The exchange has one time-out for all replies of a batch.
        untimed = {**options, "socket_timeout": None, "redis_connect_func": self._meet}
        self._masters = Masters()
        self._sentinel: Sentinels | None = None
        self._exchange: Exchange | None = None
        self._redis: Redis | RedisCluster
        if mode == "cluster":
            options.pop("db", None)
            cluster: Any = RedisCluster(startup_nodes=[ClusterNode(*host) for host in address.hosts], **options)
            # A list, as the server sends it and as an exchange returns it.
            cluster.set_response_callback("HGETALL", list)
            self._redis = cluster
        elif mode == "sentinel":
            asking = {**address.sentinel_options, **times, "retry": Retry(NoBackoff(), 0)}
            self._sentinel = Sentinels(address.hosts, asking)
            self._redis = self._sentinel.master_for(service, **untimed)
        else:
            ((host, port),) = address.hosts
            self._redis = Redis(host=host, port=port, **untimed)
        if isinstance(self._redis, Redis):
            self._exchange = Exchange(
                self._redis.connection_pool, pool_size, timeout_seconds, self._masters, self._left
            )
        self._listeners: set[Redis] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sentinels = self._sentinel.sentinels if self._sentinel is not None else []
        try:
            if self._exchange is not None:
                await self._exchange.aclose()
        finally:
            await closed(self._redis, *sentinels, *self._listeners)

    async def run(self, *phases: Sequence[Command], refusals: Refusals = "raise") -> list[Any]:
        """The results of all commands. Commands of one phase may run in any order; phases run one after another.

        Costs one round trip; in a cluster, whose servers do not wait for one another, one for each phase. Raises
        ``Unavailable`` if a server cannot be reached or does not accept commands now. Raises ``Refused`` if a retry
        cannot help, through a bug in the router or another program that writes to its keys; with ``skip`` that result
        is ``None`` instead, so that one user's broken key does not end a walk over all users.
        """
        commands = [command for phase in phases for command in phase]
        if not commands:
            return []
        try:
            async with asyncio.timeout(2 * self._timeout_seconds):
                results = await self._run(phases)
                for _ in range(TIMES_AGAIN):
                    if not (again := not_run(phases, results)):
                        break
                    texts = [[self._scripts.with_text(commands[index]) for index in phase] for phase in again]
                    for index, result in zip(chain(*again), await self._run(texts), strict=True):
                        results[index] = result
        except FOREIGN as error:
            raise translated(error) from error
        return [self._checked(result, command, refusals) for result, command in zip(results, commands, strict=True)]

    def _checked(self, result: Any, command: Command, refusals: Refusals) -> Any:
        if not isinstance(result, Exception):
            return result
        error = translated(result)
        if refusals == "raise" or not isinstance(error, Refused):
            raise error from result
        LOG.error("one user's keys are broken", key=command[3], error=str(error))
        return None

    async def _run(self, phases: Sequence[Sequence[Command]]) -> list[Any]:
        batches = phases if self._exchange is None else [[command for phase in phases for command in phase]]
        results: list[Any] = []
        for batch in batches:
            if batch:
                results += await self._send(batch)
        return results

    async def _send(self, batch: Sequence[Command]) -> list[Any]:
        if self._exchange is not None:
            return await self._exchange.send(batch)
        async with self._room:
            pipeline: Any = self._redis.pipeline(transaction=False)
            for command in batch:
                pipeline.execute_command(*command)
            results: list[Any] = await pipeline.execute(raise_on_error=False)
            return results

    async def on_each(self, *command: str) -> list[tuple[str, Any]]:
        """The answer of each master, by its address. Raises like ``run``."""
        try:
            async with asyncio.timeout(2 * self._timeout_seconds):
                redis: Any = self._redis
                if not isinstance(redis, RedisCluster):
                    return [("", await redis.execute_command(*command))]
                await redis.initialize()
                return [(n.name, await redis.execute_command(*command, target_nodes=n)) for n in redis.get_primaries()]
        except FOREIGN as error:
            raise translated(error) from error

    async def scan(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """All keys that match ``pattern``, of each master, some ``count`` of which it looks at in one step. A key may
        come twice. Raises like ``run``."""
        redis: Any = self._redis
        nodes: list[Any] = [None]
        if isinstance(redis, RedisCluster):
            await self.on_each("PING")  # so that the nodes are known
            nodes = redis.get_primaries()
        for node in nodes:
            cursor = 0
            while True:
                cursor, keys = await self._scan(node, cursor, pattern, count)
                yield keys
                if not cursor:
                    break

    async def _scan(self, node: Any, cursor: int, pattern: str, count: int) -> tuple[int, list[bytes]]:
        options = {} if node is None else {"target_nodes": node}
        redis: Any = self._redis
        try:
            async with asyncio.timeout(2 * self._timeout_seconds):
                step = await redis.execute_command("SCAN", cursor, "MATCH", pattern, "COUNT", count, **options)
        except FOREIGN as error:
            raise translated(error) from error
        after, keys = step
        if isinstance(after, dict):  # of a cluster: the cursor of each node that was asked, which is one
            (after,) = after.values()
        return int(after), keys

    async def on_sentinels(self, *command: str) -> list[Any]:
        """The answer of each sentinel, or its error in the place of one; empty without sentinels."""
        asked: Sequence[Any] = self._sentinel.sentinels if self._sentinel is not None else []
        async with asyncio.timeout(2 * self._timeout_seconds):
            asking = (sentinel.execute_command(*command) for sentinel in asked)
            return await asyncio.gather(*asking, return_exceptions=True)

    @asynccontextmanager
    async def listener(self) -> AsyncIterator[Redis]:
        """A separate client for a subscription; in a cluster to any node, since each node gets all pokes.

        The caller sets a time-out for each of its calls: redis-py's own time-out (``wait_for`` of Python 3.11) can
        swallow a cancellation, and the listener would not end. Raises like ``run``.
        """
        listener = await self._listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            await closed(listener)

    async def _listener(self) -> Redis:
        # No supported errors: for such an error redis-py connects and subscribes again before it raises, even without
        # retries. Pokes would go to a subscription that is about to be closed.
        retry = Retry(NoBackoff(), 0, supported_errors=())
        options: dict[str, Any] = {**self._options, "socket_timeout": None, "retry": retry}
        if not isinstance(self._redis, RedisCluster):
            options["redis_connect_func"] = self._masters.meet_listening
        if self._sentinel is not None:
            host, port = await self._master()
        elif isinstance(self._redis, RedisCluster):
            try:
                await self._redis.initialize()
            except FOREIGN as error:
                raise translated(error) from error
            node = self._redis.get_random_node()
            host, port = node.host, int(node.port)
        else:
            ((host, port),) = self._hosts
        return Redis(host=host, port=port, **options)

    async def _meet(self, connection: Connection) -> None:
        try:
            await self._masters.meet(connection)
        except NoMaster:
            if self._sentinel is not None:
                self._sentinel.ask_next()
            raise

    async def _left(self) -> None:
        """Close subscriptions at a server that is not a master, which may get no pokes; the listener opens new ones."""
        await closed(*self._listeners)

    async def _master(self) -> tuple[str, int]:
        assert self._sentinel is not None, "only sentinels know the master"
        try:
            return await self._sentinel.discover_master(self._service)
        except FOREIGN as error:
            raise translated(error) from error


async def closed(*clients: Redis | RedisCluster) -> None:
    """Close ``clients``, and wait for at most ``CLOSE_SECONDS``, since a server may not answer.

    No connection stays open: not if the time is over, nor if the caller is cancelled, nor where redis-py closes
    nothing, as a cluster's client that has just lost a node.
    """
    try:
        with suppress(*FOREIGN):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(client.aclose() for client in clients), return_exceptions=True)
    finally:
        for connection in chain(*map(connections_of, clients)):
            await connection.disconnect(nowait=True)
