"""Opening: addresses, passwords, what fits and what is warned of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from router.backends.redis import facts
from router.backends.redis.address import parse
from router.backends.redis.backend import RedisBackend
from router.config.redis_url import Mode
from router.errors import ConfigError, Forbidden, Unavailable
from tests.contract.stage import staged
from tests.support import certificates
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.redis_servers import Cluster, client, documented_user, sentinel
from tests.support.servers import Server, free_port, redis_server, running
from tests.support.stores_redis import PREFIX, RedisStores
from tests.support.tls import terminator

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_redis_releases")]
PASSWORD = "open:sesame@1,2"


@pytest.fixture
def locked_redis(tmp_path: Path) -> Iterator[Server]:
    with running(redis_server(tmp_path / "locked", "--requirepass", PASSWORD)) as server:
        yield server


async def open_(tmp_path: Path, url: str, mode: Mode = "single") -> RedisBackend:
    async with staged(RedisStores(tmp_path / "data", url, mode=mode, timeout_seconds=1), ManualClock()) as stage:
        return await opened(stage.factory, RedisBackend)


@pytest.mark.parametrize(
    ("url", "mode", "hosts"),
    [
        ("redis://one", "single", [("one", 6379)]),
        ("rediss://user:secret@one:7000/3", "single", [("one", 7000)]),
        ("redis://one,two:27000,[::1]:5", "sentinel", [("one", 26379), ("two", 27000), ("::1", 5)]),
        ("redis://:secret@one:1,two:2", "cluster", [("one", 1), ("two", 2)]),
    ],
)
async def test_addresses(url: str, mode: Mode, hosts: list[tuple[str, int]]) -> None:
    found = parse(url, mode)
    assert found.hosts == hosts
    assert found.options["ssl"] == url.startswith("rediss")
    assert found.options.get("password") == ("secret" if "secret" in url else None)
    assert found.options.get("username") == ("user" if "user" in url else None)
    assert found.options.get("db") == (3 if url.endswith("/3") else None)


@pytest.mark.parametrize(
    ("url", "mode", "words"),
    [
        ("redis://one,two", "single", "several hosts"),
        ("redis://one:port", "single", "invalid host"),
        ("redis://:secret@,", "cluster", "has no host, or a stray comma"),
        ("redis://one/2", "cluster", "only one"),
        ("redis://one?socket_timeout=3", "single", "set online.timeout_seconds"),
    ],
)
async def test_addresses_that_cannot_be(url: str, mode: Mode, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        parse(url, mode)
    assert "secret" not in str(refused.value)


async def test_passwords_go_by_url(tmp_path: Path, locked_redis: Server, clock: ManualClock) -> None:
    url = f"redis://:open%3Asesame%401%2C2@{locked_redis.address}"
    async with staged(RedisStores(tmp_path, url), clock) as stage:
        await stage.connect()
        await stage.go("m1")
        assert await stage.ids() == ["m1"]


async def test_sentinels_have_a_password_of_their_own(tmp_path: Path, redis: Server, clock: ManualClock) -> None:
    watcher = sentinel(tmp_path / "sentinel", redis, more="requirepass hush")
    with running(watcher):
        url = f"redis://127.0.0.1:1,{watcher.address}?sentinel_password=hush"
        async with staged(RedisStores(tmp_path, url, mode="sentinel"), clock) as stage:
            await stage.connect()
            await stage.go("m1")
            assert await stage.ids() == ["m1"]


@pytest.mark.parametrize("user", ["", ":wrong@"])
async def test_a_wrong_password_is_said_at_start(tmp_path: Path, locked_redis: Server, user: str) -> None:
    with pytest.raises(ConfigError, match="password"):
        await open_(tmp_path, f"redis://{user}{locked_redis.address}")


async def test_a_right_that_is_missing_sends_mail_to_cold_and_not_to_the_dead_letters(
    tmp_path: Path, own_redis: Server, clock: ManualClock
) -> None:
    """Though it is a script that may not, which the server tells in other words."""
    url = documented_user(f"redis://{own_redis.address}", [own_redis], PREFIX)
    async with staged(RedisStores(tmp_path, url), clock) as stage:
        await stage.connect()
        client(own_redis).execute_command("ACL SETUSER", "router", "-publish")
        with pytest.raises(Forbidden, match=r"lacks a right .* docs/redis.md"):
            await stage.go("m1")


async def test_a_right_that_is_missing_is_said_at_start(tmp_path: Path, own_redis: Server) -> None:
    url = documented_user(f"redis://{own_redis.address}", [own_redis])
    client(own_redis).execute_command("ACL SETUSER", "router", "-info")
    with pytest.raises(ConfigError, match="lacks a right"):
        await open_(tmp_path, url)


@pytest.mark.parametrize("mode", ["single", "sentinel", "cluster"])
@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
async def test_a_file_of_tls_that_cannot_be_used_is_said_at_start(tmp_path: Path, mode: Mode, option: str) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for path in (broken, tmp_path / "none.pem"):
        with pytest.raises(ConfigError, match=f"the file of {option}"):
            await open_(tmp_path, f"rediss://127.0.0.1:{free_port()}?{option}={path}", mode)


async def test_sentinels_that_know_no_master_are_told_in_one_line(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logged:
        await open_(tmp_path, f"redis://127.0.0.1:{free_port()}", "sentinel")
    assert logged[0]["error"].startswith("no sentinel names a master that is up")
    assert "redis.asyncio" not in logged[0]["error"]


async def test_a_mode_that_does_not_fit_is_said_at_start(tmp_path: Path, redis: Server, redis_cluster: Cluster) -> None:
    with pytest.raises(ConfigError, match='set it to "cluster"'):
        await open_(tmp_path, f"redis://{redis_cluster.nodes[0].address}")
    with pytest.raises(ConfigError, match='set it to "single"'):
        await open_(tmp_path, f"redis://{redis.address}", "cluster")


@pytest.mark.parametrize("mode", ["single", "sentinel", "cluster"])
async def test_a_server_that_is_down_is_no_reason_not_to_start(tmp_path: Path, mode: Mode) -> None:
    """RACES 10: mail goes cold until it is there."""
    with structlog.testing.capture_logs() as logged:
        await open_(tmp_path, f"redis://127.0.0.1:{free_port()}", mode)
    assert "all mail goes to cold" in logged[0]["event"]


async def test_a_server_that_may_lose_mail_is_warned_of(tmp_path: Path, own_redis: Server) -> None:
    def settings(**values: str) -> None:
        for name, value in values.items():
            client(own_redis).config_set(name.replace("_", "-"), value)

    async def warnings() -> list[str]:
        with structlog.testing.capture_logs() as logged:
            await open_(tmp_path, f"redis://{own_redis.address}")
        return [entry["event"] for entry in logged if entry["log_level"] == "warning"]

    assert await warnings() == []
    settings(maxmemory_policy="volatile-lru")
    (evicts,) = await warnings()
    assert "set maxmemory-policy to noeviction" in evicts
    settings(maxmemory_policy="noeviction", appendonly="no")
    (forgets,) = await warnings()
    assert "forgets hot mail when it restarts" in forgets


async def test_gather_reads_the_facts_of_each_redis_server(
    tmp_path: Path, own_redis: Server, redis_cluster: Cluster
) -> None:
    async def gathered(url: str, mode: Any = "single") -> list[facts.RedisFacts]:
        async with staged(RedisStores(tmp_path / mode, url, mode=mode), ManualClock()) as stage:
            return await facts.gather((await opened(stage.factory, RedisBackend)).client)

    (found,) = await gathered(f"redis://{own_redis.address}")
    assert (found.cluster, found.role, found.replicas, found.evicts, found.forgets) == (
        False,
        "master",
        0,
        False,
        False,
    )
    assert (found.appendonly, found.appendfsync, found.save, found.maxmemory) == ("yes", "always", "", 0)
    assert found.major >= 7
    cluster = await gathered(redis_cluster.url, "cluster")
    assert {each.server for each in cluster} == {node.address for node in redis_cluster.nodes}
    assert len({each.run_id for each in cluster}) == 3
    assert all(each.cluster and each.appendfsync == "always" for each in cluster)


async def test_facts_of_a_server_that_refuses_to_show_its_settings(tmp_path: Path, own_redis: Server) -> None:
    client(own_redis).execute_command("ACL SETUSER", "hosted", "on", ">p", "~*", "&*", "+@all", "-config")
    async with staged(RedisStores(tmp_path, f"redis://hosted:p@{own_redis.address}"), ManualClock()) as stage:
        (found,) = await facts.gather((await opened(stage.factory, RedisBackend)).client)
        assert (found.maxmemory_policy, found.appendonly, found.appendfsync) == ("noeviction", "yes", "")


async def test_tls(tmp_path: Path, redis: Server, clock: ManualClock) -> None:
    """By ``rediss://``, for calls and for pokes; a certificate of somebody else is refused."""
    authority, certificate, key = certificates.make(tmp_path)
    async with terminator(redis.port, certificate, key) as port:
        url = f"rediss://127.0.0.1:{port}"
        async with staged(RedisStores(tmp_path / "data", f"{url}?ssl_ca_certs={authority}"), clock) as stage:
            await stage.connect()
            await stage.go("m1")
            assert await stage.ids() == ["m1"]
            async with (await opened(stage.factory, RedisBackend)).client.listener() as listener:
                assert await listener.ping()
        async with staged(RedisStores(tmp_path / "data", url, timeout_seconds=1), clock) as stage:
            with pytest.raises(Unavailable, match="certificate"):
                await stage.connect()
