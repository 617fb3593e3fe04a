"""The emulator frozen and thawed, killed and started again with nothing in it; time-outs are short here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.backends.firestore.backend import FirestoreBackend
from router.backends.google.calls import Patience
from router.errors import Unavailable
from router.messages import Outcome, Queued
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Stage, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually, routed, running
from tests.support.servers import Server, firestore_emulator
from tests.support.servers import running as started
from tests.support.stores_firestore import FirestoreColdStores, FirestoreStores, use_emulator

pytestmark = pytest.mark.anyio
SHORT = Patience(call=0.4, budget=0.6)
SOON = 2.0
"""Seconds: well more than ``SHORT``, and far less than the core waits."""
BACK = 30.0
"""Seconds within which a server that is back is used again."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An emulator that nobody else needs."""
    with started(firestore_emulator(tmp_path_factory.mktemp("own"))) as server:
        yield server


@pytest.fixture
def server(own: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    use_emulator(own.address, monkeypatch)
    yield own
    own.thaw()


@pytest.fixture
async def beside(anyio_backend: str, server: Server, tmp_path: Path) -> AsyncIterator[Stage]:
    """Cold mail in Firestore, the rest embedded."""
    async with staged(FirestoreColdStores(tmp_path), ManualClock()) as stage:
        yield stage


@pytest.fixture
async def stage(anyio_backend: str, server: Server, tmp_path: Path) -> AsyncIterator[Stage]:
    """Presence, hot and cold mail in Firestore."""
    async with staged(FirestoreStores(tmp_path), ManualClock()) as stage:
        yield stage


async def impatient(stage: Stage) -> None:
    """From here on time-outs are short. A server that has just started is slow, so not from the beginning."""
    (await opened(stage.factory, FirestoreBackend)).client.patience = SHORT


async def answers(stage: Stage) -> None:
    """Wait until the server is used again, by nothing but asking; from here on time-outs are as usual."""
    (await opened(stage.factory, FirestoreBackend)).client.patience = FirestoreBackend.patience
    async with asyncio.timeout(BACK):
        while True:
            try:
                await stage.cold.probe()
            except Unavailable:
                continue
            return


def mail(stage: Stage, id_: str, user: str = BOB) -> Queued:
    stage.clock.time += 1
    return Queued(stage.message(id_, user), stage.clock.now(), stage.clock.now())


async def test_firestore_gives_up_before_the_core_times_out() -> None:
    patience = FirestoreBackend.patience
    assert patience.call + patience.budget < 15


async def test_a_frozen_server_is_unavailable_soon_and_used_again_when_it_thaws(beside: Stage, server: Server) -> None:
    """RACES 11: no call waits for ever, and what it was about is done once."""
    await beside.cold.put([mail(beside, "m1")])
    await impatient(beside)
    server.freeze()
    message = mail(beside, "m2")
    for call in (
        beside.cold.put([message]),
        beside.cold.read(BOB, 10, PAGE_BYTES),
        beside.cold.delete(BOB, ["m1"]),
        beside.cold.totals(None),
    ):
        async with asyncio.timeout(SOON):
            with pytest.raises(Unavailable, match="Firestore"):
                await call
    server.thaw()
    await answers(beside)
    assert await beside.cold.put([message]) == []
    assert await beside.in_cold() in (["m1", "m2"], ["m2"]), "the deletion may have been carried out late"


async def test_a_freeze_under_way_loses_nothing(beside: Stage, server: Server) -> None:
    """RACES 2, 11: the pipeline goes on where it was, in order."""
    async with running(beside):
        for number in range(5):
            await beside.producer.publish([beside.message(f"m{number}")])
        await routed(beside)
        await impatient(beside)
        server.freeze()
        for number in range(5, 10):
            await beside.producer.publish([beside.message(f"m{number}")])
        failures = beside.factory.metrics.registry

        async def failed() -> bool:
            return bool(
                failures.get_sample_value(
                    "router_dependency_failures_total", {"dependency": "cold", "kind": "firestore"}
                )
            )

        await eventually(beside, failed)
        server.thaw()
        await answers(beside)
        await routed(beside)
    assert await beside.ids() == [f"m{number}" for number in range(10)]
    assert sorted(await beside.pushed()) == [f"m{number}" for number in range(10)]


async def test_a_frozen_online_store_holds_mail_back_and_loses_nothing(stage: Stage, server: Server) -> None:
    """RACES 10, 11: with both tiers away the ingress keeps it."""
    await stage.connect()
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])
        await routed(stage)
        await impatient(stage)
        server.freeze()
        for id_ in ("m2", "m3"):
            await stage.producer.publish([stage.message(id_)])
        failures = stage.factory.metrics.registry

        async def failed() -> bool:
            return bool(
                failures.get_sample_value(
                    "router_dependency_failures_total", {"dependency": "cold", "kind": "firestore"}
                )
            )

        await eventually(stage, failed)
        with pytest.raises(Unavailable):
            await stage.ids()
        server.thaw()
        await answers(stage)
        await routed(stage)
        await stage.producer.publish([stage.message("m4")])
        await routed(stage)
    assert await stage.ids() == ["m1", "m2", "m3", "m4"]
    await stage.queue.acknowledge(BOB, ["m1", "m2", "m3", "m4"])
    assert await stage.ids() == await stage.in_cold() == []


async def test_a_server_that_starts_again_empty(stage: Stage, server: Server) -> None:
    """RACES 9, 17: sequences keep rising, connections register again, and mail flows."""
    phone = await stage.connect()
    (before,) = await stage.route(stage.message("m1"))
    await impatient(stage)
    server.stop()
    async with asyncio.timeout(SOON):
        with pytest.raises(Unavailable, match="Firestore"):
            await stage.route(stage.message("m2"))
    await asyncio.to_thread(server.start)
    await answers(stage)
    assert await stage.online.renew([phone]) == [phone]
    stage.clock.time += 1
    await stage.online.connect(phone, 20)
    (after,) = await stage.route(stage.message("m2"))
    assert after.outcome is Outcome.HOT
    assert after.sequence > before.sequence
    assert await stage.ids() == ["m2"]


async def test_one_slow_call_does_not_hold_up_those_that_follow(
    beside: Stage, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 11: several calls are under way, so other recipients go on."""
    client = (await opened(beside.factory, FirestoreBackend)).client
    write, held = client.batch_write, asyncio.Event()

    async def hold_the_first(writes: list[object], seconds: float) -> list[tuple[int, str]]:
        if not held.is_set():
            held.set()
            await asyncio.get_running_loop().create_future()
        return await write(writes, seconds)

    monkeypatch.setattr(client, "batch_write", hold_the_first)
    slow = asyncio.create_task(beside.cold.put([mail(beside, "slow")]))
    await held.wait()
    async with asyncio.timeout(BACK):
        assert await beside.cold.put([mail(beside, "fast", EVE)]) == []
    assert not slow.done()
    slow.cancel()
    await asyncio.wait([slow])


async def test_closing_ends_what_is_under_way(server: Server, tmp_path: Path) -> None:
    """RACES 36: a bounded end, though the server does not answer."""
    async with staged(FirestoreColdStores(tmp_path), ManualClock()) as stage:
        await stage.cold.probe()
        server.freeze()
        writing = asyncio.create_task(stage.cold.put([mail(stage, "m1")]))
        await asyncio.sleep(0)
        async with asyncio.timeout(SOON):
            await (await opened(stage.factory, FirestoreBackend)).__aexit__(None, None, None)
        with pytest.raises(Unavailable):
            await writing
    server.thaw()
