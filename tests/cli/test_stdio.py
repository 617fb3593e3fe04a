"""Standard streams that are closed, full, read by nobody, or cannot hold every letter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from router.backends.embedded.schema import prepare
from router.cli.exits import Code
from tests.cli.conftest import environment
from tests.support.service import Router, redirected, stop

PRINTING = (["--help"], ["--version"], ["send", "--help"], ["token", "bob"], ["config", "show"])
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


ASCII = {"PYTHONIOENCODING": "ascii"}
BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = "ü☃\N{PILE OF POO}"


def test_what_the_locale_cannot_show_is_escaped(data_dir: Path) -> None:
    prepare(data_dir)
    shown = run(data_dir, "", "inspect-queue", NAMES, **ASCII)
    assert shown.returncode == Code.OK
    assert shown.stdout.startswith(r"Connections of urn:sm:user:\xfc\u2603\U0001f4a9: offline")


def test_a_file_of_names_in_the_barest_locale(data_dir: Path, tmp_path: Path) -> None:
    """Python lets any byte pass there, and no letter."""
    file = tmp_path / "r.toml"
    file.write_text('[cold]\ncollection = "ü"\n', encoding="utf-8")
    shown = run(data_dir, "", "--config", str(file), "config", "show", **BARE)
    assert (shown.returncode, shown.stderr) == (Code.OK, "")
    assert r" \xfc " in shown.stdout


@pytest.mark.parametrize("environ", [ASCII, {}], ids=["ascii", "as it is"])
def test_what_programs_read_is_the_same_in_every_locale(data_dir: Path, environ: dict[str, str]) -> None:
    name = {"ROUTER_COLD__COLLECTION": NAMES}
    as_json = run(data_dir, "", "config", "show", "--json", **environ, **name).stdout
    as_toml = run(data_dir, "", "config", "show", "--toml", **environ, **name).stdout
    assert as_json.isascii()
    assert as_toml.isascii()
    assert json.loads(as_json)["sections"]["cold"]["collection"]["value"] == NAMES
    assert tomllib.loads(as_toml)["cold"]["collection"] == NAMES


@pytest.mark.parametrize("command", ["config show", "setup", "doctor"])
def test_a_folder_whose_name_is_no_text_is_shown(data_dir: Path, command: str) -> None:
    odd = str(data_dir / "e\udcff")
    shown = run(data_dir, "", *command.split(), "--json", ROUTER_EMBEDDED__DATA_DIR=odd)
    assert (shown.returncode, shown.stderr) == (Code.OK, "")
    assert rf"{data_dir}/e\udcff" in json.dumps(json.loads(shown.stdout)).replace(r"\\", "\\")
