"""Facts about a Redis, and whether they suit the router; for the start-up log and for ``router doctor``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from redis.exceptions import ResponseError

from router.backends.redis.client import Client
from router.errors import RouterError


class RedisFacts(Struct, frozen=True):
    """Facts about one server. A setting is empty if the server refuses ``CONFIG``."""

    server: str
    """Its address, if there are several servers."""
    version: str
    run_id: str
    cluster: bool
    role: str
    """``master`` or ``slave``, in Redis's words."""
    replicas: int
    """Connected replicas."""
    maxmemory: int
    """Bytes; 0 means no limit."""
    used_memory: int
    maxmemory_policy: str
    appendonly: str
    appendfsync: str
    save: str
    """When Redis takes snapshots; empty for never."""
    info: Mapping[str, Any] = {}
    """All of ``INFO``."""
    settings: Mapping[str, str] = {}
    """The reply to ``CONFIG GET``; empty if the server refuses it."""

    @property
    def evicts(self) -> bool:
        """Whether it evicts keys, and with them mail, when memory runs out."""
        return self.maxmemory_policy not in ("noeviction", "")

    @property
    def forgets(self) -> bool:
        """Whether a restart loses hot mail, since there is no append-only file."""
        return self.appendonly == "no"

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0] or 0)


class SentinelFacts(Struct, frozen=True):
    """What the sentinels say of the master."""

    answering: int
    """How many of the sentinels in ``online.url`` answer."""
    replicas: int
    problem: str
    """Why they cannot agree on a failover; empty if they can."""


async def gather(client: Client) -> list[RedisFacts]:
    """The facts of each master. Raises ``Unavailable``."""
    infos = dict(await client.on_each("INFO"))
    settings = {server: await _settings(client, server) for server in infos}
    return [_facts(server, info, settings[server]) for server, info in infos.items()]


_WANTED = (
    "maxmemory-policy", "appendonly", "appendfsync", "save", "min-replicas-to-write", "stop-writes-on-bgsave-error",
)  # fmt: skip


async def _settings(client: Client, server: str) -> dict[str, str]:
    try:
        found = dict(await client.on_each("CONFIG GET", *_WANTED))[server]
    except RouterError as error:
        if not isinstance(error.__cause__, ResponseError):
            raise
        return {}  # hosted servers refuse CONFIG; INFO tells some of it
    return {str(key): str(value) for key, value in found.items()}


def _facts(server: str, info: dict[str, Any], settings: dict[str, str]) -> RedisFacts:
    return RedisFacts(
        server=server,
        version=str(info.get("redis_version", "0")),
        run_id=str(info.get("run_id", "")),
        cluster="cluster" in (info.get("redis_mode"), info.get("server_mode")),  # the latter is Valkey's
        role=str(info.get("role", "")),
        replicas=int(info.get("connected_slaves", 0)),
        maxmemory=int(info.get("maxmemory", 0)),
        used_memory=int(info.get("used_memory", 0)),
        maxmemory_policy=settings.get("maxmemory-policy", str(info.get("maxmemory_policy", ""))),
        appendonly=settings.get("appendonly", "yes" if info.get("aof_enabled") else "no"),
        appendfsync=settings.get("appendfsync", ""),
        save=settings.get("save", ""),
        info=info,
        settings=settings,
    )


async def sentinels(client: Client, service: str) -> SentinelFacts:
    """What the sentinels know; it counts only those that answer."""
    quorums = await client.on_sentinels("SENTINEL CKQUORUM", service)
    masters = await client.on_sentinels("SENTINEL MASTER", service)
    problems = [str(answer) for answer in quorums if isinstance(answer, ResponseError)]
    known = [answer for answer in masters if isinstance(answer, dict)]
    replicas = max((int(master.get("num-slaves", 0)) for master in known), default=0)
    return SentinelFacts(len(known), replicas, problems[0] if problems else "")
