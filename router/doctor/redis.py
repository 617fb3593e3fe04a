"""What a Redis must be for the online store: pure decisions over what the servers say of themselves.

``router.backends.redis.facts`` asks them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from router.backends.redis.facts import RedisFacts, SentinelFacts
from router.config import Online
from router.doctor.findings import Finding, error, fine, note, warning

OLDEST = 7
FULL, NEARLY_FULL = 0.9, 0.7
CLIENTS = 0.8
SLOW_SECONDS = 0.02
HOT = "It holds the mail of users who are online until they fetch it."


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
        why = "Each message, fetch and acknowledgement waits for one or more of them."
        yield warning("redis.latency", found, why, "run the router in the same region and network as the Redis")


def _version(facts: RedisFacts) -> Finding:
    text = facts.version
    if facts.major >= OLDEST:
        return fine("redis.version", f"{_name(facts)}: {text}")
    why = "The scripts of the online store are written for Redis 7."
    return error("redis.version", f"{_name(facts)}: {text}", why, "install Redis 7.0 or newer")


def _eviction(facts: RedisFacts) -> Finding:
    check, policy = "redis.eviction", facts.maxmemory_policy or "not known"
    if policy == "noeviction":
        evicted = _number(facts.info, "evicted_keys")
        if evicted:
            found = f"{_name(facts)}: {evicted} keys were evicted since it started, under another policy"
            why = "Some of them may have been mail, which is lost."
            return warning(check, found, why, "CONFIG RESETSTAT, once you have looked whose mail is missing")
        return fine(check, f"{_name(facts)}: noeviction")
    why = f"{HOT} To make room, this policy drops mail, presence and sequences, without a word."
    mend = "redis-cli CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE; or in redis.conf"
    return error(check, f"{_name(facts)}: maxmemory-policy is {policy}", why, mend)


def _memory(facts: RedisFacts) -> Finding:
    check, limit, used = "redis.memory", facts.maxmemory, facts.used_memory
    if limit == 0:
        why = "Without a limit it grows until the system kills it; with one, it refuses, and mail goes cold instead."
        return note(check, f"{_name(facts)}: no maxmemory", why, "maxmemory, below what the machine has")
    found = f"{_name(facts)}: {used / 1024**2:.0f} of {limit / 1024**2:.0f} MiB are used"
    why = "At the limit writes are refused: mail goes cold, fetches and new sockets get 503."
    mend = "raise maxmemory; `router inspect-queue` shows whose hot queues are long"
    if used > FULL * limit:
        return error(check, found, why, mend)
    if used > NEARLY_FULL * limit:
        return warning(check, found, why, mend)
    return fine(check, found)


def _persistence(facts: RedisFacts, *, write_through: bool) -> Iterator[Finding]:
    info, where = facts.info, _name(facts)
    if facts.forgets:
        why = f"{HOT} When it restarts, that is gone, and so is the record of what was delivered."
        mend = 'redis-cli CONFIG SET appendonly yes, then CONFIG REWRITE; or online.durability = "write-through"'
        judged = warning if write_through else error
        yield judged("redis.persistence", f"{where}: no append-only file", why, mend)
    elif info.get("aof_last_write_status") == "err":
        why = "It takes no writes until its log can be written."
        yield error("redis.persistence", f"{where}: the append-only file cannot be written", why, "look at its disk")
    else:
        yield fine("redis.persistence", f"{where}: an append-only file")
        yield _sync(facts, write_through=write_through)
    refuses = facts.settings.get("stop-writes-on-bgsave-error", "yes") == "yes"
    if info.get("rdb_last_bgsave_status") == "err" and refuses:
        why = "It takes no writes after a snapshot that failed."
        yield error("redis.snapshot", f"{where}: the last snapshot failed", why, "look at its disk and memory")


def _sync(facts: RedisFacts, *, write_through: bool) -> Finding:
    check, how = "redis.sync", facts.appendfsync
    if not how:
        why = "How much hot mail a power failure takes depends on it: none, a second of it, or half a minute."
        return note(check, f"{_name(facts)}: CONFIG is not allowed, so appendfsync is not known", why)
    found = f"{_name(facts)}: appendfsync {how}"
    if how == "always" or write_through:
        return fine(check, found)
    if how == "everysec":
        why = "A power failure takes the hot mail of the last second or two."
        return note(check, found, why, 'appendfsync always, or online.durability = "write-through", where none may go')
    why = "A power failure takes the hot mail of up to half a minute."
    return warning(check, found, why, "redis-cli CONFIG SET appendfsync everysec, then CONFIG REWRITE")


def _replication(facts: RedisFacts) -> Finding:
    check, info, where = "redis.replication", facts.info, _name(facts)
    if facts.role != "master":
        why = "A replica takes no writes."
        return error(
            check, f"{where}: a replica", why, 'name its master in online.url, or set online.mode = "sentinel"'
        )
    replicas = [info[f"slave{number}"] for number in range(facts.replicas) if f"slave{number}" in info]
    if not replicas:
        why = "While it is down nobody counts as online; with its disk, what is hot is lost."
        return note(check, f"{where}: no replica", why, "a replica and Sentinel, or a Cluster; or a managed one")
    behind = [r for r in replicas if isinstance(r, Mapping) and r.get("state") != "online"]
    if behind:
        why = "A failover to it would lose what it lacks."
        return warning(
            check, f"{where}: {len(behind)} of {len(replicas)} replicas are not online", why, "look at its log"
        )
    if facts.settings.get("min-replicas-to-write") == "0":
        why = "A master that is cut off goes on taking mail, which is thrown away when it comes back as a replica."
        mend = "redis-cli CONFIG SET min-replicas-to-write 1, then CONFIG REWRITE"
        return warning(check, f"{where}: {len(replicas)} replicas, and min-replicas-to-write is 0", why, mend)
    return fine(check, f"{where}: {len(replicas)} replicas")


def _mode(facts: RedisFacts, mode: str) -> Finding:
    check, cluster = "redis.mode", facts.cluster
    if cluster and mode != "cluster":
        why = "Each user's keys are on one of its nodes, and only one is asked."
        return error(check, f"{_name(facts)}: a Cluster", why, 'online.mode = "cluster"')
    if mode == "cluster" and not cluster:
        return error(check, f"{_name(facts)}: no Cluster", "It knows no slots.", 'online.mode = "single"')
    return fine(check, f"{_name(facts)}: {mode}")


def _clients(facts: RedisFacts) -> Iterator[Finding]:
    now, most = _number(facts.info, "connected_clients"), _number(facts.info, "maxclients")
    if most and now > CLIENTS * most:
        found = f"{_name(facts)}: {now} of {most} clients are connected"
        yield warning("redis.clients", found, "Beyond it new processes find no Redis.", "raise maxclients")


def judge_sentinel(facts: SentinelFacts) -> Finding:
    """Whether a failover would happen, and to whom."""
    check, found = "redis.sentinel", f"{facts.answering} sentinels, {facts.replicas} replicas"
    if facts.problem:
        why = "When the master dies, nobody takes over."
        return error(check, f"{found}: {facts.problem}", why, "start the sentinels that are missing")
    if facts.answering < 3 or not facts.replicas:
        why = "When one machine dies, nobody takes over, or nobody can decide to."
        return warning(check, found, why, "three sentinels on three machines, and a replica")
    return fine(check, found)


def judge_cluster(state: Mapping[str, str]) -> Finding:
    """``CLUSTER INFO``: whether every user has a node."""
    check, found = "redis.cluster", f"{state.get('cluster_size')} masters, {state.get('cluster_slots_ok')} slots served"
    if state.get("cluster_state") == "ok" and state.get("cluster_slots_ok") == "16384":
        return fine(check, found)
    why = "Users whose slot nobody serves are not routed hot, and cannot fetch."
    return error(check, f"{found}, state {state.get('cluster_state')}", why, "redis-cli --cluster fix HOST:PORT")


def _name(facts: RedisFacts) -> str:
    return facts.server or "the Redis"


def _number(info: Mapping[str, object], name: str) -> int:
    value = info.get(name, 0)
    return int(value) if isinstance(value, int | float | str) else 0
