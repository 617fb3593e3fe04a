"""What CONTRIBUTING.md and README.md tell a newcomer to run is there."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec

import pytest

from tests.support.repository import ROOT

PAGES = ("CONTRIBUTING.md", "README.md")
_COMMANDS = re.compile(r"`([^`\n]+)`|^(?:```sh\n)?((?:make|\.venv/bin/).*)$", re.MULTILINE)


def commands(page: str) -> list[str]:
    """Lines of examples, without their comments, and code in the text."""
    return [(code or line).partition("#")[0].strip() for code, line in _COMMANDS.findall((ROOT / page).read_text())]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES)
def test_what_make_is_told_to_make(page: str) -> None:
    named = {
        word for line in commands(page) if line.startswith("make ") for word in line.split()[1:] if "=" not in word
    }
    assert named
    assert named <= targets()


@pytest.mark.parametrize("page", PAGES)
def test_files_folders_and_modules_are_there(page: str) -> None:
    for line in commands(page):
        for word in line.split():
            path, _, _ = word.partition("::")
            if re.fullmatch(r"(?:router|tests|tools|benchmarks|docs|examples|\.ci)(?:/[\w.-]+)+", path):
                assert (ROOT / path).exists(), word
        for module in re.findall(r"-m ((?:tests|tools)[\w.]*)", line):
            assert find_spec(module), module


def test_all_that_ci_runs_is_told() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    told = {line for line in commands("CONTRIBUTING.md") if line.startswith("make ")}
    assert set(re.findall(r"^make \w+$", run.read_text(), re.MULTILINE)) <= told
