"""``clients/typescript``, compiled and run by Node."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import Guard, MissingServer

PACKAGE = Path(__file__).parents[2] / "clients" / "typescript"
COMPILER = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
OLDEST_NODE = 20
FLAGS = ("--experimental-websocket", "--no-warnings")
"""Before Node 22 only the flag makes WebSocket a global, as it is in browsers."""
SECONDS = 120.0
"""A test that takes so long waits for what doesn't come."""
BROWSER_SECONDS = 300.0
"""Likewise of a test in Chromium, which starts a process for each tab."""


def node() -> str:
    """The program; raises ``MissingServer``."""
    found = shutil.which("node")
    version = run(found, "--version") if found else ""
    if found is None or int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        raise MissingServer(f"Node {OLDEST_NODE}", "install it, with npm")
    return found


def run(*command: str | Path, seconds: float = SECONDS, **variables: str) -> str:
    """What it printed; fails with that if it fails. Whatever it has started ends with it."""
    process = subprocess.Popen(
        command,
        cwd=PACKAGE,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    guard = Guard(process.pid)
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
        pytest.fail(f"it did not end in {seconds:g} s, and printed:\n{printed}")
    finally:
        guard.release()
    assert process.returncode == 0, printed
    return printed


def compile_all() -> None:
    """The package and its tests, by one process at a time; raises ``MissingServer``."""
    program = node()
    if not COMPILER.exists():
        raise MissingServer("the TypeScript compiler", "make clients/typescript/node_modules/.ready")
    with (PACKAGE / "node_modules" / ".compiling").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(program, COMPILER, "-b", "tests")
