"""The embedded backend keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.backends.embedded.backend import EmbeddedBackend
from router.messages import Connection
from tests.contract.damage import DamageContract
from tests.contract.ingress import IngressContract
from tests.contract.notices import PokeContract, PushContract
from tests.contract.pipeline import PipelineContract
from tests.contract.queues import QueueContract
from tests.contract.records import RecordContract
from tests.contract.stage import BOB, Stage
from tests.support.stores import EmbeddedStores


@pytest.fixture
def stores(tmp_path: Path) -> EmbeddedStores:
    return EmbeddedStores(tmp_path)


class Piped:
    """What is accepted waits in the ingress for a pipeline, as where push commands go elsewhere."""

    @pytest.fixture(autouse=True)
    def piped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(EmbeddedBackend, "direct", property(lambda _: False))


class TestEmbeddedQueues(QueueContract):
    """Over one SQLite file, and over two connections to it."""

    async def test_nothing_waits_for_a_user_who_was_never_seen(self, stage: Stage) -> None:
        """Cold is in the same file, so nobody needs to read it to know."""
        assert not await stage.online.connect(Connection(BOB, "c1", "node", 0), 9)


class TestEmbeddedPipedQueues(Piped, QueueContract):
    """Over one SQLite file, by steps that others may come between."""


class TestEmbeddedIngress(Piped, IngressContract):
    """A table, and one consumer at a time."""


class TestEmbeddedPush(PushContract):
    """Two tables."""


class TestEmbeddedPokes(PokeContract):
    """Unix datagrams."""


class TestEmbeddedPipeline(Piped, PipelineContract):
    """All of it in one file."""


class TestEmbeddedDamage(DamageContract):
    """In one file."""


class TestEmbeddedPipedDamage(Piped, DamageContract):
    """In one file, by steps that others may come between."""


class TestEmbeddedRecords(Piped, RecordContract):
    """In a table of the file."""
