"""What the router uses inside redis-py, which promises to keep none of it: the one place that names it.

``tests/redis/test_internals.py`` compares this with the release that is installed. Beside the names here, two habits of
the library count: it awaits ``redis_connect_func`` in the place of ``on_connect``, and a connection under sentinels
whose server has become a replica raises an error whose context is the ``ReadOnlyError``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol, cast

from redis.asyncio import Redis, RedisCluster


class Retry(Protocol):
    """``redis.asyncio.retry.Retry``."""

    async def call_with_retry(
        self, do: Callable[[], Awaitable[None]], fail: Callable[[Exception], Awaitable[None]], /
    ) -> None: ...


class Connection(Protocol):
    """``redis.asyncio.connection.AbstractConnection``."""

    retry: Retry

    @property
    def is_connected(self) -> bool: ...

    async def can_read(self) -> bool: ...

    async def connect(self) -> None: ...

    async def disconnect(self, *, nowait: bool) -> None: ...

    async def on_connect(self) -> None: ...

    async def read_response(self) -> Any: ...

    async def send_command(self, *arguments: str) -> None: ...

    async def send_packed_command(self, packed: bytes, /, *, check_health: bool) -> None: ...


class Pool(Protocol):
    """``redis.asyncio.ConnectionPool``."""

    _available_connections: Iterable[Connection]
    _in_use_connections: Iterable[Connection]

    async def get_connection(self) -> Connection: ...

    async def release(self, connection: Connection, /) -> None: ...


class Search(Protocol):
    """``redis.asyncio.Sentinel``."""

    sentinels: list[Redis]
    """In the order in which they are asked; a search brings the one that answered to the front."""

    async def discover_master(self, service_name: str, /) -> tuple[str, int]: ...

    def master_for(self, service_name: str, /, **options: Any) -> Redis: ...


class Node(Protocol):
    """``redis.asyncio.cluster.ClusterNode``."""

    _connections: Iterable[Connection]


class Nodes(Protocol):
    """``redis.asyncio.cluster.NodesManager``."""

    nodes_cache: dict[str, Node]
    startup_nodes: dict[str, Node]


def connections_of(client: Redis | RedisCluster) -> Iterator[Connection]:
    """All connections of ``client``, open or not."""
    if isinstance(client, RedisCluster):
        nodes = cast(Nodes, client.nodes_manager)
        for node in (*nodes.nodes_cache.values(), *nodes.startup_nodes.values()):
            yield from tuple(node._connections)
    else:
        pool = cast(Pool, client.connection_pool)
        yield from (*pool._available_connections, *pool._in_use_connections)
