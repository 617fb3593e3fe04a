"""Clients that go silent, crowds that come back, and stops that cannot finish; at the installed router."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from router.auth.embedded import EmbeddedKey
from router.backends.embedded import schema
from router.client import RouterClient
from router.clock import SystemClock
from router.core.connections import REPLACED
from router.web.transport.config import GRACEFUL_SECONDS
from tests.support.edge import eventually, raw
from tests.support.service import STOP_SECONDS, Router
from tests.support.tracebacks import traceback_in

pytestmark = pytest.mark.anyio
CROWD = 1000
SOCKET_BYTES = 64 * 1024
"""What one of a crowd may cost the server at most, at the height of the rush."""


@pytest.fixture
def router(tmp_path: Path) -> Router:
    """Leases of a second, so that what only a lease ends ends within the test."""
    settings = {
        "ROUTER_LIMITS__SEND_RATE": "0",
        "ROUTER_LIMITS__PAIR_RATE": "0",
        "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
        "ROUTER_LIMITS__WORK_RATE": "0",
        "ROUTER_ONLINE__LEASE_SECONDS": "1",
        "ROUTER_ONLINE__HEARTBEAT_SECONDS": "0.3",
        "ROUTER_SERVER__DRAIN_SECONDS": "0.5",
    }
    return Router(tmp_path / "data", settings)


def tokens(router: Router) -> EmbeddedKey:
    return EmbeddedKey.open(router.data_dir)


def token(key: EmbeddedKey, user: str) -> str:
    return key.sign(user, SystemClock().now(), 600)


def queue_of(router: Router, user: str) -> tuple[list[str], int]:
    """(the tier of each message, how many connections)."""
    view = json.loads(router.cli("inspect-queue", user, "--json"))
    return [message["tier"] for message in view["messages"]], len(view["connections"])


def announced(router: Router) -> list[str]:
    return [json.loads(line)["id"] for line in router.cli("outbox", "--json").splitlines()]


async def send(router: Router, key: EmbeddedKey, user: str) -> str:
    async with RouterClient(router.url, lambda: token(key, "alice")) as client:
        return await client.send(json.dumps({"recipientId": user, "encryptedData": "AQID"}).encode())


async def test_a_half_open_connection_ends_with_its_ping(router: Router) -> None:
    """RACES 16: the poke is written and nobody reads. The live process renews the lease: only the ping tells.

    Eve, who says as little but answers her pings, stays.
    """
    router.environment["ROUTER_SERVER__PING_SECONDS"] = "2"
    with router.running():
        key = tokens(router)
        headers = {"authorization": f"Bearer {token(key, 'eve')}"}
        async with raw(router.ws_port, deaf=True) as silent, connect(router.ws_url, additional_headers=headers) as eve:
            assert b" 101 " in await silent.upgrade(token(key, "bob"))
            silent.deafen()
            id_ = await send(router, key, "bob")
            await eventually(lambda: router.metric("router_clients_cut_off_total", reason="no-pong") == 1)
            assert router.metric("router_messages_routed_total", outcome="hot") == 1
            await eventually(lambda: router.metric("router_messages_migrated_total") == 1)
            await send(router, key, "eve")
            assert await eve.recv() == "{}"
        assert queue_of(router, "bob") == (["cold"], 0)
        assert id_ in announced(router)


async def test_half_open_sockets_do_not_shut_out_the_living(router: Router) -> None:
    """RACES 51: the phone comes back on a new network while its old socket is half open, and so it does again. Who
    answers pings is not replaced, however often others come."""
    router.environment |= {
        "ROUTER_LIMITS__CONNECTIONS_PER_USER": "1",
        "ROUTER_ONLINE__LEASE_SECONDS": "60",
        "ROUTER_ONLINE__HEARTBEAT_SECONDS": "20",
    }
    with router.running():
        key = tokens(router)
        async with raw(router.ws_port) as silent:
            assert b" 101 " in await silent.upgrade(token(key, "bob"))
            headers = {"authorization": f"Bearer {token(key, 'bob')}"}
            async with connect(router.ws_url, additional_headers=headers) as phone:
                ping, close = 2 + 4, 2 + 2
                assert (await silent.read(ping + close))[-2:] == struct.pack("!H", REPLACED)
                async with raw(router.ws_port) as other:
                    assert b" 429 " in await other.upgrade(token(key, "bob"))
                await send(router, key, "bob")
                assert await phone.recv() == "{}"
        assert router.metric("router_connections_closed_total", code=str(REPLACED), clean="true") == 1


async def test_sockets_of_a_killed_process_do_not_shut_out_the_living(router: Router) -> None:
    """RACES 51: ``serve`` was killed and starts again on the same data directory: it holds none of before."""
    router.environment |= {"ROUTER_LIMITS__CONNECTIONS_PER_USER": "2", "ROUTER_ONLINE__LEASE_SECONDS": "600"}
    for _ in range(2):
        with router.running() as process:
            key = tokens(router)
            async with raw(router.ws_port) as phone, raw(router.ws_port) as laptop:
                for device in (phone, laptop):
                    assert b" 101 " in await device.upgrade(token(key, "bob"))
                id_ = await send(router, key, "bob")
                process.kill()
                process.wait()
    with router.running():
        # Nobody comes back: the mail moves as soon as somebody sweeps, and is announced.
        await eventually(lambda: id_ in announced(router))
        assert queue_of(router, "bob") == (["cold", "cold"], 0)


async def test_a_killed_node_leaves_nobody_online(router: Router) -> None:
    """RACES 15: of three processes, the one with the sockets is killed; the sweeper of another does the rest."""
    with router.running("serve-api"), router.running("process"):
        node = router.start("serve-ws")
        try:
            key = tokens(router)
            headers = {"authorization": f"Bearer {token(key, 'bob')}"}
            async with connect(router.ws_url, additional_headers=headers) as socket:
                id_ = await send(router, key, "bob")
                assert await socket.recv() == "{}"
                node.kill()
                node.wait()
        finally:
            node.kill()
            node.wait()
        await eventually(lambda: announced(router) == [id_])
        assert queue_of(router, "bob") == (["cold"], 0)


@contextmanager
def locked(router: Router) -> Iterator[sqlite3.Connection]:
    """Another process holds the write lock of the file: nothing that the router wants to write gets through."""
    other = schema.open_writer(router.data_dir / schema.FILE_NAME)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        other.close()


@asynccontextmanager
async def caught_in_a_drain(router: Router) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A router with Bob online and mail for him in hot, that was told to stop and cannot write."""
    process = router.start()
    try:
        key = tokens(router)
        headers = {"authorization": f"Bearer {token(key, 'bob')}"}
        async with connect(router.ws_url, additional_headers=headers) as socket:
            await send(router, key, "bob")
            assert await socket.recv() == "{}"
            with locked(router):
                process.send_signal(signal.SIGTERM)
                router.wait_for_log("draining")
                yield process
    finally:
        process.kill()
        process.wait()


