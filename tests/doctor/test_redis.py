"""What a Redis must be: decided over what servers say of themselves, and asked of real ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from router.backends.redis import checks as redis
from router.backends.redis.facts import RedisFacts, SentinelFacts, gather
from router.backends.redis.facts import _facts as facts_of
from router.config import Config, Online
from router.doctor.checks import checks
from router.doctor.runner import examine
from router.errors import Unavailable
from router.findings import Finding, Severity, fine
from tests.support.redis_servers import Cluster, Watched, client, documented_user
from tests.support.servers import Server, redis_server, running

INFO = {
    "redis_version": "7.0.15",
    "redis_mode": "standalone",
    "maxmemory": 1024**3,
    "used_memory": 1024**2,
    "evicted_keys": 0,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "role": "master",
    "connected_slaves": 1,
    "slave0": {"ip": "10.0.0.2", "port": 6379, "state": "online"},
    "connected_clients": 10,
    "maxclients": 10_000,
    "maxmemory_policy": "noeviction",
}
SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "min-replicas-to-write": "1",
    "stop-writes-on-bgsave-error": "yes",
}
NEAR = 0.0004


def facts(info: Mapping[str, object], settings: Mapping[str, str]) -> RedisFacts:
    return facts_of("redis:6379", {**INFO, **info}, {**SETTINGS, **settings})


GOOD = facts({}, {})


def judged(facts: RedisFacts, round_trip: float = NEAR, **online: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in redis.judge(facts, Online.model_validate(online), round_trip)}


def test_doctor_finds_nothing_wrong_with_a_well_configured_redis() -> None:
    assert {finding.severity for finding in judged(GOOD).values()} == {Severity.FINE}


@pytest.mark.parametrize(
    ("check", "severity", "info", "settings"),
    [
        ("redis.version", Severity.ERROR, {"redis_version": "6.2.14"}, {}),
        ("redis.version", Severity.FINE, {"redis_version": "8.2.1"}, {}),
        ("redis.eviction", Severity.ERROR, {}, {"maxmemory-policy": "allkeys-lru"}),
        ("redis.eviction", Severity.ERROR, {}, {"maxmemory-policy": "volatile-ttl"}),
        ("redis.eviction", Severity.WARNING, {"evicted_keys": 3}, {}),
        ("redis.memory", Severity.NOTE, {"maxmemory": 0}, {}),
        ("redis.memory", Severity.WARNING, {"maxmemory": 1024, "used_memory": 800}, {}),
        ("redis.memory", Severity.ERROR, {"maxmemory": 1024, "used_memory": 1000}, {}),
        ("redis.persistence", Severity.ERROR, {}, {"appendonly": "no"}),
        ("redis.persistence", Severity.ERROR, {"aof_last_write_status": "err"}, {}),
        ("redis.snapshot", Severity.ERROR, {"rdb_last_bgsave_status": "err"}, {}),
        ("redis.sync", Severity.NOTE, {}, {"appendfsync": "everysec"}),
        ("redis.sync", Severity.WARNING, {}, {"appendfsync": "no"}),
        ("redis.replication", Severity.ERROR, {"role": "slave"}, {}),
        ("redis.replication", Severity.NOTE, {"connected_slaves": 0}, {}),
        ("redis.replication", Severity.WARNING, {"slave0": {"state": "wait_bgsave"}}, {}),
        ("redis.replication", Severity.WARNING, {}, {"min-replicas-to-write": "0"}),
        ("redis.mode", Severity.ERROR, {"redis_mode": "cluster"}, {}),
        ("redis.clients", Severity.WARNING, {"connected_clients": 9_000}, {}),
    ],
)
def test_what_is_wrong_with_one(
    check: str, severity: Severity, info: Mapping[str, object], settings: Mapping[str, str]
) -> None:
    found = judged(facts(info, settings))
    assert found[check].severity is severity
    assert (severity is Severity.FINE) or (found[check].why and found[check].fix)
    others = {finding.severity for name, finding in found.items() if name != check}
    assert others <= {Severity.FINE}, "one thing is wrong, and one is said to be"


def test_write_through_makes_up_for_a_redis_that_forgets() -> None:
    found = judged(facts({}, {"appendonly": "no"}), durability="write-through")
    assert found["redis.persistence"].severity is Severity.WARNING
    found = judged(facts({}, {"appendfsync": "no"}), durability="write-through")
    assert found["redis.sync"].severity is Severity.FINE


@pytest.mark.parametrize("mode", ["cluster", "standalone"])
def test_valkey_has_another_word_for_its_mode(mode: str) -> None:
    """As Valkey 8 and 9 say it, unless ``extended-redis-compatibility`` is on."""
    info = {key: value for key, value in INFO.items() if key != "redis_mode"}
    said = {"server_name": "valkey", "valkey_version": "8.1.4", "redis_version": "7.2.4", "server_mode": mode}
    found = judged(facts_of("valkey:6379", {**info, **said}, SETTINGS), mode=mode.replace("standalone", "single"))
    assert {finding.severity for finding in found.values()} == {Severity.FINE}


def test_doctor_notes_what_a_managed_redis_does_not_tell() -> None:
    found = judged(facts_of("", INFO, {}))
    assert {name: f.severity for name, f in found.items() if f.severity is not Severity.FINE} == {
        "redis.sync": Severity.NOTE
    }


def test_a_cluster() -> None:
    assert judged(facts({"redis_mode": "cluster"}, {}), mode="cluster")["redis.mode"].severity is Severity.FINE
    assert judged(GOOD, mode="cluster")["redis.mode"].severity is Severity.ERROR
    whole = {"cluster_state": "ok", "cluster_slots_ok": "16384", "cluster_size": "3"}
    assert redis.judge_cluster(whole).severity is Severity.FINE
    assert redis.judge_cluster({**whole, "cluster_slots_ok": "10922"}).severity is Severity.ERROR
    assert redis.judge_cluster({**whole, "cluster_state": "fail"}).severity is Severity.ERROR


def test_sentinels() -> None:
    assert redis.judge_sentinel(SentinelFacts(3, 1, "")).severity is Severity.FINE
    assert redis.judge_sentinel(SentinelFacts(1, 1, "")).severity is Severity.WARNING
    assert redis.judge_sentinel(SentinelFacts(3, 0, "")).severity is Severity.WARNING
    assert redis.judge_sentinel(SentinelFacts(3, 1, "NOQUORUM")).severity is Severity.ERROR


def test_doctor_warns_of_a_slow_redis() -> None:
    assert judged(GOOD, 0.08)["redis.latency"].severity is Severity.WARNING


@pytest.mark.anyio
@pytest.mark.parametrize(
    "missing",
    [
        "-info",
        "-time",
        "-zadd",
        "-publish",
        "-eval -evalsha",
        "-subscribe",
        "resetkeys ~other:*",
        "resetchannels",
        "-ping",
    ],
)
@pytest.mark.usefixtures("both_redis_releases")
async def test_a_missing_right_is_called_so_and_not_a_wrong_password(redis: Server, missing: str) -> None:
    url = documented_user(f"redis://{redis.address}", [redis])
    client(redis).execute_command("ACL SETUSER", "router", *missing.split())
    config = Config(online=Online.model_validate({"kind": "redis", "url": url}))
    looked = [check for check in checks(config) if check.name in ("redis.answers", "online")]
    wrong = [finding for finding in await examine(looked, 15) if finding.severity is Severity.ERROR]
    assert wrong
    assert all("docs/redis.md" in finding.found + finding.fix for finding in wrong), wrong
    assert not any("password" in repr(finding) for finding in wrong)


@pytest.mark.anyio
async def test_a_missing_right_in_a_cluster(redis_cluster: Cluster) -> None:
    url = documented_user(redis_cluster.url, redis_cluster.nodes)
    for node in redis_cluster.nodes:
        client(node).execute_command("ACL SETUSER", "router", "-cluster")
    found = await examined(Config(online=Online.model_validate({"kind": "redis", "mode": "cluster", "url": url})))
    assert "docs/redis.md" in found["redis.answers"].found
    assert "password" not in repr(found)


async def examined(config: Config) -> dict[str, Finding]:
    (check,) = [check for check in checks(config) if check.name == "redis.answers"]
    return {finding.check: finding for finding in await examine([check], 20)}


def reached(url: str, mode: str) -> Config:
    return Config(online=Online.model_validate({"kind": "redis", "url": url, "mode": mode}))


@pytest.mark.anyio
async def test_a_real_cluster(redis_cluster: Cluster) -> None:
    found = await examined(reached(redis_cluster.url, "cluster"))
    assert found["redis.cluster"] == fine("redis.cluster", "3 masters, 16384 slots served")
    assert {f.severity for f in found.values()} <= {Severity.FINE, Severity.NOTE}


@pytest.mark.anyio
async def test_a_cluster_that_is_taken_for_one_server(redis_cluster: Cluster) -> None:
    url = redis_cluster.url.partition(",")[0]
    found = await examined(reached(url, "single"))
    assert 'online.mode is "single"' in found["redis.answers"].found
    assert found["redis.answers"].severity is Severity.ERROR


@pytest.mark.anyio
async def test_real_sentinels(redis_sentinel: Watched) -> None:
    found = await examined(reached(redis_sentinel.url, "sentinel"))
    assert found["redis.sentinel"] == fine("redis.sentinel", "3 sentinels, 1 replicas")
    assert found["redis.replication"].severity is Severity.WARNING, "min-replicas-to-write is 0"
    for sentinel in redis_sentinel.sentinels[1:]:
        sentinel.stop()
    found = await examined(reached(redis_sentinel.url, "sentinel"))
    assert found["redis.sentinel"].severity in (Severity.WARNING, Severity.ERROR)
    assert found["redis.sentinel"].found.startswith("1 sentinels")


@pytest.mark.anyio
@pytest.mark.parametrize(("cause", "known"), [(ResponseError("unknown command"), True), (TimeoutError(), False)])
async def test_a_refusal_is_told_from_silence(cause: Exception, known: bool) -> None:
    """Without CONFIG, INFO says what it can; a server that did not answer has said nothing."""

    class Asked:
        async def on_each(self, command: str, *_: str) -> list[tuple[str, object]]:
            if command == "INFO":
                return [("", INFO)]
            raise Unavailable("no answer") from cause

    client: Any = Asked()
    if known:
        (found,) = await gather(client)
        assert (found.appendonly, found.appendfsync) == ("yes", "")
    else:
        with pytest.raises(Unavailable):
            await gather(client)


@pytest.mark.anyio
async def test_a_master_that_takes_no_writes_is_found_out(tmp_path: Path) -> None:
    """It answers all that only looks: a step that writes is tried."""
    with running(redis_server(tmp_path, "--min-replicas-to-write", "1")) as cut_off:
        config = Config(online=Online.model_validate({"kind": "redis", "url": f"redis://{cut_off.address}"}))
        looked = [check for check in checks(config) if check.name == "online"]
        (finding,) = await examine(looked, 15)
    assert finding.severity is Severity.ERROR
    assert "NOREPLICAS" in finding.found
