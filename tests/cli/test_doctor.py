"""``router doctor`` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from router.cli.exits import Code
from tests.cli.conftest import Router
from tests.support.identity import Identity, identity_service
from tests.support.redis_servers import DOCUMENTATION
from tests.support.servers import Server, free_port, redis_server, running

PRODUCTION = Path(__file__).parents[2] / "docs" / "production.md"


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Identity]:
    with identity_service(tmp_path / "identity") as identity:
        yield identity


def test_a_fresh_router_is_well(router: Router) -> None:
    router("setup")
    done = router("doctor")
    assert done.returncode == Code.OK, done.stdout
    assert "FINE     online.step: routes, serves and acknowledges" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].endswith("fine")
    assert done.stderr == ""


def test_doctor_creates_no_data_directory(router: Router, data_dir: Path) -> None:
    assert router("doctor").returncode == Code.OK
    assert not data_dir.exists()


def test_a_warning_has_its_code_and_says_how_to_fix_it(router: Router, data_dir: Path) -> None:
    router("setup")
    data_dir.chmod(0o755)
    done = router("doctor", "--json")
    assert done.returncode == Code.WARNINGS
    report = json.loads(done.stdout)
    assert set(report) == {"worst", "findings"}
    assert report["worst"] == "warning"
    (finding,) = [finding for finding in report["findings"] if finding["severity"] == "warning"]
    assert set(finding) == {"check", "severity", "found", "why", "mend"}
    assert finding["check"] == "embedded.data_dir"
    assert f"fix: chmod go= {data_dir}" in router("doctor").stdout


def test_what_is_down_is_an_error_and_not_a_crash(router: Router) -> None:
    router("setup")
    url = f"http://127.0.0.1:{free_port()}/jwks"
    done = router("doctor", ROUTER_AUTH__JWKS_URL=url)
    assert done.returncode == Code.ERRORS
    assert "ERROR    auth.keys: no key of the identity service is known yet" in done.stdout
    assert "FINE     online.step" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_identity_service_is_asked_for_keys_and_time(router: Router, identity: Identity) -> None:
    router("setup")
    trusted = {"ROUTER_AUTH__IDENTITY_SERVICE_URL": identity.url}
    strict = {"ROUTER_AUTH__ISSUER": identity.url, "ROUTER_AUTH__AUDIENCE": "router"}
    done = router("doctor", **trusted, **strict)
    assert done.returncode == Code.OK, done.stdout
    assert "FINE     clock.identity_service: this clock agrees with that of 127.0.0.1" in done.stdout
    assert router("doctor", **trusted).returncode == Code.WARNINGS


def test_a_wrong_configuration_is_told_as_everywhere(router: Router) -> None:
    done = router("doctor", ROUTER_SERVER__HOTS="x")
    assert done.returncode == Code.CONFIG
    assert "did you mean" in done.stderr


def test_the_services_run_on_meanwhile(router: Router, inside: Callable[..., None]) -> None:
    """It looks beside whoever uses the same file."""

    async def beside(factory: object) -> None:
        done = router("doctor", "--json")
        assert done.returncode == Code.OK, done.stdout

    inside(beside)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a Redis with options, and ends it."""
    with ExitStack() as stack:

        def run(*options: str) -> Server:
            return stack.enter_context(running(redis_server(tmp_path / "redis", *options)))

        yield run


def with_redis(server: Server) -> dict[str, str]:
    return {"ROUTER_ONLINE__KIND": "redis", "ROUTER_ONLINE__URL": f"redis://{server.address}/0"}


def findings(router: Router, *options: str, **environ: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = router("doctor", "--json", *options, **environ)
    assert done.stderr == ""
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_a_redis_that_is_set_badly(router: Router, start: Callable[..., Server]) -> None:
    router("setup")
    server = start("--maxmemory-policy", "allkeys-lru", "--maxmemory", "100mb", "--appendonly", "no")
    code, found = findings(router, **with_redis(server))
    assert code == Code.ERRORS
    wrong = {check for check, finding in found.items() if finding["severity"] == "error"}
    assert wrong == {"redis.eviction", "redis.persistence"}
    assert "allkeys-lru" in found["redis.eviction"]["found"]
    assert "CONFIG SET maxmemory-policy noeviction" in found["redis.eviction"]["mend"]
    assert found["online.step"]["severity"] == "fine", "it works, for now"


def test_a_redis_that_is_set_well(router: Router, start: Callable[..., Server]) -> None:
    router("setup")
    server = start("--maxmemory-policy", "noeviction", "--maxmemory", "100mb", "--appendfsync", "always")
    code, found = findings(router, **with_redis(server))
    assert code == Code.OK, found
    for check in ("redis.eviction", "redis.memory", "redis.persistence", "redis.sync", "online.step", "online.pokes"):
        assert found[check]["severity"] == "fine"
    assert found["clock.redis"]["found"] == "this clock agrees with that of the Redis"


def test_a_redis_that_is_down_or_does_not_answer(router: Router, start: Callable[..., Server]) -> None:
    router("setup")
    server = start()
    server.freeze()
    code, found = findings(router, "--timeout", "2", **with_redis(server))
    assert code == Code.ERRORS
    assert found["redis.answers"]["severity"] == found["online"]["severity"] == "error"
    assert found["cold.document"]["severity"] == "fine"
    server.thaw()
    server.stop()
    code, found = findings(router, **with_redis(server))
    assert code == Code.ERRORS
    assert "cannot be reached" in found["redis.answers"]["found"]
    assert found["redis.answers"]["mend"].startswith("online.kind is redis: start the Redis")


def test_a_redis_with_another_password(router: Router, start: Callable[..., Server]) -> None:
    router("setup")
    server = start("--requirepass", "right")
    url = f"redis://:wrong@{server.address}/0"
    done = router("doctor", ROUTER_ONLINE__KIND="redis", ROUTER_ONLINE__URL=url)
    assert done.returncode == Code.ERRORS
    assert "refuses the user or the password of online.url" in done.stdout
    assert ":wrong" not in done.stdout + done.stderr


def test_the_documented_rights_in_redis_are_enough(router: Router, start: Callable[..., Server]) -> None:
    router("setup")
    line = next(line for line in PRODUCTION.read_text().splitlines() if "ACL SETUSER" in line)
    assert line.strip() in DOCUMENTATION.read_text().splitlines(), "there is one such line, in two places"
    server = start("--maxmemory", "100mb", "--appendfsync", "always", "--requirepass", "admin")
    admin: Any = Redis(port=server.port, password="admin")
    admin.execute_command(*line.replace("PASSWORD", "secret").split())
    admin.close()
    url = f"redis://router:secret@{server.address}/0"
    router("setup")
    code, found = findings(router, ROUTER_ONLINE__KIND="redis", ROUTER_ONLINE__URL=url)
    assert code == Code.OK, found
    assert found["online.pokes"]["severity"] == found["redis.sync"]["severity"] == "fine"
    assert router("inspect-queue", ROUTER_ONLINE__KIND="redis", ROUTER_ONLINE__URL=url).returncode == Code.OK


def test_a_warning_of_a_backend_does_not_spoil_the_output(router: Router, start: Callable[..., Server]) -> None:
    """What a backend says to the log when it is opened goes to stderr, whichever command opens it."""
    server = start("--appendonly", "no")
    router("setup")
    done = router("inspect-queue", "--json", **with_redis(server))
    assert done.returncode == Code.OK
    assert json.loads(done.stdout)["online_users"] == 0
    assert "forgets hot mail" in done.stderr
