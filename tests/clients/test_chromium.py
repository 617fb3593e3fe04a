"""The TypeScript client and its stores in Chromium."""

from __future__ import annotations

from pathlib import Path

from tests.clients.chromium import run_in_chromium
from tests.support.node import BROWSER_SECONDS


def test_it_works_in_a_page_of_another_origin(built: None, tmp_path: Path) -> None:
    """Its own fetch, WebSocket and IndexedDB; in two tabs at once, and without a network for a while."""
    run_in_chromium("stores", tmp_path, seconds=BROWSER_SECONDS)


def test_tabs_that_are_killed(built: None, tmp_path: Path) -> None:
    """At any moment of draining and sending: nothing is lost, and nothing comes twice."""
    run_in_chromium("tabs", tmp_path, seconds=BROWSER_SECONDS, KILLS="20", SEED="4711")
