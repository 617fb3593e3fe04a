"""Settings that start, and hurt later."""

from __future__ import annotations

import sys

import pytest

from router.backends.redis.checks import reached
from router.config import Cold, Config, Ingress, Online, Push
from router.doctor import machine, settings
from router.doctor.checks import checks
from router.doctor.runner import examine
from router.findings import Severity


def online(url: str) -> Config:
    mode = "cluster" if "," in url else "single"
    return Config(online=Online.model_validate({"kind": "redis", "url": url, "mode": mode}))


@pytest.mark.parametrize(
    ("url", "worst"),
    [
        ("redis://127.0.0.1:6379/1", []),
        ("rediss://user:secret@redis.example.com", []),
        ("rediss://redis.example.com", ["config.redis_password"]),
        ("redis://:secret@redis.example.com:6379", ["config.redis_tls"]),
        ("redis://redis:6379", ["config.redis_tls", "config.redis_password"]),
        ("redis://[::1]", []),
        ("redis://[::1]:6379,localhost:6380,127.0.0.1", []),
        ("redis://[2001:db8::1]:6379,[::1]:6379", ["config.redis_tls", "config.redis_password"]),
        ("rediss://redis.example.com?password=secret", []),
        ("rediss://redis.example.com?username=router", ["config.redis_password"]),
        ("redis://127.0.0.1:1,redis-2:1", ["config.redis_tls", "config.redis_password"]),
    ],
)
def test_how_the_redis_is_reached(url: str, worst: list[str]) -> None:
    found = list(reached(online(url).online))
    assert [finding.check for finding in found] == worst
    assert "secret" not in repr(found)


def test_the_production_kinds_need_a_secret_of_their_own() -> None:
    config = Config(ingress=Ingress(kind="pubsub"), push=Push(kind="none"), cold=Cold(kind="firestore"))
    found = {finding.check: finding.severity for finding in settings.look(config, ["PUBSUB_EMULATOR_HOST"])}
    assert found == {
        "config.backends": Severity.NOTE,
        "config.idempotency_secret": Severity.WARNING,
        "config.push": Severity.NOTE,
        "config.emulators": Severity.WARNING,
    }
    assert [finding.severity for finding in settings.look(Config(), [])] == [Severity.FINE]


@pytest.mark.anyio
async def test_a_library_that_is_missing_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("router.backends.pubsub")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "grpc", None)
    looked = [check for check in checks(Config(push=Push(kind="pubsub"))) if check.name == "config"]
    (finding,) = await examine(looked, 10)
    assert finding.severity is Severity.ERROR
    assert "pip install '.[google]'" in finding.found


def test_workers() -> None:
    assert machine.workers(3, 2).severity is Severity.WARNING
    assert [machine.workers(count, 2).severity for count in (1, 2)] == [Severity.FINE] * 2
    assert machine.workers("auto").severity is Severity.FINE


def test_open_files() -> None:
    assert machine.open_files(1024).severity is Severity.WARNING
    assert machine.open_files(65_536).severity is Severity.FINE
    assert machine.open_files().check == "machine.open_files"
