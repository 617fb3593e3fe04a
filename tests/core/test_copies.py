"""Copies in cold that a pipeline has written, and of which it could not tell the online store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from router.errors import Unavailable
from router.messages import Queued, Settled
from tests.contract.stage import BOB, staged
from tests.support.clock import ManualClock
from tests.support.pipelines import routed, running
from tests.support.stores import Durability, EmbeddedStores

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("durability", ["write-through", "online-store"])
async def test_what_was_acknowledged_during_its_cold_write_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    """RACES 4, 9, 10: the client reads and acknowledges while the write is under way (or on its second try), and its
    deletion finds nothing; then the store cannot be told of the write, and says of the message that it is done."""
    async with staged(EmbeddedStores(tmp_path), ManualClock(), durability=durability) as stage:
        if durability == "write-through":
            await stage.connect()
        put, failed = stage.cold.put, list[str]()

        async def read_first(messages: Sequence[Queued]) -> list[Queued]:
            if durability == "online-store":
                await put(messages)
            assert await stage.ids() == ["m1"]
            await stage.queue.acknowledge(BOB, ["m1"])
            return await put(messages)

        async def fail_once(messages: Sequence[Queued]) -> Settled:
            if not failed:
                failed.append("settle")
                raise Unavailable("simulated")
            return await settle(messages)

        settle = stage.online.settle
        monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: read_first(messages))
        monkeypatch.setattr(type(stage.online), "settle", lambda _, messages: fail_once(messages))
        await stage.producer.publish([stage.message("m1")])
        async with running(stage):
            await routed(stage)
        assert failed
        assert (await stage.ids(), await stage.in_cold()) == ([], [])
