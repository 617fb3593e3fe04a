"""The ports of each installed service: what the world sees, and what is for its own network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.servers import free_port
from tests.support.service import Router


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """One of each service on one host."""
    started = Router(tmp_path_factory.mktemp("ports") / "data")
    started.environment["ROUTER_PROCESS__PORT"] = str(free_port())
    with started.running("serve-api"), started.running("serve-ws"), started.running("process"):
        started.wait_for_log("ready", "process")
        yield started


@pytest.mark.parametrize("service", ["serve-api", "serve-ws", "process"])
def test_each_service_tells_names_and_numbers_on_its_admin_port_only(router: Router, service: str) -> None:
    assert router.admin("/healthz", service).json() == {"status": "alive"}
    assert router.admin("/readyz", service).json() == {"status": "ready"}
    assert "router_http_requests_total" in router.admin("/metrics", service).text
    ports = {"serve-api": router.api_port, "serve-ws": router.ws_port}
    port = ports.get(service, int(router.environment["ROUTER_PROCESS__PORT"]))
    public = f"http://127.0.0.1:{port}"
    assert httpx.get(f"{public}/healthz").json() == {"status": "alive"}
    bare = httpx.get(f"{public}/readyz")
    assert (bare.status_code, bare.content) == (200, b"")
    assert httpx.get(f"{public}/metrics").status_code == 404


def test_a_process_without_a_port_has_its_admin_port(tmp_path: Path) -> None:
    alone = Router(tmp_path / "data")
    with alone.running("process"):
        alone.wait_for_log("ready", "process")
        assert alone.admin("/readyz", "process").is_success
        assert '"listening": []' in alone.log("process")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_the_ready_line_tells_the_admin_port_that_the_system_chose(tmp_path: Path, log_format: str) -> None:
    chosen = Router(tmp_path / "data", {"ROUTER_SERVER__LOG_FORMAT": log_format})
    chosen.admin_ports["serve"] = 0
    with chosen.running():
        (line,) = [line for line in chosen.log().splitlines() if "listening" in line]
    (url,) = json.loads(line)["admin"] if log_format == "json" else re.findall(r"admin=\['([^']+)'\]", line)
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", url)


def test_metrics_beyond_loopback_are_warned_of(tmp_path: Path) -> None:
    wide = Router(tmp_path / "data", {"ROUTER_SERVER__ADMIN_HOST": "0.0.0.0"})
    with wide.running():
        assert wide.admin("/metrics").is_success
    assert "metrics are served beyond loopback" in wide.log()