async def finished_by_sweepers(router: Router) -> None:
    """The next process does what the stopped one could not: Bob is offline, his mail is cold and announced."""
    assert queue_of(router, "bob")[0] == ["hot"]
    with router.running():
        await eventually(lambda: router.metric("router_messages_migrated_total") == 1)
        assert router.metric("router_push_commands_total") == 1
    assert queue_of(router, "bob") == (["cold"], 0)


async def test_a_drain_that_takes_too_long_ends(router: Router) -> None:
    """RACES 36: after ``drain_seconds`` the process lets go; what it says is not that it failed."""
    async with caught_in_a_drain(router) as process:
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) == 0
    log = router.log()
    assert "the drain took too long" in log
    assert "stopping at once" in log, "not even closing the file got through"
    assert not traceback_in(log)
    await finished_by_sweepers(router)


async def test_a_second_signal_ends_at_once(router: Router) -> None:
    """RACES 36: though the drain has all its time left, and nothing of it is done."""
    router.environment["ROUTER_SERVER__DRAIN_SECONDS"] = "600"
    async with caught_in_a_drain(router) as process:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) == 0
    assert "stopping at once" in router.log()
    await finished_by_sweepers(router)


@contextmanager
def hangups(handler: signal.Handlers) -> Iterator[None]:
    """A child inherits whether they are ignored: under nohup they are, the tests too."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_terminal_that_is_closed_drains(router: Router) -> None:
    """RACES 36: its shell hangs up, and then the kernel; the second one cuts nothing short."""
    router.environment["ROUTER_SERVER__DRAIN_SECONDS"] = "25"
    with hangups(signal.SIG_DFL), router.running() as process:
        key = tokens(router)
        headers = {"authorization": f"Bearer {token(key, 'bob')}"}
        async with connect(router.ws_url, additional_headers=headers) as socket:
            id_ = await send(router, key, "bob")
            assert await socket.recv() == "{}"
            with locked(router):
                process.send_signal(signal.SIGHUP)
                await asyncio.to_thread(router.wait_for_log, "draining")
                process.send_signal(signal.SIGHUP)
            await socket.wait_closed()
            assert socket.close_code == 1001
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) == 0
    assert "stopping at once" not in router.log()
    assert queue_of(router, "bob") == (["cold"], 0)
    assert announced(router) == [id_]


async def test_a_hangup_that_is_ignored_stays_ignored(router: Router) -> None:
    with hangups(signal.SIG_IGN):
        process = router.start()
    try:
        process.send_signal(signal.SIGHUP)
        await send(router, tokens(router), "bob")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    assert router.log().count("draining") == 1
    assert "stopping at once" not in router.log()


async def test_a_request_under_way_is_finished(router: Router) -> None:
    """RACES 35: its sender gets the 202, and the message is there afterwards."""
    router.environment["ROUTER_SERVER__DRAIN_SECONDS"] = "25"
    body = b'{"recipientId":"bob","encryptedData":"AQID"}'
    with router.running() as process:
        key = tokens(router)
        head = "POST /api/send HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n"
        async with raw(router.api_port) as client:
            await client.send(head.format(token(key, "alice"), len(body)).encode() + body[:9])
            async with RouterClient(router.url, lambda: token(key, "bob")) as other:
                await other.fetch()
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(router.wait_for_log, "draining")
            # Longer than a server that closes waits for what it has open.
            await asyncio.sleep(GRACEFUL_SECONDS + 0.5)
            await client.send(body[9:])
            assert await client.line() == b"HTTP/1.1 202 Accepted\r\n"
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) == 0
    with router.running():
        await eventually(lambda: announced(router) != [])
        assert queue_of(router, "bob")[0] == ["cold"]


@contextmanager
def few_files() -> Iterator[None]:
    """A child inherits a soft limit of open files that is lower than the crowd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (CROWD // 2, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * CROWD)), hard))


def most_memory(process: subprocess.Popen[bytes]) -> int:
    """The most that it ever had in memory, in bytes."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
async def test_a_crowd_comes_back_after_a_deploy(router: Router) -> None:
    """RACES 20: all at once, to a process that has just started; everybody gets in, and gets their mail, once."""
    router.environment["ROUTER_SERVER__DRAIN_SECONDS"] = "25"
    users = [f"user{number}" for number in range(CROWD)]
    waiting = users[::10]
    with router.running() as process:
        key = tokens(router)
        async with RouterClient(router.url, lambda: token(key, "alice")) as client:
            ids = {user: await client.send(b'{"recipientId":"%b"}' % user.encode()) for user in waiting}
        first = await crowd(router, key, users)
        process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(socket.wait_closed() for socket in first))
        assert {socket.close_code for socket in first} == {1001}
        assert await asyncio.to_thread(process.wait, STOP_SECONDS) == 0
    with few_files():
        process = router.start()
    try:
        before = most_memory(process)
        again = await crowd(router, key, users)
        assert most_memory(process) - before < CROWD * SOCKET_BYTES
        assert router.metric("router_connections") == CROWD
        for user, socket in zip(users, again, strict=True):
            if user in waiting:
                assert await socket.recv() == "{}"
        async with httpx.AsyncClient(base_url=router.url, timeout=30) as http:
            for user in waiting:
                headers = {"authorization": f"Bearer {token(key, user)}"}
                fetched = (await http.get("/api/messages", headers=headers)).json()["messages"]
                assert [message["id"] for message in fetched] == [ids[user]]
        assert json.loads(router.cli("inspect-queue", "--json"))["connections"] == CROWD
    finally:
        process.kill()
        process.wait()


async def crowd(router: Router, key: EmbeddedKey, users: list[str]) -> list[ClientConnection]:
    """All of them connect at once."""
    headers = [{"authorization": f"Bearer {token(key, user)}"} for user in users]
    connections = (connect(router.ws_url, additional_headers=own, open_timeout=60, compression=None) for own in headers)
    return list(await asyncio.gather(*connections))
