"""``server.workers = 2``: two processes on one port and one file, and one service to its operator."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Self

import httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from router.cli.exits import Code
from tests.support.service import START_SECONDS, STOP_SECONDS, Router, stop

pytestmark = pytest.mark.anyio
SETTINGS = {
    "ROUTER_SERVER__WORKERS": "2",
    "ROUTER_LIMITS__SEND_RATE": "0",
    "ROUTER_LIMITS__PAIR_RATE": "0",
    "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
    "ROUTER_LIMITS__WORK_RATE": "0",
}
SENDERS, EACH = 6, 80
WAYS = 32
"""Connections that are opened until both workers have one: that all of them go to one happens once in 2³¹ runs."""


def production(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings for Redis, Firestore and Pub/Sub."""
    redis, firestore, pubsub = (request.getfixturevalue(name) for name in ("redis", "firestore", "pubsub"))
    return {
        "GOOGLE_CLOUD_PROJECT": f"workers-{secrets.token_hex(4)}",
        "PUBSUB_EMULATOR_HOST": pubsub.address,
        "FIRESTORE_EMULATOR_HOST": firestore.address,
        "ROUTER_INGRESS__KIND": "pubsub",
        "ROUTER_INGRESS__IDEMPOTENCY_SECRET": secrets.token_hex(16),
        "ROUTER_ONLINE__KIND": "redis",
        "ROUTER_ONLINE__URL": f"redis://{redis.address}/0",
        "ROUTER_COLD__KIND": "firestore",
        "ROUTER_PUSH__KIND": "pubsub",
    }


@pytest.fixture(scope="module", params=["one file", "production"])
def any_unit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unit]:
    """Two workers over each kind of backend."""
    if request.param == "one file":
        yield request.getfixturevalue("unit")
        return
    router = Router(tmp_path_factory.mktemp("workers") / "data", {**SETTINGS, **production(request)})
    router.cli("setup")
    with running(router) as unit:
        yield unit


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unit]:
    """Two workers, for tests that leave them as they are."""
    router = Router(tmp_path_factory.mktemp("workers") / "data", SETTINGS)
    with running(router) as unit:
        yield unit


class Unit:
    """A router of two workers that runs."""

    def __init__(self, router: Router, process: subprocess.Popen[bytes]) -> None:
        self.router = router
        self.process = process

    def workers(self) -> list[int]:
        """Their process ids, by their numbers."""
        ready = [json.loads(line) for line in self.router.log().splitlines() if '"a worker is ready"' in line]
        return [pid for _, pid in sorted({line["process"]: line["pid"] for line in ready}.items())]

    @asynccontextmanager
    async def ways(self, *users: str) -> AsyncIterator[list[Person]]:
        """For each of ``users``, a connection to each worker; the first worker's come first."""
        async with AsyncExitStack() as stack:
            found = {user: dict[int, Person]() for user in users}
            for user, ways in found.items():
                token = self.router.token(user)
                for _ in range(WAYS):
                    person = await stack.enter_async_context(Person(self.router.url, token))
                    ways.setdefault(await person.worker(self.workers()), person)
                    if len(ways) == 2:
                        break
            yield [found[user][pid] for user in users for pid in self.workers()]

    @asynccontextmanager
    async def sockets(self, user: str) -> AsyncIterator[list[ClientConnection]]:
        """A WebSocket to each worker."""
        headers = {"Authorization": f"Bearer {self.router.token(user)}"}
        found = dict[int, ClientConnection]()
        async with AsyncExitStack() as stack:
            for _ in range(WAYS):
                async with AsyncExitStack() as opened:
                    socket = await opened.enter_async_context(connect(self.router.ws_url, additional_headers=headers))
                    pid = await owner(socket.local_address[:2], socket.remote_address[:2], self.workers())
                    if pid not in found:
                        found[pid] = socket
                        stack.push_async_exit(opened.pop_all())
                if len(found) == 2:
                    break
            yield [found[pid] for pid in self.workers()]


