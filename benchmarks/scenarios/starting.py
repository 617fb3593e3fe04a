"""How long a person waits for ``--help``, and a deploy for a router that is ready."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figures import Figure, at_most
from benchmarks.servers import Bench, Process, router_environment, spawn, wait_until_ready
from tests.support.servers import free_port

NAME = "start"
TIMES = 5


async def run(bench: Bench) -> list[Figure]:
    """Wall time from the start of the process."""
    helped = [_help_seconds(bench) for _ in range(TIMES)]
    first, again = [], []
    for _ in range(TIMES):
        with bench.data_dir(with_key=False) as data:
            first.append(_ready_seconds(data))
            again.append(_ready_seconds(data))
    return [
        Figure(NAME, "router --help", helped, "s", at_most(0.3)),
        Figure(
            NAME, "router serve until ready, the first time", first, "s", at_most(1.0), "makes its key and its file"
        ),
        Figure(NAME, "router serve until ready, later", again, "s", at_most(1.0)),
    ]


def _help_seconds(bench: Bench) -> float:
    with bench.data_dir() as data:
        environment = router_environment(data, free_port())
        started = time.perf_counter()
        command = [sys.executable, "-m", "router", "--help"]
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started


def _ready_seconds(data: Path) -> float:
    port, log = free_port(), data.parent / "log"
    environment = router_environment(data, port)
    started = time.perf_counter()
    process = Process(spawn([sys.executable, "-m", "router", "serve"], environment, log))
    try:
        wait_until_ready(process, port, log)
        return time.perf_counter() - started
    finally:
        process.end(gently=True)
