"""The services as processes of their own over Pub/Sub; the stores behind are embedded."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from router.client import RouterClient
from tests.acceptance.test_serve import Inbox, sealed
from tests.support.servers import Server
from tests.support.service import Router, stop

pytestmark = pytest.mark.anyio


@pytest.fixture
def router(tmp_path: Path, pubsub: Server) -> Router:
    settings = {
        "ROUTER_LIMITS__SEND_RATE": "0",
        "ROUTER_LIMITS__PAIR_RATE": "0",
        "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
        "ROUTER_LIMITS__WORK_RATE": "0",
        "ROUTER_INGRESS__KIND": "pubsub",
        "ROUTER_INGRESS__IDEMPOTENCY_SECRET": secrets.token_hex(16),
        "ROUTER_PUSH__KIND": "pubsub",
        "GOOGLE_CLOUD_PROJECT": f"test-{secrets.token_hex(8)}",
        "PUBSUB_EMULATOR_HOST": pubsub.address,
    }
    return Router(tmp_path / "data", settings)


async def test_mail_goes_from_one_process_to_the_other(router: Router) -> None:
    steps = json.loads(router.cli("setup", "--json"))
    assert {step["state"] for step in steps} == {"made"}
    alice, bob = router.token("alice"), router.token("bob")
    inbox = Inbox()
    with router.running("serve-api") as api:
        async with RouterClient(router.url, lambda: alice) as sender, RouterClient(router.url, lambda: bob) as client:
            with router.running("process") as first:
                for number in range(20):
                    await sender.send(sealed("bob", number))
                while len(inbox.messages) < 20:
                    await client.drain(inbox.save)
                for number in range(20, 30):
                    await sender.send(sealed("bob", number))
                assert stop(first) == 0
            for number in range(30, 40):
                await sender.send(sealed("bob", number))
            with router.running("process") as second:
                while len(inbox.messages) < 40:
                    await client.drain(inbox.save)
                assert await inbox.wait_for(40) == list(range(40))
                assert stop(second) == 0
        assert stop(api) == 0
