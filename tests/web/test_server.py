"""A port that is opened and closed in our order."""

from __future__ import annotations

import pytest

from tests.support.servers import answers
from tests.web.conftest import Web

pytestmark = pytest.mark.anyio


async def test_one_that_is_told_to_stop_before_it_serves(web: Web) -> None:
    """RACES 35: SIGTERM comes in the moment between listening and serving."""
    async with web.serve() as server:
        server.stop_listening()
    assert not answers(server.port)
