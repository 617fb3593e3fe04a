"""A few seconds of the real thing: what is whole keeps its promises, and what is broken on purpose is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.chaos import report
from tests.chaos.__main__ import main
from tests.chaos.plan import Shape, Target
from tests.chaos.run import Options, run
from tests.chaos.topologies import Cluster, broken, embedded
from tests.support.mutation import Mutant, in_function, replace

BUG = "a repeated Idempotency-Key gets a new id"
UNCHECKED = Mutant(
    "what is damaged is served", in_function("is_whole", replace("message.checksum is None or ...", "True"))
)


@contextmanager
def damaging(folder: Path, more: Mapping[str, str]) -> Iterator[Cluster]:
    """Embedded, where bits flip, and nothing else fails."""
    with embedded(folder, more) as cluster:
        targets = tuple(Target(name, name, ("damage",)) for name in cluster.stored)
        cluster.shapes = [Shape("damage", ("serve",), targets)]
        yield cluster


async def first_violation(cluster: Cluster, options: Options) -> str:
    """What the run tells first; nothing more is waited for."""
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def tell(text: str) -> None:
        if text.startswith("violation: ") and not found.done():
            found.set_result(text)

    running = asyncio.create_task(run(cluster, options, tell))
    ends: set[asyncio.Future[Any]] = {running, found}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert found.done(), "nothing was found"
    return found.result()


def test_embedded_keeps_its_promises(tmp_path: Path) -> None:
    told: list[str] = []
    with embedded(tmp_path, {}) as cluster:
        outcome = uvloop.run(run(cluster, Options(seed=5, seconds=5.0, rate=30.0, gap_seconds=1.0), told.append))
    found = report.make(outcome, "2026-01-02", "")
    assert found.violations == [], told
    assert len(found.faults) >= 3
    assert found.counts.accepted > 0
    assert found.counts.dead_letters == found.counts.damaged_dead_letters


def test_a_broken_router_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_of = ["--minutes", "0.03", "--messages", "150", "--json", str(tmp_path / "run.json")]
    assert main([*run_of, "--mutant", BUG, "--dir", str(tmp_path)]) == 1
    found = report.load(tmp_path / "run.json")
    assert found.broken["one id for life"]
    said = capsys.readouterr()
    assert "has a second id" in said.out
    assert "violation: one id for life" in said.err


def test_what_is_damaged_is_a_dead_letter(tmp_path: Path) -> None:
    """RACES 42: while it runs, and while everybody reads."""
    told: list[str] = []
    with damaging(tmp_path, {}) as cluster:
        found = report.make(
            uvloop.run(run(cluster, Options(seed=5, seconds=8.0, gap_seconds=0.2), told.append)), "", ""
        )
    assert found.violations == [], told
    assert found.counts.damaged >= found.counts.damaged_dead_letters == found.counts.dead_letters > 0


def test_a_router_that_serves_what_is_damaged_is_found_out(tmp_path: Path) -> None:
    with damaging(tmp_path, broken(tmp_path / "code", UNCHECKED)) as cluster:
        told = uvloop.run(first_violation(cluster, Options(seed=5, seconds=40.0, gap_seconds=0.2)))
    assert told.startswith("violation: sealed as sent: ")


def test_what_cannot_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--dir", str(tmp_path / "file")]) == 2
    assert "could not run: " in capsys.readouterr().err
