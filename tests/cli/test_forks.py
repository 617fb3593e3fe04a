"""A command that was forked (``support/forks.py``) is the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.support import forks


@pytest.mark.parametrize("arguments", [["--version"], ["serv"], ["config", "show"], ["outbox", "--take"]])
def test_a_forked_command_prints_and_returns_what_a_process_does(data_dir: Path, arguments: list[str]) -> None:
    own = environment(data_dir)
    command = [sys.executable, "-m", "router", *arguments]
    real = subprocess.run(command, env=own, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    forked = forks.shared().run(arguments, own)
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_one_that_does_not_end_is_killed(data_dir: Path) -> None:
    own = environment(data_dir, ROUTER_SERVER__API_PORT="0", ROUTER_SERVER__WS_PORT="0", ROUTER_SERVER__ADMIN_PORT="0")
    with pytest.raises(subprocess.TimeoutExpired):
        forks.shared().run(["serve"], own, timeout=0.2)
    assert forks.shared().run(["--version"], own).returncode == os.EX_OK


def test_one_whose_interpreter_is_to_start_otherwise_is_not_forked(data_dir: Path) -> None:
    """Else it would say nothing of what it imports."""
    done = forks.run(["--version"], environment(data_dir, PYTHONVERBOSE="1"))
    assert b"import 'router.cli" in done.stderr
