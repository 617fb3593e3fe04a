"""``.ci/run`` checks the commit, in a folder of its own, and says how that went."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
MAKE = """#!/bin/sh
echo "make $* in $PWD with $(ls | tr '\\n' ' ')and CI=$CI"
[ "$*" != "$FAILS" ]
"""
GIT = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgSign=false")
TARGETS = ["lint", "check", "test", "proof", "test-lowest"]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is missing: .ci/run checks a commit of it")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of ``.ci/run`` and one committed file, with another file beside it that was never committed."""
    made = tmp_path / "checkout"
    shutil.copytree(ROOT / ".ci", made / ".ci")
    (made / "committed").touch()
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "Everything there is")):
        subprocess.run([*GIT, *command], cwd=made, check=True, timeout=SECONDS)
    (made / "uncommitted").touch()
    (made.parent / "beside").touch()
    return made


def run(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``.ci/run`` with a ``make`` that tells where it was called, and nothing to install."""
    programs, temporary = checkout.parent / "programs", checkout.parent / "temporary"
    temporary.mkdir()
    programs.mkdir()
    for name, text in {"make": MAKE, "apt-get": "#!/bin/sh\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    git = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        [checkout / ".ci" / "run"],
        env={**os.environ, **git, "PATH": path, "TMPDIR": str(temporary), **environment},
        cwd=checkout.parent,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert list(temporary.iterdir()) == [], "it cleans up behind itself"
    return done


@pytest.mark.parametrize("environment", [{}, {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}], ids=["own", "another's"])
def test_it_checks_what_is_committed_in_an_empty_folder(checkout: Path, environment: dict[str, str]) -> None:
    """Also where the checkout is another user's, which git refuses."""
    done = run(checkout, FAILS="", **environment)
    assert done.returncode == 0, done.stderr
    first, *calls = done.stdout.splitlines()
    _, _, folder = first.partition(" Everything there is in ")
    assert Path(folder).parent == checkout.parent / "temporary"
    assert calls == [f"make {target} in {folder} with committed and CI=true" for target in TARGETS]


@pytest.mark.parametrize("target", TARGETS)
def test_what_fails_fails_it(checkout: Path, target: str) -> None:
    done = run(checkout, FAILS=target)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1].startswith(f"make {target} ")


def test_what_one_target_leaves_out_the_other_runs() -> None:
    """So that ``.ci/run`` runs every test."""
    told = subprocess.run(
        ["make", "-n", "test", "proof"], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    lines = [line.split() for line in told.stdout.splitlines() if " -m pytest " in line]
    assert not any({"-k", "-m", "--deselect"} & set(line[line.index("pytest") :]) for line in lines)
    test, proof = ({word for word in line if "tests/" in word} for line in lines)
    assert test == {f"--ignore={path}" for path in proof}
    assert all((ROOT / path).exists() for path in proof)


def test_the_files_that_come_first_are_there() -> None:
    assert all((ROOT / "tests" / path).exists() for path in LONGEST)


def test_where_there_is_no_commit_it_says_what_to_run_instead(checkout: Path) -> None:
    """A repository further up has other files: they must not be checked in place of these."""
    inner = checkout / "unpacked"
    shutil.copytree(ROOT / ".ci", inner / ".ci")
    done = subprocess.run([inner / ".ci" / "run"], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (64, "")
    assert "make lint check test proof" in done.stderr
