"""The page of the admin port in a real browser, beside a real service."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from router import __version__
from tests.support.servers import chromium_program
from tests.support.service import Router

SHOWN_MS = 7000
"""Of the page's time: enough for three looks."""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_browser_shows_what_the_service_does(tmp_path: Path, workers: str) -> None:
    chromium = chromium_program()
    router = Router(tmp_path / "data", {"ROUTER_SERVER__WORKERS": workers})
    with router.running():
        for _ in range(3):
            router.cli("send", "--as", "alice", "--to", "bob", "--data", "hello")
        command = [
            str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'browser'}", f"--virtual-time-budget={SHOWN_MS}", "--dump-dom",
            f"http://127.0.0.1:{router.admin_ports['serve']}/",
        ]  # fmt: skip
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    page = shown.stdout
    assert f'<p id="state" role="status" class="fine">serve {__version__}: ready</p>' in page
    assert '<tr><th scope="row">accepted</th><td>0</td><td>3</td></tr>' in page
    assert '<main id="numbers" class="">' in page
    assert "bob" not in page
    assert "CONSOLE" not in shown.stderr, "the policy of the page forbids nothing that it needs"
