"""Commands with the documented URLs of Redis: several hosts, by file and by variable, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.cli.exits import Code
from tests.cli.conftest import Router
from tests.support.redis_servers import USER_PASSWORD, Cluster, Watched, documented_user
from tests.support.servers import free_port

Given = tuple[list[str], dict[str, str]]
"""Options and variables."""


def by_variable(_: Path, mode: str, url: str) -> Given:
    return [], {"ROUTER_ONLINE__KIND": "redis", "ROUTER_ONLINE__MODE": mode, "ROUTER_ONLINE__URL": url}


def by_file(folder: Path, mode: str, url: str) -> Given:
    path = folder / "router.toml"
    path.write_text(f'[online]\nkind = "redis"\nmode = "{mode}"\nurl = "{url}"\n')
    return ["--config", str(path)], {}


def run_all(router: Router, options: list[str], environ: dict[str, str]) -> dict[str, str]:
    """Every command that looks at the Redis works; the findings of ``doctor``: check -> severity."""
    router(*options, "setup", **environ)
    checked = router(*options, "config", "check", **environ)
    assert checked.returncode == Code.OK, checked.stderr
    inspected = router(*options, "inspect-queue", "--json", **environ)
    assert inspected.returncode == Code.OK, inspected.stderr
    assert json.loads(inspected.stdout)["online_users"] == 0
    assert router(*options, "migrate", "--stale", "--json", **environ).returncode == Code.OK
    done = router(*options, "doctor", "--json", **environ)
    return {finding["check"]: finding["severity"] for finding in json.loads(done.stdout)["findings"]}


def test_sentinels(router: Router, tmp_path: Path, redis_sentinel: Watched) -> None:
    """One that is down and in IPv6 first: the others are asked."""
    url = redis_sentinel.url.replace("://", f"://[::1]:{free_port()},") + "/1"
    options, environ = by_file(tmp_path, "sentinel", url)
    found = run_all(router, options, environ)
    assert (found["redis.sentinel"], found["redis.mode"], found["online.step"]) == ("fine", "fine", "fine")


def test_a_cluster(router: Router, tmp_path: Path, redis_cluster: Cluster) -> None:
    url = redis_cluster.url.replace("://", f"://[::1]:{free_port()},")
    options, environ = by_variable(tmp_path, "cluster", url)
    found = run_all(router, options, environ)
    assert (found["redis.cluster"], found["redis.mode"], found["online.step"]) == ("fine", "fine", "fine")


def test_the_documented_rights_are_enough_under_sentinels(
    router: Router, tmp_path: Path, redis_sentinel: Watched
) -> None:
    url = documented_user(redis_sentinel.url, [redis_sentinel.master, redis_sentinel.replica])
    documented_user(url, redis_sentinel.sentinels, which=1)
    options, environ = by_variable(
        tmp_path, "sentinel", f"{url}?sentinel_username=router&sentinel_password={USER_PASSWORD}"
    )
    found = run_all(router, options, environ)
    assert "error" not in found.values()
    assert (found["redis.sentinel"], found["online.pokes"]) == ("fine", "fine")


def test_the_documented_rights_are_enough_in_a_cluster(router: Router, tmp_path: Path, redis_cluster: Cluster) -> None:
    options, environ = by_variable(tmp_path, "cluster", documented_user(redis_cluster.url, redis_cluster.nodes))
    found = run_all(router, options, environ)
    assert "error" not in found.values()
    assert (found["redis.cluster"], found["online.pokes"]) == ("fine", "fine")


@pytest.mark.parametrize("way", ["--json", "--toml", ""])
def test_the_secrets_of_several_hosts_are_not_shown(router: Router, tmp_path: Path, way: str) -> None:
    url = "redis://user:hunter2@s1:1,[::1]:2,s3?sentinel_password=hunter3"
    options, environ = by_file(tmp_path, "sentinel", url)
    done = router(*options, "config", "show", *([way] if way else []), **environ)
    assert done.returncode == Code.OK
    assert "redis://***@s1:1,[::1]:2,s3?***" in done.stdout
    assert "hunter" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["config check", "doctor", "inspect-queue", "serve"])
@pytest.mark.parametrize("option", ["socket_timeot=3", "decode_responses=true", "protocol=3"])
def test_an_option_that_does_not_exist_is_refused_by_every_command(router: Router, command: str, option: str) -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}?{option}"
    done = router(*command.split(), ROUTER_ONLINE__KIND="redis", ROUTER_ONLINE__URL=url)
    assert done.returncode == Code.CONFIG
    assert f"online.url: has an option {option.partition('=')[0]} that the router does not know" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
