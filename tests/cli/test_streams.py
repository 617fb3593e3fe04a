"""Standard streams that are closed, full, read by nobody, or cannot hold every letter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from router.cli.exits import Code
from tests.cli.conftest import environment
from tests.support.service import Router, redirected, stop

PRINTING = (["--help"], ["--version"], ["send", "--help"], ["token", "bob"], ["inspect-queue", "--json"])
by_command = pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)


def run(data_dir: Path, redirections: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = redirected(redirections, *arguments)
    return subprocess.run(
        command, env=environment(data_dir, **environ), capture_output=True, text=True, timeout=60, check=False
    )


@by_command
def test_a_closed_stdout_is_told(data_dir: Path, arguments: list[str]) -> None:
    ended = run(data_dir, ">&-", *arguments)
    assert ended.returncode == Code.IO
    assert ended.stderr == "error: cannot write to standard output: Bad file descriptor\n"


def test_a_closed_stdin_is_told(data_dir: Path) -> None:
    ended = run(data_dir, "<&-", "send", "--as", "alice", "-")
    assert ended.returncode == Code.IO
    assert ended.stderr == "error: cannot use standard input: Bad file descriptor\n"


def test_with_a_closed_stderr_all_works_in_silence(data_dir: Path) -> None:
    assert run(data_dir, "2>&-", "token", "bob").stdout.count(".") == 2
    assert run(data_dir, "2>&-", "token", "bob", "--nope").returncode == Code.USAGE
    assert run(data_dir, "2>/dev/full", "token", "bob", "--nope").returncode == Code.USAGE


@pytest.mark.parametrize("redirections", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_socket_or_database_gets_the_place_of_a_closed_stream(tmp_path: Path, redirections: str) -> None:
    router = Router(tmp_path / "data")
    process = router.start(redirections=redirections)
    try:
        held = {number: Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in range(3)}
        assert stop(process) == Code.OK
    finally:
        process.kill()
        process.wait()
    closed = [number for number, word in enumerate(("<&-", ">&-", "2>&-")) if word in redirections.split()]
    assert [held[number] for number in closed] == [Path(os.devnull)] * len(closed)


@by_command
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stdout_is_told(data_dir: Path, arguments: list[str], unbuffered: str) -> None:
    ended = run(data_dir, ">/dev/full", *arguments, PYTHONUNBUFFERED=unbuffered)
    assert ended.returncode == Code.IO
    assert ended.stderr == "error: cannot write to standard output: No space left on device\n"


@by_command
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_never_was_is_no_error(data_dir: Path, arguments: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "router", *arguments],
            env=environment(data_dir, PYTHONUNBUFFERED=unbuffered),
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (Code.BROKEN_PIPE, b"")
