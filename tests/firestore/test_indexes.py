"""The file of indexes names every field that is written, and serves every query that is made."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from router.backends.firestore import indexes
from router.backends.firestore.client import Client
from router.backends.firestore.wire import Document, Query, Write
from router.config import Cold, Online
from router.messages import Queued
from tests.contract.stage import BOB, EVE, Stage

pytestmark = pytest.mark.anyio
FIELDS = [*indexes.cold_fields(Cold().collection), *indexes.online_fields(Online().collection)]
INDEXED = {(field.collection, field.name, False) for field in FIELDS if field.under_parent}
INDEXED |= {(field.collection, field.name, True) for field in FIELDS if field.everywhere}

Seen = set[tuple[str, str, bool]]


@pytest.fixture
def queried(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """(collection, field, everywhere) of each query."""
    seen: Seen = set()
    query, count = Client.query, Client.count

    async def look(client: Client, parent: str, wanted: Query, seconds: float) -> AsyncGenerator[Document, None]:
        seen.add((wanted.collection, wanted.order, wanted.everywhere))
        async for document in query(client, parent, wanted, seconds):
            yield document

    async def add(client: Client, parent: str, collection: str, total: str, **more: bool) -> tuple[int, int]:
        seen.add((collection, total, more.get("everywhere", False)))
        return await count(client, parent, collection, total, **more)

    monkeypatch.setattr(Client, "query", look)
    monkeypatch.setattr(Client, "count", add)
    return seen


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """(collection, field) of each write."""
    seen: set[tuple[str, str]] = set()

    def record(name: str) -> None:
        call = getattr(Client, name)

        async def look(client: Client, writes: Sequence[Write], seconds: float) -> Any:
            for write in writes:
                seen.update((write.update.name.split("/")[-2], field) for field in write.update.fields)
            return await call(client, writes, seconds)

        monkeypatch.setattr(Client, name, look)

    record("commit")
    record("batch_write")
    return seen


async def live(stage: Stage) -> None:
    """Whatever reads or writes."""
    phone = await stage.connect()
    for user in (BOB, EVE):
        await stage.go(f"mail for {user}", user)
    await stage.go("typing", ephemeral=True)
    await stage.route(stage.message("pending", EVE))
    now = stage.clock.now()
    await stage.cold.put([Queued(stage.message("written in an outage"), now, now, unreported=True)])
    await stage.ids()
    await stage.ids(EVE)
    stage.clock.advance(11)
    await stage.sweeper.sweep()
    await stage.queue.acknowledge(EVE, ["pending"])
    await stage.online.unannounced(BOB, stage.clock.now(), 5)
    await stage.online.online()
    await stage.online.inspect(BOB, 5)
    for tier in (stage.online, stage.cold):
        await tier.totals(None)
        await tier.totals(BOB)
    await stage.cold.oldest(5)
    await stage.online.disconnect([phone])
    await stage.migrator.migrate(BOB)
    stage.clock.advance(61)
    await stage.sweeper.sweep()
    stage.clock.advance(31 * 86_400)
    await stage.sweeper.sweep()


async def test_every_query_has_its_index_and_no_index_is_idle(stage: Stage, queried: Seen) -> None:
    await live(stage)
    assert queried == INDEXED


async def test_no_field_is_indexed_unasked(stage: Stage, written: set[tuple[str, str]]) -> None:
    await live(stage)
    assert written == {(field.collection, field.name) for field in FIELDS}


def test_the_example_is_what_the_code_needs() -> None:
    path = Path(__file__).parents[2] / "examples" / "firestore" / "firestore.indexes.json"
    found = json.loads(path.read_text())
    assert found == indexes.document(FIELDS)
    policies = [entry["collectionGroup"] for entry in found["fieldOverrides"] if entry.get("ttl")]
    assert policies == ["cold-queue-messages", "online-queue-ids"]
