"""The seam to the real libraries: while servers are simulated, a connection to one of them is made in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import redis.asyncio.connection as library

from tests.sim.vendors.grpc_channel import Service, SimChannel
from tests.sim.vendors.redis_server import Redis, connect
from tests.sim.vendors.wires import Wire

REDIS_HOST = "redis.simulated"
PUBSUB_ADDRESS = "pubsub.simulated:443"
FIRESTORE_ADDRESS = "firestore.simulated:443"
Wires = Callable[[str], Wire]
"""The wire from whoever asks now to a server of that name."""


@contextmanager
def simulated_redis(server: Redis, wires: Wires = lambda name: Wire()) -> Iterator[None]:
    """Connections to ``REDIS_HOST`` go to ``server``."""
    original: Any = library.Connection._connect
    opened: list[Any] = []

    async def opening(connection: Any) -> None:
        if connection.host != REDIS_HOST:
            await original(connection)
            return
        async with asyncio.timeout(connection.socket_connect_timeout):
            connection._reader, connection._writer = await connect(server, wires("redis"))
        opened.append(connection)

    library.Connection._connect = opening  # type: ignore[method-assign]  # the seam
    try:
        yield
    finally:
        library.Connection._connect = original  # type: ignore[method-assign]  # the seam
        server.abandon()
        for connection in opened:
            # Whoever died has closed nothing; the library would complain of it.
            connection._reader = connection._writer = None


@contextmanager
def simulated_google(services: Mapping[str, Service], wires: Wires = lambda name: Wire()) -> Iterator[None]:
    """Channels to emulators at these addresses go to these services."""
    original: Any = grpc.aio.insecure_channel

    def channel(target: str, options: Any = None) -> Any:
        service = services.get(target)
        return original(target, options=options) if service is None else SimChannel(service, wires(target))

    aio: Any = grpc.aio
    aio.insecure_channel = channel
    try:
        yield
    finally:
        aio.insecure_channel = original
