"""A thousand tabs of Chromium that are killed in the middle of draining."""

from __future__ import annotations

from pathlib import Path

from tests.clients.chromium import run_in_chromium

KILLS = 1000
SECONDS = 1800.0
"""Each tab is a process of its own, which takes a quarter of a second of a core to start."""


def test_a_thousand_tabs_lose_nothing_and_repeat_nothing(built: None, tmp_path: Path) -> None:
    """At any moment of an exchange and of saving; what a tab has acknowledged never comes again."""
    run_in_chromium("tabs", tmp_path, seconds=SECONDS, KILLS=str(KILLS), SEED="1")
