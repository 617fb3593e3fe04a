"""What a Redis must be for the online store: decisions over what the servers say of themselves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping

from router.backends.redis.client import Client
from router.backends.redis.facts import RedisFacts, SentinelFacts, gather, sentinels
from router.clock import MICROSECONDS, Clock, apart
from router.config import Config, Online, redis_url
from router.config.combinations import is_loopback
from router.findings import Finding, error, fine, judge_clock, note, warning

OLDEST = 7
FULL, NEARLY_FULL = 0.9, 0.7
CLIENTS = 0.8
SLOW_SECONDS = 0.02
PINGS = 3
HOT = "It holds the mail of users who are online until they fetch it."


def reached(online: Online) -> Iterator[Finding]:
    """Whether the Redis is reached in private, and with a password. The URL itself is never shown."""
    url = redis_url.parse(online.url.get_secret_value() if online.url else "", online.mode)
    if all(is_loopback(name) for name, _ in url.hosts):
        return
    if not url.tls:
        why = "The password, presence and sealed mail cross the network unencrypted."
        yield warning("config.redis_tls", "the connection to Redis has no TLS", why, "use rediss:// in online.url")
    if not url.password:
        why = "Anybody who reaches its port can see who is online and delete mail."
        fix = "set requirepass or an ACL user in Redis, and rediss://user:password@… in online.url"
        yield (warning if url.tls else error)("config.redis_password", "no password is set", why, fix)


async def look(client: Client, config: Config, clock: Clock) -> AsyncIterator[Finding]:
    """All that is to be said of its servers; raises ``Unavailable``."""
    servers = await gather(client)
    took = await _round_trip(client, len(servers))
    for server in servers:
        for finding in judge(server, config.online, took):
            yield finding
    before = clock.now()
    times = await client.on_each("TIME")
    after = clock.now()
    for name, (seconds, microseconds) in times:
        ahead = apart(before, after, int(seconds) * MICROSECONDS + int(microseconds))
        yield judge_clock("clock.redis", name or "the Redis", ahead, config.tolerated_skew_seconds)
    if config.online.mode == "cluster":
        (_, state), *_ = await client.on_each("CLUSTER INFO")
        yield judge_cluster(state)
    if config.online.mode == "sentinel":
        yield judge_sentinel(await sentinels(client, config.online.sentinel_service))


async def _round_trip(client: Client, servers: int) -> float:
    """The shortest of a few pings, in seconds."""
    spent = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await client.on_each("PING")
        spent.append(time.perf_counter() - began)
    return min(spent) / max(1, servers)


def judge(facts: RedisFacts, online: Online, round_trip: float) -> Iterator[Finding]:
    """All that is to be said of one server; ``round_trip`` is the shortest of a few pings, in seconds."""
    yield _version(facts)
    yield _eviction(facts)
    yield _memory(facts)
    yield from _persistence(facts, write_through=online.durability == "write-through")
    yield _replication(facts)
    yield _mode(facts, online.mode)
    yield from _clients(facts)
    if round_trip > SLOW_SECONDS:
        found = f"{_name(facts)}: a round trip takes {round_trip * 1000:.0f} ms"
        why = "Each message, fetch and acknowledgement needs one or more round trips."
        yield warning("redis.latency", found, why, "run the router in the same region and network as the Redis")


def _version(facts: RedisFacts) -> Finding:
    text = facts.version
    if facts.major >= OLDEST:
        return fine("redis.version", f"{_name(facts)}: {text}")
    why = "The scripts of the online store are written for Redis 7."
    return error("redis.version", f"{_name(facts)}: {text}", why, "install Redis 7.0 or newer")


def _eviction(facts: RedisFacts) -> Finding:
    check, policy = "redis.eviction", facts.maxmemory_policy or "unknown"
    if policy == "noeviction":
        evicted = _number(facts.info, "evicted_keys")
        if evicted:
            found = f"{_name(facts)}: {evicted} keys were evicted since it started, under another policy"
            why = "Some of them may have been mail, which is lost."
            return warning(check, found, why, "find out whose mail is missing, then CONFIG RESETSTAT")
        return fine(check, f"{_name(facts)}: noeviction")
    why = f"{HOT} To make room, this policy silently drops mail, presence and sequences."
    fix = "redis-cli CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE; or in redis.conf"
    return error(check, f"{_name(facts)}: maxmemory-policy is {policy}", why, fix)


def _memory(facts: RedisFacts) -> Finding:
    check, limit, used = "redis.memory", facts.maxmemory, facts.used_memory
    if limit == 0:
        why = "Without a limit, it grows until the system kills it. With one, it refuses writes, and mail goes to cold."
        return note(check, f"{_name(facts)}: no maxmemory", why, "set maxmemory to less than the memory of the machine")
    found = f"{_name(facts)}: {used / 1024**2:.0f} of {limit / 1024**2:.0f} MiB are used"
    why = "At the limit it refuses writes: mail goes to cold, and fetches and new WebSockets get 503."
    fix = "raise maxmemory; `router inspect-queue` shows whose hot queues are long"
    if used > FULL * limit:
        return error(check, found, why, fix)
    if used > NEARLY_FULL * limit:
        return warning(check, found, why, fix)
    return fine(check, found)


def _persistence(facts: RedisFacts, *, write_through: bool) -> Iterator[Finding]:
    info, where = facts.info, _name(facts)
    if facts.forgets:
        why = f"{HOT} A restart loses this mail and the record of what was delivered."
        fix = 'redis-cli CONFIG SET appendonly yes, then CONFIG REWRITE; or online.durability = "write-through"'
        judged = warning if write_through else error
        yield judged("redis.persistence", f"{where}: no append-only file", why, fix)
    elif info.get("aof_last_write_status") == "err":
        why = "It refuses writes until it can write this file."
        yield error("redis.persistence", f"{where}: the append-only file cannot be written", why, "check its disk")
    else:
        yield fine("redis.persistence", f"{where}: an append-only file")
        yield _sync(facts, write_through=write_through)
    refuses = facts.settings.get("stop-writes-on-bgsave-error", "yes") == "yes"
    if info.get("rdb_last_bgsave_status") == "err" and refuses:
        why = "It refuses writes after a failed snapshot."
        yield error("redis.snapshot", f"{where}: the last snapshot failed", why, "check its disk and memory")


def _sync(facts: RedisFacts, *, write_through: bool) -> Finding:
    check, how = "redis.sync", facts.appendfsync
    if not how:
        why = "It decides how much hot mail a power failure loses: none, a second of it, or half a minute of it."
        return note(check, f"{_name(facts)}: CONFIG is not allowed, so appendfsync is unknown", why)
    found = f"{_name(facts)}: appendfsync {how}"
    if how == "always" or write_through:
        return fine(check, found)
    if how == "everysec":
        why = "A power failure loses the hot mail of the last second or two."
        fix = 'if none may be lost, set appendfsync always, or online.durability = "write-through"'
        return note(check, found, why, fix)
    why = "A power failure loses up to half a minute of hot mail."
    return warning(check, found, why, "redis-cli CONFIG SET appendfsync everysec, then CONFIG REWRITE")


def _replication(facts: RedisFacts) -> Finding:
    check, info, where = "redis.replication", facts.info, _name(facts)
    if facts.role != "master":
        why = "A replica refuses writes."
        return error(
            check, f"{where}: a replica", why, 'name its master in online.url, or set online.mode = "sentinel"'
        )
    replicas = [info[f"slave{number}"] for number in range(facts.replicas) if f"slave{number}" in info]
    if not replicas:
        why = "While it is down, nobody counts as online. If its disk fails, the hot mail is lost."
        fix = "add a replica with Sentinel, run a Cluster, or use a managed Redis"
        return note(check, f"{where}: no replica", why, fix)
    behind = [r for r in replicas if isinstance(r, Mapping) and r.get("state") != "online"]
    if behind:
        why = "A failover to such a replica loses the mail that it does not have yet."
        return warning(
            check, f"{where}: {len(behind)} of {len(replicas)} replicas are not online", why, "check their logs"
        )
    if facts.settings.get("min-replicas-to-write") == "0":
        why = "A master that is cut off keeps accepting mail, which is lost when it comes back as a replica."
        fix = "redis-cli CONFIG SET min-replicas-to-write 1, then CONFIG REWRITE"
        return warning(check, f"{where}: {len(replicas)} replicas, and min-replicas-to-write is 0", why, fix)
    return fine(check, f"{where}: {len(replicas)} replicas")


def _mode(facts: RedisFacts, mode: str) -> Finding:
    check, cluster = "redis.mode", facts.cluster
    if cluster and mode != "cluster":
        why = "A Cluster spreads the users over its nodes, but in this mode the router uses one node only."
        return error(check, f"{_name(facts)}: a Cluster", why, 'set online.mode = "cluster"')
    if mode == "cluster" and not cluster:
        why = "The router cannot use it as a Cluster."
        return error(check, f"{_name(facts)}: not a Cluster", why, 'set online.mode = "single"')
    return fine(check, f"{_name(facts)}: {mode}")


def _clients(facts: RedisFacts) -> Iterator[Finding]:
    now, most = _number(facts.info, "connected_clients"), _number(facts.info, "maxclients")
    if most and now > CLIENTS * most:
        found = f"{_name(facts)}: {now} of {most} clients are connected"
        yield warning("redis.clients", found, "Beyond this limit, Redis refuses new connections.", "raise maxclients")


def judge_sentinel(facts: SentinelFacts) -> Finding:
    """Whether a failover would happen, and to whom."""
    check, found = "redis.sentinel", f"{facts.answering} sentinels, {facts.replicas} replicas"
    if facts.problem:
        why = "If the master fails, no replica takes over."
        return error(check, f"{found}: {facts.problem}", why, "start the missing sentinels")
    if facts.answering < 3 or not facts.replicas:
        why = "If one machine fails, there may be no replica to take over, or too few sentinels to decide it."
        return warning(check, found, why, "run three sentinels on three machines, and a replica")
    return fine(check, found)


def judge_cluster(state: Mapping[str, str]) -> Finding:
    """``CLUSTER INFO``: whether every user has a node."""
    check, found = "redis.cluster", f"{state.get('cluster_size')} masters, {state.get('cluster_slots_ok')} slots served"
    if state.get("cluster_state") == "ok" and state.get("cluster_slots_ok") == "16384":
        return fine(check, found)
    why = "Users in a slot that no node serves are not routed hot and cannot fetch."
    return error(check, f"{found}, state {state.get('cluster_state')}", why, "redis-cli --cluster fix HOST:PORT")


def _name(facts: RedisFacts) -> str:
    return facts.server or "the Redis"


def _number(info: Mapping[str, object], name: str) -> int:
    value = info.get(name, 0)
    return int(value) if isinstance(value, int | float | str) else 0
