"""Proxy variables as Docker, VPNs and companies set them, with everything on loopback; and one for what is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.cli.exits import Code
from tests.support.service import Router

SHAPES = [
    {"NO_PROXY": "localhost,127.0.0.1,::1,fd07:b51a:cc66:f0::/64"},
    {"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "localhost,127.0.0.1,[::1]"},
    {"all_proxy": "socks://127.0.0.1:9"},
    {"HTTP_PROXY": "http://[", "https_proxy": "nonsense:://"},
]


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    started = Router(tmp_path_factory.mktemp("router") / "data")
    with started.running():
        yield started


@pytest.mark.parametrize("shape", SHAPES, ids=["network", "socks5", "socks", "garbage"])
def test_what_is_on_this_machine_needs_no_proxy(
    router: Router, shape: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "environment", {**router.environment, **shape})
    router.cli("send", "--as", "alice", "--to", "bob", "--data", "x")
    router.cli("listen", "--as", "bob", "--dir", str(tmp_path), "--once")


def test_a_proxy_is_shown_no_token_for_this_machine(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a load go through it, by HTTP or by WebSocket."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        shape = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), url)
        monkeypatch.setattr(router, "environment", {**router.environment, **shape, "NO_PROXY": "", "no_proxy": ""})
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "x")
        router.cli("bench", "--seconds", "0.3", "--people", "2", "--rate", "5")
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


@pytest.mark.parametrize("service", ["serve-api", "doctor"])
def test_a_proxy_that_cannot_be_used_is_named(tmp_path: Path, service: str) -> None:
    """For what is on another machine: it would not be reached."""
    settings = {"ROUTER_AUTH__JWKS_URL": "https://id.example.com/jwks", "ALL_PROXY": "socks9://127.0.0.1:9"}
    done = Router(tmp_path / "data", settings).command(service)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == (Code.CONFIG if service == "serve-api" else Code.ERRORS)
    assert "ALL_PROXY is 'socks9://127.0.0.1:9', which is not a usable proxy" in " ".join(said.split())
    assert "Traceback" not in said
