"""An outage of Redis, or of Pub/Sub, as each service tells of it: in its log, and at ``/readyz``."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.cli.exits import Code
from tests.support.edge import eventually
from tests.support.servers import free_port, pubsub_emulator, redis_server, running
from tests.support.service import Router, stop

pytestmark = [pytest.mark.anyio]
FAILED = {"dependency": "online", "kind": "redis"}


def outages(router: Router, service: str) -> list[dict[str, Any]]:
    """The lines of the service's log that tell of them."""
    lines = [json.loads(line) for line in router.log(service).splitlines()]
    return [line for line in lines if line["event"] in ("outage begins", "outage is over")]


@pytest.mark.parametrize("service", ["process", "serve-api", "serve-ws"])
async def test_each_service_tells_of_an_outage_once(tmp_path: Path, service: str) -> None:
    port = free_port()

    def fails() -> bool:
        answer, bare = router.admin("/readyz", service), httpx.get(f"http://127.0.0.1:{port}/readyz")
        named = answer.status_code == 503 and answer.json()["failed"] == [FAILED]
        return named and (bare.status_code, bare.content) == (503, b"")

    with running(redis_server(tmp_path / "redis", "--appendfsync", "always")) as server:
        settings = {
            "ROUTER_ONLINE__KIND": "redis",
            "ROUTER_ONLINE__URL": f"redis://{server.address}",
            "PORT": str(port),
        }
        router = Router(tmp_path / "data", settings)
        router.api_port = router.ws_port = port
        process = router.start(service)
        try:
            router.wait_until_ready(process, port)
            server.stop()
            await eventually(fails)
            assert stop(process) == Code.OK
        finally:
            process.kill()
            process.wait()
    (told,) = outages(router, service)
    assert (told["dependency"], told["kind"], told["server"]) == ("online", "redis", f"{server.address} (single)")
    assert "cold" in told["effect"]


def test_a_process_without_mail_and_without_a_port_tells_of_a_frozen_pubsub(tmp_path: Path) -> None:
    with running(pubsub_emulator(tmp_path / "pubsub")) as server:
        settings = {
            "ROUTER_INGRESS__KIND": "pubsub",
            "ROUTER_INGRESS__IDEMPOTENCY_SECRET": secrets.token_hex(16),
            "GOOGLE_CLOUD_PROJECT": f"test-{secrets.token_hex(8)}",
            "PUBSUB_EMULATOR_HOST": server.address,
        }
        router = Router(tmp_path / "data", settings)
        router.cli("setup")
        with router.running("process") as process:
            router.wait_for_log('"ready"', "process")
            server.freeze()
            router.wait_for_log("outage begins", "process")
            server.thaw()
            router.wait_for_log("outage is over", "process")
            assert stop(process) == Code.OK
    begins, over = outages(router, "process")
    assert (begins["dependency"], begins["kind"]) == (over["dependency"], over["kind"]) == ("ingress", "pubsub")
    assert server.address in begins["server"]