class Person:
    """One connection of one person."""

    def __init__(self, url: str, token: str) -> None:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self.http = httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=30)

    async def __aenter__(self) -> Self:
        await self.http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def worker(self, pids: list[int]) -> int:
        """Who of ``pids`` has this connection."""
        response = await self.http.get("/healthz")
        stream = response.extensions["network_stream"]
        return await owner(stream.get_extra_info("client_addr"), stream.get_extra_info("server_addr"), pids)

    async def send(self, recipient: str, number: int) -> str:
        response = await self.http.post("/api/send", content=sealed(recipient, number))
        assert response.status_code == 202, response.text
        id_: str = response.json()["id"]
        return id_

    async def fetch(self) -> list[str]:
        response = await self.http.get("/api/messages", params={"limit": 500})
        assert response.status_code == 200, response.text
        return [message["id"] for message in response.json()["messages"]]

    async def acknowledge(self, ids: list[str]) -> None:
        response = await self.http.post("/api/messages/ack", json={"messageIds": ids})
        assert response.status_code == 204, response.text


def sealed(recipient: str, number: int) -> bytes:
    data = base64.b64encode(number.to_bytes(4, "big")).decode()
    return json.dumps({"recipientId": recipient, "encryptedData": data}).encode()


Address = tuple[str, int]


async def owner(client: Address, server: Address, pids: list[int]) -> int:
    """Which of ``pids`` has the end at ``server`` of the connection from ``client``."""
    async with asyncio.timeout(START_SECONDS):
        while (pid := listed_owner(client, server, pids)) is None:  # noqa: ASYNC110 - the kernel sets no event
            # The list of connections may lack some while others come and go.
            await asyncio.sleep(0.02)
        return pid


def listed_owner(client: Address, server: Address, pids: list[int]) -> int | None:
    ends = [f":{port:04X}" for _, port in (server, client)]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = [f"socket:[{line[9]}]" for line in lines if [line[1][8:], line[2][8:]] == ends]
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if str(descriptor.readlink()) in sockets:
                    return pid
    return None


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@contextmanager
def running(router: Router) -> Iterator[Unit]:
    """``router``, ready; a parent that still runs at the end is killed by its own id, and its workers end with it."""
    with router.running() as process:
        yield Unit(router, process)


async def until(holds: Callable[[], bool]) -> None:
    """Return when ``holds`` says yes."""
    async with asyncio.timeout(START_SECONDS):
        while not holds():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.02)


async def test_what_one_worker_has_done_every_worker_shows(any_unit: Unit) -> None:
    """No page is stale: each worker has read before what another one then changes."""
    async with any_unit.ways("ann", "ben") as (first, second, one, other), any_unit.sockets("ben") as sockets:
        for number in range(6):
            sender, reader, last = (first, one, other) if number % 2 else (second, other, one)
            assert await one.fetch() == await other.fetch() == []
            ids = [await sender.send("ben", number)]
            for socket in sockets:
                async with asyncio.timeout(START_SECONDS):
                    assert await socket.recv() == "{}", "a poke reaches the sockets of both"
            async with asyncio.timeout(START_SECONDS):
                while not await reader.fetch():  # an earlier poke was repeated
                    await sockets[0].recv()
            assert await reader.fetch() == await last.fetch() == ids
            await reader.acknowledge(ids)
            assert await last.fetch() == [] == await reader.fetch()


async def test_metrics_and_readiness_are_those_of_both(unit: Unit) -> None:
    accepted = unit.router.metric("router_messages_accepted_total")
    async with unit.ways("cat") as (one, other), unit.sockets("cat"):
        for person in (one, other):
            for number in range(3):
                await person.send("dan", number)
        assert unit.router.metric("router_messages_accepted_total") == accepted + 6
        assert unit.router.metric("router_connections") == 2
        assert unit.router.admin("/readyz").json() == {"status": "ready"}
        stopped = unit.workers()[1]
        os.kill(stopped, signal.SIGSTOP)
        try:
            await until(lambda: unit.router.admin("/readyz").status_code == 503)
            named = unit.router.admin("/readyz").json()["failed"]
            assert named == [{"dependency": "workers", "kind": "worker-2"}]
            async with asyncio.timeout(START_SECONDS):
                while (await one.http.get("/readyz")).status_code != 503:
                    pass  # what it found before is told for a second
            assert unit.router.metric("router_messages_accepted_total") == accepted + 6, "as they were counted last"
        finally:
            os.kill(stopped, signal.SIGCONT)
        await until(lambda: unit.router.admin("/readyz").is_success)


