"""The whole router in one process, used from outside as people use it."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import signal
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
import websockets
from websockets import Subprotocol
from websockets.asyncio.client import connect

from router.client import Received, RouterClient
from tests.support.service import Router, stop

pytestmark = pytest.mark.anyio
EVENT_SECONDS = 60.0
"""An event that has not come by then does not come."""


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(
        tmp_path / "data",
        {
            "ROUTER_LIMITS__SEND_RATE": "0",
            "ROUTER_LIMITS__PAIR_RATE": "0",
            "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
            "ROUTER_LIMITS__WORK_RATE": "0",
        },
    )


def sealed(recipient: str, number: int, **more: object) -> bytes:
    data = base64.b64encode(number.to_bytes(4, "big")).decode()
    return json.dumps({"recipientId": recipient, "encryptedData": data, **more}).encode()


def number_of(received: Received) -> int:
    return int.from_bytes(base64.b64decode(json.loads(bytes(received.envelope))["encryptedData"]), "big")


class Inbox:
    """Saves in memory, and tells when a number of messages is there."""

    def __init__(self) -> None:
        self.messages: list[Received] = []
        self.grown = asyncio.Condition()

    async def save(self, batch: Sequence[Received]) -> None:
        async with self.grown:
            known = {received.id for received in self.messages}
            self.messages += [received for received in batch if received.id not in known]
            self.grown.notify_all()

    async def wait_for(self, count: int) -> list[int]:
        async with asyncio.timeout(EVENT_SECONDS), self.grown:
            await self.grown.wait_for(lambda: len(self.messages) >= count)
        return [number_of(received) for received in self.messages]


async def test_offline_mail_waits_and_is_announced(router: Router) -> None:
    with router.running():
        alice, bob = router.token("alice"), router.token("bob")
        async with RouterClient(router.url, lambda: alice) as sender, RouterClient(router.url, lambda: bob) as client:
            ids = [await sender.send(sealed("bob", number)) for number in range(3)]
            commands: list[dict[str, object]] = []
            while len(commands) < 3:
                commands = [json.loads(line) for line in router.cli("outbox", "--json").splitlines()]
            assert [command["id"] for command in commands] == ids
            inbox = Inbox()
            await client.drain(inbox.save)
            assert [received.id for received in inbox.messages] == ids
            assert await client.fetch() == []
        assert router.cli("outbox", "--json") == "", "what is acknowledged needs no command"
        assert b"alice" not in (router.data_dir / "router.db-wal").read_bytes(), "the sender is never stored"


async def test_online_mail_is_poked_on_either_port(router: Router) -> None:
    with router.running():
        alice, bob = router.token("alice"), router.token("bob")
        inbox = Inbox()
        async with (
            RouterClient(router.url, lambda: alice) as sender,
            RouterClient(router.url, lambda: bob, ws_url=router.ws_url) as client,
        ):
            listening = asyncio.create_task(client.listen(inbox.save))
            for number in range(20):
                await sender.send(sealed("bob", number))
            assert await inbox.wait_for(20) == list(range(20))
            listening.cancel()


@pytest.mark.parametrize("port", ["api_port", "ws_port"])
async def test_a_socket_carries_pokes_and_nothing_else(router: Router, port: str) -> None:
    """A poke for what came, and one for what comes after a fetch; browsers bring the token as subprotocol."""
    with router.running():
        alice, bob = router.token("alice"), router.token("bob")
        url = f"ws://127.0.0.1:{getattr(router, port)}/connect"
        async with (
            RouterClient(router.url, lambda: alice) as sender,
            RouterClient(router.url, lambda: bob) as client,
            connect(url, subprotocols=[Subprotocol(bob)]) as socket,
            asyncio.timeout(EVENT_SECONDS),
        ):
            assert socket.subprotocol == bob
            await sender.send(sealed("bob", 0))
            assert await socket.recv() == "{}"
            assert len(await client.fetch()) == 1
            await sender.send(sealed("bob", 1))
            assert await socket.recv() == "{}"
            await socket.close()
            assert [frame async for frame in socket] == []


async def test_killed_in_the_middle_of_ten_thousand_sends(router: Router) -> None:
    """RACES 2, 15, 32, 35: every message that was answered 202 arrives, once per id, in order."""
    senders, total = 16, 10_000
    accepted: dict[int, list[str]] = {sender: [] for sender in range(senders)}
    tokens = [router.token(f"sender{number}") for number in range(senders)]
    bob = router.token("bob")
    enough = asyncio.Event()

    async def send(sender: int) -> None:
        async with httpx.AsyncClient(base_url=router.url, timeout=30) as client:
            headers = {"authorization": f"Bearer {tokens[sender]}", "content-type": "application/json"}
            for number in range(total // senders):
                try:
                    response = await client.post("/api/send", content=sealed("bob", number), headers=headers)
                except httpx.TransportError:
                    return
                assert response.status_code == 202
                accepted[sender].append(response.json()["id"])
                if sum(map(len, accepted.values())) >= total // 4:
                    enough.set()

    process = router.start()
    try:
        async with connect(router.ws_url, additional_headers={"Authorization": f"Bearer {bob}"}):
            sending = [asyncio.create_task(send(sender)) for sender in range(senders)]
            await enough.wait()
            process.send_signal(signal.SIGKILL)
            await asyncio.gather(*sending)
    finally:
        process.kill()
        process.wait()
    with router.running():
        answered = [id_ for ids in accepted.values() for id_ in ids]
        inbox = Inbox()
        async with RouterClient(router.url, lambda: bob) as client:
            async with asyncio.timeout(EVENT_SECONDS):
                while len(inbox.messages) < len(answered):
                    await client.drain(inbox.save, 500)
        arrived = [received.id for received in inbox.messages]
        assert len(arrived) == len(set(arrived))
        assert set(answered) <= set(arrived)
        order = {id_: place for place, id_ in enumerate(arrived)}
        for ids in accepted.values():
            assert [order[id_] for id_ in ids] == sorted(order[id_] for id_ in ids)


async def test_a_drain_closes_sockets_and_moves_their_mail(router: Router) -> None:
    """RACES 35."""
    process = router.start()
    try:
        alice, bob = router.token("alice"), router.token("bob")
        async with connect(router.ws_url, additional_headers={"Authorization": f"Bearer {bob}"}) as socket:
            async with RouterClient(router.url, lambda: alice) as sender:
                await sender.send(sealed("bob", 1))
            async with asyncio.timeout(EVENT_SECONDS):
                assert await socket.recv() == "{}"
            assert await asyncio.to_thread(stop, process) == 0
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
    finally:
        process.kill()
        process.wait()
    queue = json.loads(router.cli("inspect-queue", "bob", "--json"))
    assert [message["tier"] for message in queue["messages"]] == ["cold"]
    assert queue["connections"] == []


async def test_three_processes_on_one_file(router: Router) -> None:
    """Separate services wake one another, and survive the death of the pipeline."""
    with router.running("serve-api"), router.running("serve-ws"):
        alice, bob = router.token("alice"), router.token("bob")
        inbox = Inbox()
        async with (
            RouterClient(router.url, lambda: alice) as sender,
            RouterClient(router.url, lambda: bob, ws_url=router.ws_url) as client,
        ):
            listening = asyncio.create_task(client.listen(inbox.save))
            with router.running("process"):
                for number in range(10):
                    await sender.send(sealed("bob", number))
                assert await inbox.wait_for(10) == list(range(10))
            for number in range(10, 20):
                await sender.send(sealed("bob", number))
            with router.running("process"):
                assert await inbox.wait_for(20) == list(range(20))
            listening.cancel()


async def test_a_second_serve_on_the_same_data_is_refused(router: Router) -> None:
    with router.running():
        done = Router(router.data_dir).command("serve")
        assert done.returncode == 78
        assert "another `router serve`" in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()


async def test_more_connections_than_the_soft_limit_of_files(router: Router) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        process = router.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    writers = []
    try:
        for _ in range(200):
            async with asyncio.timeout(EVENT_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", router.api_port)
                writers.append(writer)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: router\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    finally:
        for writer in writers:
            writer.close()
        stop(process)


async def test_a_second_pipeline_says_that_it_stands_by_and_when_it_takes_over(router: Router) -> None:
    with router.running() as first, router.running("process"):
        router.wait_for_log("another process routes; this one stands by", "process")
        first.kill()
        router.wait_for_log("this process routes now", "process")
