"""What a Redis says of itself, and what the router needs of it. For the start-up log and for ``router doctor``."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from router.backends.redis.client import Client
from router.errors import RouterError


class RedisFacts(Struct, frozen=True):
    """One server's facts. A setting is empty where the server does not let itself be asked (``CONFIG`` is refused)."""

    server: str
    """Its address, where there are several."""
    version: str
    run_id: str
    cluster: bool
    role: str
    """``master`` or ``slave``, in Redis's words."""
    replicas: int
    """Replicas that are connected."""
    maxmemory: int
    """Bytes; 0 is no limit."""
    used_memory: int
    maxmemory_policy: str
    appendonly: str
    appendfsync: str
    save: str
    """When snapshots are taken; empty for never."""

    @property
    def evicts(self) -> bool:
        """Whether it drops keys when memory runs out, and mail with them."""
        return self.maxmemory_policy not in ("noeviction", "")

    @property
    def forgets(self) -> bool:
        """Whether a restart loses what is hot: there is no append-only file."""
        return self.appendonly == "no"

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0] or 0)


async def gather(client: Client) -> list[RedisFacts]:
    """The facts of each master. Raises ``Unavailable``."""
    infos = dict(await client.on_each("INFO"))
    settings = {server: await _settings(client, server) for server in infos}
    return [_facts(server, info, settings[server]) for server, info in infos.items()]


_WANTED = ("maxmemory-policy", "appendonly", "appendfsync", "save")


async def _settings(client: Client, server: str) -> dict[str, str]:
    try:
        found = dict(await client.on_each("CONFIG GET", *_WANTED))[server]
    except RouterError:
        return {}  # hosted servers refuse CONFIG; INFO tells some of it
    return {str(key): str(value) for key, value in found.items()}


def _facts(server: str, info: dict[str, Any], settings: dict[str, str]) -> RedisFacts:
    return RedisFacts(
        server=server,
        version=str(info.get("redis_version", "0")),
        run_id=str(info.get("run_id", "")),
        cluster=str(info.get("redis_mode", "")) == "cluster",
        role=str(info.get("role", "")),
        replicas=int(info.get("connected_slaves", 0)),
        maxmemory=int(info.get("maxmemory", 0)),
        used_memory=int(info.get("used_memory", 0)),
        maxmemory_policy=settings.get("maxmemory-policy", str(info.get("maxmemory_policy", ""))),
        appendonly=settings.get("appendonly", "yes" if info.get("aof_enabled") else "no"),
        appendfsync=settings.get("appendfsync", ""),
        save=settings.get("save", ""),
    )
