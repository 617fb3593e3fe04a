"""The real embedded components on a clock in hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Stage]:
    del anyio_backend
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _piped(piped: None) -> None:
    """The pipeline routes, as where a message passes more than one file."""
