"""A probe tells a store that works from one that does not, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from router.config import Config, Embedded
from router.doctor import probes
from router.factory import Factory
from router.findings import Finding, Severity
from router.interfaces import OnlineStore
from router.messages import Delivery, Lane, Message
from tests.support.clock import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def factory(tmp_path: Path, clock: ManualClock, anyio_backend: str) -> AsyncIterator[Factory]:
    async with Factory(Config(embedded=Embedded(data_dir=tmp_path)), clock=clock) as factory:
        yield factory


async def examined(factory: Factory, store: OnlineStore | None = None) -> dict[str, Finding]:
    pokes = await factory.poke_bus()
    findings = probes.online_store(store or await factory.online_store(), pokes, factory.clock)
    return {finding.check: finding async for finding in findings}


async def test_doctor_finds_a_working_online_store_fine(factory: Factory) -> None:
    found = await examined(factory)
    assert {check: f.severity for check, f in found.items()} == {
        "online.step": Severity.FINE,
        "online.pokes": Severity.FINE,
    }
    store = await factory.online_store()
    assert (await store.online()).messages == 0
    assert (await store.totals(None)).messages == 0


class Broken:
    """A store of which one call does nothing."""

    def __init__(self, store: OnlineStore, call: str, answer: object) -> None:
        self._store = store
        self._call = call
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        async def nothing(*_: object) -> object:
            return self._answer

        return nothing if name == self._call else getattr(self._store, name)


@pytest.mark.parametrize(
    ("call", "answer", "words"),
    [
        ("connect", True, "was routed dropped-offline"),
        ("ack", [], "acknowledged is still there"),
        ("disconnect", [], "connection that was removed is still there"),
    ],
)
async def test_doctor_reports_an_online_store_that_answers_wrongly(
    factory: Factory, call: str, answer: object, words: str
) -> None:
    store: Any = Broken(await factory.online_store(), call, answer)
    finding = (await examined(factory, store))["online.step"]
    assert finding.severity is Severity.ERROR
    assert words in finding.found


async def test_a_store_that_is_too_slow_is_not_taken_for_a_broken_one(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of the probe ran out while it was waited for."""
    monkeypatch.setattr(probes, "SLOW_SECONDS", 0.0)
    store: Any = Broken(await factory.online_store(), "connect", True)
    finding = (await examined(factory, store))["online.step"]
    assert "may have expired" in finding.found
    assert finding.fix == probes.SLOW_FIX


async def test_pokes_that_do_not_arrive(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "POKE_SECONDS", 0.1)
    monkeypatch.setattr(probes, "POKE_AGAIN_SECONDS", 0.02)
    bus: Any = await factory.poke_bus()

    async def lost(_: Sequence[tuple[str, str]]) -> None:
        return

    monkeypatch.setattr(type(bus), "publish", lambda self, pokes: lost(pokes))
    assert (await examined(factory))["online.pokes"].severity is Severity.ERROR


async def test_a_probe_that_dies_is_neither_moved_nor_announced(factory: Factory, clock: ManualClock) -> None:
    """Whatever is left of it is dropped by the rules for ephemeral messages."""
    message = probes.probe_message(probes.probe_user(), clock.now(), ephemeral=True)
    store, cold = await factory.online_store(), await factory.cold_queue()
    examination = probes.online_store(store, await factory.poke_bus(), clock)
    await anext(examination)
    await store.route([Delivery(message, 0, 1)])
    clock.advance(3600)
    await (await factory.sweeper()).sweep()
    assert (await cold.totals(None)).messages == 0
    assert await (await factory.outbox()).list(0, 10) == []
    assert [finding.check async for finding in examination] == ["online.pokes"]


async def test_a_cold_queue_that_works_and_one_that_does_not(factory: Factory) -> None:
    cold = await factory.cold_queue()
    (finding,) = [finding async for finding in probes.cold_queue(cold, factory.clock)]
    assert finding.severity is Severity.FINE
    assert (await cold.totals(None)).messages == 0
    for call, answer, words in (("put", [], "0 documents were read"), ("delete", None, "still there")):
        broken: Any = Broken(cold, call, answer)  # type: ignore[arg-type]  # it wraps any component
        (finding,) = [finding async for finding in probes.cold_queue(broken, factory.clock)]
        assert finding.severity is Severity.ERROR
        assert words in finding.found


@pytest.mark.usefixtures("piped")
async def test_a_backlog_that_nobody_works_on(factory: Factory, clock: ManualClock) -> None:
    producer = await factory.ingress_producer()
    assert (await probes.ingress(producer, clock)).severity is Severity.FINE
    await producer.publish(
        [Message("id", "urn:sm:user:bob", b"{}", Lane.NORMAL, ephemeral=False, accepted_at=clock.now())]
    )
    clock.advance(30)
    assert (await probes.ingress(producer, clock)).severity is Severity.FINE
    clock.advance(300)
    finding = await probes.ingress(producer, clock)
    assert finding.severity is Severity.WARNING
    assert "router process" in finding.fix
