"""An outage of Redis, as each service tells of it: in its log, at ``/readyz`` and in its metrics."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from router.cli.exits import Code
from tests.support.edge import eventually
from tests.support.servers import free_port, redis_server, running
from tests.support.service import Router, stop

pytestmark = [pytest.mark.anyio]
FAILED = {"dependency": "online", "kind": "redis"}


@pytest.mark.parametrize("service", ["process", "serve-api", "serve-ws"])
async def test_each_service_tells_of_an_outage_once(tmp_path: Path, service: str) -> None:
    port = free_port()

    def fails() -> bool:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz")
        return answer.status_code == 503 and answer.json()["failed"] == [FAILED]

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
    lines = [json.loads(line) for line in router.log(service).splitlines()]
    (told,) = [line for line in lines if line["event"] == "outage begins"]
    assert (told["dependency"], told["kind"], told["server"]) == ("online", "redis", f"{server.address} (single)")
    assert "cold" in told["effect"]
