"""The embedded backend keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.messages import Connection
from tests.contract.queues import QueueContract
from tests.contract.stage import BOB, Stage
from tests.support.stores import EmbeddedStores


@pytest.fixture
def stores(tmp_path: Path) -> EmbeddedStores:
    return EmbeddedStores(tmp_path)


class TestEmbeddedQueues(QueueContract):
    """Over one SQLite file, and over two connections to it."""

    @pytest.mark.anyio
    async def test_no_mail_waits_for_a_user_of_whom_nothing_is_known(self, stage: Stage) -> None:
        """Hot and cold are in one file, so what it does not know is not there."""
        assert not await stage.online.connect(Connection(BOB, "c1", "node", 0), 9)
