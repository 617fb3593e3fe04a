"""Servers that the tests start do not outlive the tests."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.servers import READY_SECONDS, STOP_SECONDS, Server, answers

ROOT = Path(__file__).parents[2]
WAITING = """
import signal, pathlib

def test_that_waits({server}):
    pathlib.Path({told!r}).write_text(f"{{{server}.port}}\\n")
    signal.pause()
"""


@pytest.mark.parametrize(
    ("server", "how"), [("redis", signal.SIGTERM), ("redis", signal.SIGKILL), ("firestore", signal.SIGKILL)]
)
def test_a_server_ends_with_the_tests(
    tmp_path: Path, server: str, how: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """Whether they are told to end, and end it, or are killed; also in the background of a shell."""
    assert isinstance(request.getfixturevalue(server), Server), "there is such a server; else this test is skipped"
    told = tmp_path / "port"
    (tmp_path / "test_waiting.py").write_text(WAITING.format(server=server, told=str(told)))
    plugins = ("-p", "anyio", "-p", "tests.conftest")  # the later one's fixtures are taken
    background = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")
    command = [*background, sys.executable, "-m", "pytest", "-q", *plugins, "--basetemp", str(tmp_path / "base")]
    waiting = subprocess.Popen(
        [*command, str(tmp_path / "test_waiting.py")], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + READY_SECONDS
        while not (told.exists() and told.read_text().endswith("\n")):
            assert waiting.poll() is None, "it has ended"
            assert time.monotonic() < until, "it does not come to wait"
            time.sleep(0.02)
        port = int(told.read_text())
        assert answers(port)
        waiting.send_signal(how)
        assert waiting.wait(STOP_SECONDS) == (pytest.ExitCode.INTERRUPTED if how == signal.SIGTERM else -how)
    finally:
        waiting.kill()
        waiting.wait()
    until = time.monotonic() + STOP_SECONDS
    while answers(port):
        assert time.monotonic() < until, "the server is still there"
        time.sleep(0.02)
