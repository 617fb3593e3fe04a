"""A fixed budget of simulated runs, and every seed that ever found something (``seeds.txt``)."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from msgspec import structs

from router.backends.composed import ComposedOnlineStore
from router.core.challenges import WAIT_SECONDS
from router.errors import Unavailable
from router.interfaces import OnlineStore
from tests.sim.__main__ import main
from tests.sim.history import Connected, Fetched
from tests.sim.links import CALLS, Local
from tests.sim.plan import LONG_JUMPS, Chain, Fault, Session, Step, Topology, day, make
from tests.sim.run import Verdict, known_seeds, run
from tests.support.seeds import every_promise_holds

BUDGET = 250
GROUP = 25
LONG = range(256 + LONG_JUMPS[1], 656, LONG_JUMPS[0])
SEEDS = Path(__file__).with_name("seeds.txt")


@pytest.mark.parametrize("start", range(0, BUDGET, GROUP))
def test_every_promise_holds(start: int) -> None:
    every_promise_holds("own", range(start, start + GROUP))


@pytest.mark.parametrize("seed", known_seeds(SEEDS))
def test_what_once_failed_holds(seed: int) -> None:
    every_promise_holds("own", [seed])


@pytest.mark.parametrize("seed", [seed for seed in LONG if any(fault.seconds > 60 for fault in make(seed).faults)])
def test_every_promise_holds_with_a_clock_that_is_far_off_for_minutes(seed: int) -> None:
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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("topology", ["one", "file", "apart"])
def test_who_comes_back_on_a_new_network_is_not_shut_out(topology: Topology, seed: int) -> None:
    """RACES 51: one connection a user; each time the old socket is half open, or its process has died. Leases, and the
    ends of half-open sockets, take longer than the device waits."""
    nodes = ("api ws process",) if topology == "one" else ("api process", "ws", "ws")
    sessions = tuple(Session(1.0 + 6.0 * n, 0, n, 5.6, "vanish", 50) for n in range(4))
    chain = Chain(0.5, 0, tuple(Step(f"{n}", 0, wait=0.9) for n in range(24)))
    crashes = tuple(Fault(at, "crash", target=seed % len(nodes)) for at in (12.8, 18.8))
    plan = structs.replace(
        make(seed), topology=topology, nodes=nodes, connections=1, users=1, chains=(chain,), sessions=sessions,
        faults=crashes if seed % 2 else (), calls=(), net=(), latency=0.002, skew=0.0, lost_pokes=0.0, poison=0,
    )  # fmt: skip
    verdict = run(plan)
    assert verdict.violations == []
    events = zip(verdict.history.events, verdict.history.times, strict=True)
    entered = {event.device: at for event, at in events if isinstance(event, Connected)}
    waited = [entered.get(f"u0/d{session.device}", 99.0) - session.at for session in sessions]
    assert max(waited) < WAIT_SECONDS + 1


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


@pytest.mark.anyio
async def test_every_call_of_a_store_can_fail() -> None:
    """Also of one that is composed of parts: a call that goes past the weather is one whose failure nobody tries."""
    weather = mock.Mock(calls=0)
    weather.fault.return_value = "refused"
    local = Local(ComposedOnlineStore(*[mock.AsyncMock()] * 5), "online", weather)
    for name in CALLS & set(dir(OnlineStore)):
        with pytest.raises(Unavailable):
            await getattr(local, name)()
    assert weather.calls > 20


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--jobs", "0"]])
def test_no_seeds_and_no_processes_are_mistakes(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "must be 1 or more, not 0" in capsys.readouterr().err
