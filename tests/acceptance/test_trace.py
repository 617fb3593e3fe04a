"""Why was message X not delivered? Causes are planted with a real router, and `router trace` names each
(docs/operations.md#why-was-message-x-not-delivered)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.servers import free_port
from tests.support.service import Router, redirected, stop

pytestmark = pytest.mark.anyio
TRIES = 60
PAYLOAD = "for whom it is"


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path / "data", {"ROUTER_LIMITS__QUEUE_MESSAGES": "3"})


def send(router: Router, to: str, *more: str) -> str:
    return router.cli("send", "--as", "alice", "--to", to, "--data", PAYLOAD, *more).strip()


def traced(router: Router, id_: str) -> dict[str, Any]:
    printed = router.cli("trace", id_, "--json")
    assert PAYLOAD not in printed
    assert "alice" not in printed
    (found,) = json.loads(printed)["messages"]
    assert isinstance(found, dict)
    return found


def causes(found: dict[str, Any]) -> dict[str, str]:
    return {one["cause"]: one["text"] for one in found["held_up_by"]}


def until(router: Router, id_: str, cause: str) -> dict[str, Any]:
    """What is told once ``cause`` is among the causes: services note some of them after their answers."""
    for _ in range(TRIES):
        if cause in causes(found := traced(router, id_)):
            return found
    raise AssertionError(f"{cause} is not told: {found}")


def online(router: Router, user: str, connections: int) -> None:
    """Return when the user has that many; services register and remove them after the handshake and the close."""
    for _ in range(TRIES):
        if len(json.loads(router.cli("inspect-queue", user, "--json"))["connections"]) == connections:
            return
    raise AssertionError(f"{user} never had {connections} connections")


@contextmanager
def unready(router: Router) -> Iterator[None]:
    """`serve`, which is alive and cannot be ready."""
    with (router.data_dir.parent / "serve.log").open("ab") as log:
        process = subprocess.Popen(redirected("", "serve"), env=router.environment, stdout=log, stderr=log)
    try:
        router.wait_for_log('"event": "ready"')
        yield
    finally:
        process.kill()
        process.wait()


async def test_a_recipient_who_was_online_and_is_not(router: Router) -> None:
    """It says since when, and goes on saying so once the router is stopped."""
    with router.running() as process:
        bearer = {"Authorization": f"Bearer {router.token('bob')}"}
        async with connect(router.ws_url, additional_headers=bearer):
            online(router, "bob", 1)
        online(router, "bob", 0)
        id_ = send(router, "bob")
        found = traced(router, id_)
        assert (found["where"], found["announced"]) == ("cold", True)
        (offline,) = [one for one in found["held_up_by"] if one["cause"] == "recipient-offline"]
        assert offline["text"] == "bob is offline"
        assert offline["since"] is not None
        assert offline["since"] < found["events"][0]["at"]
        assert stop(process) == 0
    assert list(causes(traced(router, id_))) == ["no-router", "recipient-offline", "push-waits"]


async def test_a_client_that_is_connected_and_does_not_fetch_or_does_not_acknowledge(router: Router) -> None:
    with router.running():
        bearer = {"Authorization": f"Bearer {router.token('bob')}"}
        async with connect(router.ws_url, additional_headers=bearer) as socket:
            first, id_ = send(router, "bob"), send(router, "bob")
            assert await socket.recv() == "{}"
            found = traced(router, id_)
            assert found["where"] == "hot"
            assert causes(found) == {
                "not-fetched": "bob is connected, and has not fetched since the last poke",
                "behind": "behind 1 message of the same lane, which a fetch returns before it",
            }
            async with httpx.AsyncClient() as client:
                page = (await client.get(f"{router.url}/api/messages", headers=bearer)).json()
            assert [message["id"] for message in page["messages"]] == [first, id_]
            assert list(causes(until(router, id_, "not-acknowledged"))) == ["not-acknowledged", "behind"]


def test_a_recipient_whose_queue_is_full(router: Router) -> None:
    with router.running():
        ids = [send(router, "bob") for _ in range(4)]
        assert traced(router, ids[-2])["where"] == "cold"
        found = traced(router, ids[-1])
        assert found["where"] == "dead-letter"
        assert "limits.queue_messages" in causes(found)["refused"]
        assert "router dead-letters replay" in causes(found)["refused"]
        router.cli("listen", "--as", "bob", "--dir", str(router.data_dir.parent / "inbox"), "--once")
        router.cli("dead-letters", "replay")
        assert until(router, ids[-1], "recipient-offline")["where"] == "cold"


def test_a_message_that_another_device_has_acknowledged(router: Router) -> None:
    """`router send` gives each message an Idempotency-Key, so that its id is remembered for a day."""
    with router.running():
        id_ = send(router, "bob")
        router.cli("listen", "--as", "bob", "--dir", str(router.data_dir.parent / "phone"), "--once")
        found = traced(router, id_)
    assert (found["where"], found["held_up_by"]) == ("gone", [])
    assert found["text"].startswith("acknowledged: a device of its recipient")
    assert [one["event"] for one in found["events"]] == ["routed", "left"]


def test_a_cold_queue_that_does_not_answer(tmp_path: Path) -> None:
    """Where the cold queue is elsewhere: the message is safe in the ingress, and its write is pending."""
    firestore = {"FIRESTORE_EMULATOR_HOST": f"127.0.0.1:{free_port()}", "GOOGLE_CLOUD_PROJECT": "p"}
    router = Router(tmp_path / "data", {**firestore, "ROUTER_COLD__KIND": "firestore"})
    with unready(router):
        found = until(router, send(router, "bob"), "pending-write")
    assert found["where"] == "pending"
    assert list(causes(found)) == ["outage", "pending-write", "recipient-offline"]
    assert causes(found)["outage"].startswith("the cold queue (firestore, project p, collection cold-queue, emulator")
