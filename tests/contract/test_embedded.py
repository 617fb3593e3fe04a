"""The embedded backend keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.ingress import IngressContract
from tests.contract.notices import PokeContract, PushContract
from tests.contract.pipeline import PipelineContract
from tests.contract.queues import QueueContract
from tests.support.stores import EmbeddedStores


@pytest.fixture
def stores(tmp_path: Path) -> EmbeddedStores:
    return EmbeddedStores(tmp_path)


class TestEmbeddedQueues(QueueContract):
    """Over one SQLite file, and over two connections to it."""


class TestEmbeddedIngress(IngressContract):
    """A table, and one consumer at a time."""


class TestEmbeddedPush(PushContract):
    """Two tables."""


class TestEmbeddedPokes(PokeContract):
    """Unix datagrams."""


class TestEmbeddedPipeline(PipelineContract):
    """All of it in one file."""
