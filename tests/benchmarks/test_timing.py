"""The scenario of timing runs against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.arrivals import STATES
from benchmarks.scenarios import timing
from benchmarks.servers import Bench


@pytest.mark.anyio
async def test_each_state_of_a_recipient_has_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("SENDS", 6), ("BURSTS", 3), ("PROBES", 1)):
        monkeypatch.setattr(timing, name, count)
    figures = await timing.run(Bench(tmp_path, quick=False, rounds=1))
    states = ("somebody who reads", "somebody silent", "somebody offline")
    sent = [f"{what} to {who}, p50" for what in ("a send", "40 pipelined sends") for who in states]
    own = [f"own mail to somebody {mine}, beside somebody {other}, p50" for mine in STATES for other in STATES]
    assert [figure.what for figure in figures] == sent + own
    assert all(figure.value > 0 for figure in figures)
