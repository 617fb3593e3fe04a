"""What a trace says where Redis has lost keys."""

from __future__ import annotations

import pytest

from router.core.message_story import Cause
from tests.contract.stage import BOB, Stage
from tests.contract.traces import story_of

pytestmark = pytest.mark.anyio


async def test_connections_that_nobody_saw_end_leave_no_wrong_time(stage: Stage) -> None:
    """Redis drops their key if no process renews or sweeps for long. Since when the user is offline is unknown then: it
    is not the end of a connection before."""
    await stage.online.disconnect([await stage.connect()])
    stage.clock.advance(60)
    await stage.connect()
    await stage.online.state.client.run([("DEL", stage.online.state.keys.of(BOB)[1])])  # type: ignore[attr-defined]
    await stage.go("m1")
    holds = (await story_of(stage, "m1")).holds
    assert [hold.since for hold in holds if hold.cause is Cause.OFFLINE] == [0]
