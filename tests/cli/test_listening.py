"""Where a service cannot listen, it says what is wrong and how to fix it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from router.cli.exits import Code
from tests.cli.conftest import Router, environment, without_rights
from tests.support.servers import free_port

ELSEWHERE = "203.0.113.5"
"""Of nobody: RFC 5737."""
JWKS = {"ROUTER_AUTH__JWKS_URL": "http://127.0.0.1:9/jwks"}  # with the embedded identity no other host would be tried
FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def told(router: Router, host: str, port: int) -> str:
    place = {"ROUTER_SERVER__HOST": host, "ROUTER_SERVER__API_PORT": str(port)}
    ended = router("serve-api", **JWKS, **place)
    assert ended.returncode == Code.CONFIG
    return ended.stderr.splitlines()[-1]


def test_a_host_that_does_not_resolve(router: Router) -> None:
    for host in ("router.invalid", "1.2.3.4.5", "a" * 64):
        said = told(router, host, free_port())
        assert said.startswith(f"error: server.host is {host!r}, which does not resolve (")
        assert "set it to an address of this machine" in said


def test_a_host_that_is_another_machine(router: Router) -> None:
    said = told(router, ELSEWHERE, free_port())
    assert f"cannot listen on {ELSEWHERE}:" in said
    assert "server.host is not an address of this machine; set it to" in said


def test_a_port_that_is_in_use(router: Router) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        said = told(router, "127.0.0.1", other.getsockname()[1])
    assert "the port is in use; is another router running? set another server.api_port" in said


def test_an_admin_port_that_is_in_use(router: Router) -> None:
    """As by another router with the same settings: the key is named, since nobody may have heard of it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        for service in ("serve", "serve-api", "serve-ws", "process"):
            free = {"ROUTER_SERVER__API_PORT": "0", "ROUTER_SERVER__WS_PORT": "0", "ROUTER_SERVER__ADMIN_PORT": taken}
            ended = router(service, **free)
            assert ended.returncode == Code.CONFIG
            said = ended.stderr.splitlines()[-1]
            assert f"cannot listen on 127.0.0.1:{taken}: the port is in use" in said
            assert said.endswith("set another server.admin_port")


def test_an_admin_host_that_is_another_machine(router: Router) -> None:
    free = {"ROUTER_SERVER__API_PORT": "0", "ROUTER_SERVER__WS_PORT": "0"}
    ended = router("serve", ROUTER_SERVER__ADMIN_HOST=ELSEWHERE, **free)
    assert ended.returncode == Code.CONFIG
    assert "server.admin_host is not an address of this machine; set it to" in ended.stderr


def test_a_port_of_root(data_dir: Path) -> None:
    if int(FIRST_FREE_PORT.read_text()) <= 80:
        pytest.skip("any user may listen on any port here")
    ended = subprocess.run(
        without_rights("net_bind_service", arguments=[sys.executable, "-m", "router", "serve-api"]),
        env=environment(data_dir, ROUTER_SERVER__API_PORT="80"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == Code.CONFIG
    assert "cannot listen on 127.0.0.1:80: this user may not use it; set one above 1023" in ended.stderr
