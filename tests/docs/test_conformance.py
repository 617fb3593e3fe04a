"""docs/conformance.md: its examples pass the kit, as a stranger would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from router.conformance.moments import MOMENTS
from tests.conformance.test_flaws import FLAWS

PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
JOBS = "8"
SECONDS = 240.0
"""A run that takes so long waits for what doesn't come."""


def example(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def kit(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "router", "conformance", "--jobs", JOBS, "--json", *command],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def passes(done: subprocess.CompletedProcess[str]) -> None:
    assert done.stdout, done.stderr
    verdicts = json.loads(done.stdout)
    failed = [one for one in verdicts["moments"] if not one["passed"]]
    assert (failed, done.returncode) == ([], 0)
    assert verdicts["passed"] == len(MOMENTS)


def test_the_python_example_passes(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(example("python"))
    passes(kit(tmp_path, "--", sys.executable, "client.py"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "name the command"),
        (("no-such-program",), "there is no program 'no-such-program'"),
        (("--moment", "nowhere", "true"), "there is no moment 'nowhere'"),
        (("--dir", ".", "true"), "exists; name a new folder"),
    ],
)
def test_what_is_wrong_with_the_call_is_said(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = kit(tmp_path, *arguments)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


def test_a_client_that_ends_by_itself_fails_with_its_last_words(tmp_path: Path) -> None:
    """And what it left is kept where one asks for that."""
    shell = shutil.which("sh")
    assert shell
    script = 'echo "no such thing" >&2; exit 3'
    done = kit(tmp_path, "--moment", "bytes", "--moment", "unavailable", "--dir", "seen", "--", shell, "-c", script)
    assert done.returncode == 13
    verdicts = json.loads(done.stdout)["moments"]
    assert [one["seen"] for one in verdicts] == [
        "`send` ended with 3: …no such thing",
        "`receive` ended with 3: …no such thing",
    ]
    assert (tmp_path / "seen" / "bytes" / "stderr.txt").read_text() == "no such thing\n"
    assert (tmp_path / "seen" / "bytes" / "requests.txt").exists()


def test_the_page_counts_the_flaws() -> None:
    assert f"{len(FLAWS) - 1} clients with one flaw each" in PAGE
