"""The model of the protocol keeps every promise within small bounds, and each of its bugs breaks the one it should."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.proof.spin import BUGS, MISSING, MODEL, QUICK, SLOW, breaks, check, endless

# Also in CI a skip, where the checker cannot be installed: .ci/run tries.
checker = pytest.mark.skipif(
    shutil.which("spin") is None or not (shutil.which("cc") or shutil.which("gcc")), reason=MISSING
)


@checker
@pytest.mark.parametrize("name", QUICK)
def test_every_promise_is_kept(name: str) -> None:
    checked = check(QUICK[name])
    assert checked.broken is None
    assert checked.states > 10_000, "it looked at next to nothing"


@checker
@pytest.mark.parametrize("name", QUICK)
def test_every_run_ends(name: str) -> None:
    """So nothing is stuck, without any fairness."""
    assert not endless(QUICK[name])


@checker
@pytest.mark.parametrize("bug", sorted(BUGS.keys() - SLOW))
def test_a_bug_breaks_its_promise(bug: str) -> None:
    assert breaks(bug) == BUGS[bug][1]


def test_every_switch_of_the_model_is_listed() -> None:
    assert set(re.findall(r"\bBUG_(\w+)", MODEL.read_text())) == set(BUGS)


def test_the_promises_bear_the_names_of_the_history_checker() -> None:
    """docs/specification.md#promises, as ``tests/sim/checker.py`` names it."""
    judge = (MODEL.parents[2] / "tests/sim/checker.py").read_text()
    named = set(re.findall(r"promise\(([a-z ]+),", MODEL.read_text())) - {"name"}
    assert len(named) == 7
    assert all(f'"{name}"' in judge for name in named)
