"""A few seconds of the real thing: what is whole keeps its promises, and what is broken on purpose is found out."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from tests.chaos import report
from tests.chaos.__main__ import main
from tests.chaos.run import Options, run
from tests.chaos.topologies import embedded

BUG = "a repeated Idempotency-Key gets a new id"


def test_embedded_keeps_its_promises(tmp_path: Path) -> None:
    told: list[str] = []
    with embedded(tmp_path, {}) as cluster:
        outcome = uvloop.run(run(cluster, Options(seed=5, seconds=5.0, rate=30.0, gap_seconds=1.0), told.append))
    found = report.make(outcome, "2026-01-02", "")
    assert found.violations == [], told
    assert len(found.faults) >= 3
    assert found.counts.accepted > 0
    assert found.counts.dead_letters == 0


def test_a_broken_router_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--minutes", "0.03", "--mutant", BUG, "--dir", str(tmp_path), "--json", str(tmp_path / "run.json")]
    assert main(options) == 1
    found = report.load(tmp_path / "run.json")
    assert found.broken["one id for life"]
    said = capsys.readouterr()
    assert "has a second id" in said.out
    assert "violation: one id for life" in said.err


def test_what_cannot_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--dir", str(tmp_path / "file")]) == 2
    assert "could not run: " in capsys.readouterr().err
