"""The real embedded components on a clock in hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.config import Config, Embedded
from router.factory import Factory
from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Stage]:
    del anyio_backend
    clock = ManualClock()
    async with staged(Factory(Config(embedded=Embedded(data_dir=tmp_path)), clock=clock), clock) as opened:
        yield opened
