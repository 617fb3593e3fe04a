"""A fixed budget of simulated runs, and every seed that ever found something (``seeds.txt``)."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from tests.sim.__main__ import main
from tests.sim.history import Fetched
from tests.sim.plan import Chain, Session, Step, day, make
from tests.sim.run import Verdict, known_seeds, run
from tests.support.seeds import every_promise_holds

BUDGET = 250
GROUP = 25
SEEDS = Path(__file__).with_name("seeds.txt")


@pytest.mark.parametrize("start", range(0, BUDGET, GROUP))
def test_every_promise_holds(start: int) -> None:
    every_promise_holds("own", range(start, start + GROUP))


@pytest.mark.parametrize("seed", known_seeds(SEEDS))
def test_what_once_failed_holds(seed: int) -> None:
    every_promise_holds("own", [seed])


@pytest.mark.parametrize("seed", range(2))
def test_every_promise_holds_for_hours(seed: int) -> None:
    """The spans of the default configuration; ``make sim-day`` runs a whole day."""
    verdict = run(day(seed, hours=1.0))
    assert verdict.violations == []
    assert verdict.seconds > 3500
    assert verdict.requests > 100


def test_a_day_is_longer_than_mail_is_kept() -> None:
    """What nobody fetches for longer than its retention is gone, and the judge does not ask for it."""
    plan = day(0, hours=7.0)
    steps = (Step("old", 11), Step("young", 11, wait=6.5 * 3600))
    chain, kept = Chain(10.0, 0, steps), Session(6.9 * 3600, 11, 0, 60.0, "close", 50)
    plan = structs.replace(plan, topology="file", chains=(chain,), sessions=(kept,), faults=(), calls=(), net=())
    verdict = run(plan)
    assert verdict.violations == []
    batches = [event.batch for event in verdict.history.events if isinstance(event, Fetched) and event.batch]
    assert [[item.tag for item in batch] for batch in batches] == [["young"]]


def test_many_seeds_are_shared_among_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "4", "--jobs", "2"]) == 0
    assert capsys.readouterr().out.startswith("4 seeds: ")


def test_an_interrupt_ends_it_in_silence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(plan: object) -> Verdict:
        raise KeyboardInterrupt

    monkeypatch.setattr("tests.sim.__main__.run", interrupted)
    assert (main(["--seeds", "1"]), capsys.readouterr()) == (130, ("", ""))


def test_equal_plans_run_equally() -> None:
    for seed in (5, 17):
        first, other, second = run(seed), run(seed + 1), run(make(seed))
        assert (first.history.events, first.history.times) == (second.history.events, second.history.times)
        assert other.history.events != first.history.events


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--jobs", "0"]])
def test_no_seeds_and_no_processes_are_mistakes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "must be 1 or more, not 0" in capsys.readouterr().err