async def test_a_worker_that_is_killed_under_load_loses_nothing_and_is_replaced(unit: Unit) -> None:
    """RACES 2, 15, 32: every message that was answered 202 arrives, once, in the order of its sender."""
    router, names = unit.router, [f"sender{number}" for number in range(SENDERS)]
    accepted: dict[str, list[str]] = {name: [] for name in names}
    enough = asyncio.Event()

    async def send(name: str) -> None:
        token = router.token(name)
        while len(accepted[name]) < EACH:
            with suppress(httpx.TransportError):  # it goes on by another connection, as clients do
                async with Person(router.url, token) as person:
                    while len(accepted[name]) < EACH:
                        accepted[name].append(await person.send("bob", len(accepted[name])))
                        if answered() > SENDERS * EACH // 3:
                            enough.set()

    def answered() -> int:
        return sum(map(len, accepted.values()))

    before = unit.workers()
    sending = [asyncio.create_task(send(name)) for name in names]
    await enough.wait()
    seen = router.metric("router_messages_accepted_total")
    os.kill(before[0], signal.SIGKILL)
    left = SENDERS * EACH - answered() - SENDERS  # of each sender one answer may still be on its way
    await asyncio.gather(*sending)
    await until(lambda: unit.workers()[0] != before[0])
    assert unit.workers()[1] == before[1]
    assert router.metric("router_workers_replaced_total") == 1
    assert router.metric("router_messages_accepted_total") >= seen + left, "what was counted stays"
    (line,) = [json.loads(line) for line in router.log().splitlines() if "takes its place" in line]
    told = line["worker"], line["ended_pid"], line["signal"], line["process"]
    assert told == ("worker-1", before[0], "SIGKILL", "parent")
    arrived: list[str] = []
    async with Person(router.url, router.token("bob")) as reader, asyncio.timeout(START_SECONDS):
        while not set().union(*accepted.values()) <= set(arrived):
            if page := await reader.fetch():
                arrived += page
                await reader.acknowledge(page)
    places = {id_: place for place, id_ in enumerate(arrived)}
    assert len(places) == len(arrived)
    for ids in accepted.values():
        assert [places[id_] for id_ in ids] == sorted(places[id_] for id_ in ids)


async def test_all_drain_together(unit: Unit) -> None:
    """RACES 35: sockets of both are closed with 1001 and their mail is moved, in one shutdown with one exit code."""
    pids = unit.workers()
    async with unit.ways("eve") as (eve, _), unit.sockets("fay") as sockets:
        await eve.send("fay", 1)
        for socket in sockets:
            async with asyncio.timeout(START_SECONDS):
                assert await socket.recv() == "{}"
        assert await asyncio.to_thread(stop, unit.process) == Code.OK
        for socket in sockets:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
    assert not any(map(runs, pids))
    queue = json.loads(unit.router.cli("inspect-queue", "fay", "--json"))
    assert ([message["tier"] for message in queue["messages"]], queue["connections"]) == (["cold"], [])
    lines = [json.loads(line) for line in unit.router.log().splitlines()]
    assert [line["process"] for line in lines if line["event"] == "ready"] == ["parent"]
    assert {line["process"] for line in lines if line["event"] == "stopped"} == {"parent", "worker-1", "worker-2"}
    assert all("process" in line for line in lines)


async def test_a_service_whose_parent_is_killed_ends_and_can_be_started_again(tmp_path: Path) -> None:
    """At once, and only once; a worker that cannot start ends it, and says why once."""
    router = Router(tmp_path / "data", SETTINGS)
    same_port = {**SETTINGS, "ROUTER_SERVER__API_PORT": str(router.api_port)}
    with running(router) as unit:
        pids = unit.workers()
        unit.process.kill()
        await asyncio.to_thread(unit.process.wait)
        await until(lambda: not any(map(runs, pids)))
    with running(router) as unit:
        for other, why in (
            (router, "another `router serve`"),
            (Router(tmp_path / "other", same_port), "port is in use"),
        ):
            done = await asyncio.to_thread(other.command, "serve")
            assert (done.returncode, done.stderr.decode().count(why)) == (Code.CONFIG, 1)
        with closing(sqlite3.connect(router.data_dir / "router.db")) as database:
            database.execute("PRAGMA user_version = 99")
        os.kill(unit.workers()[1], signal.SIGKILL)
        assert await asyncio.to_thread(unit.process.wait, STOP_SECONDS) == Code.CONFIG
        assert len(re.findall("^error: .*newer version", router.log(), re.MULTILINE)) == 1
    done = await asyncio.to_thread(router.command, "serve")
    assert (done.returncode, done.stderr.decode().count("newer version")) == (Code.CONFIG, 1)
