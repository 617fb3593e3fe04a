"""Pairs of runs that differ in what a victim does look the same to a stranger; ``make sim`` runs more of them."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from tests.sim.__main__ import main
from tests.sim.history import Buried
from tests.sim.plan import NO_BOUNDS
from tests.sim.worlds import PROMISE, Pair, Stranger, make, run_pair

PAIRS = range(40)


def test_a_stranger_sees_the_same_in_both_worlds() -> None:
    """RACES 49."""
    try:
        for seed in PAIRS:
            found = run_pair(seed).violations
            assert not found, f"again: python -m tests.sim --topology worlds --seed {seed}\n{found[0].text}"
    finally:
        gc.collect()  # runs leave cycles behind, and collect none while they run


def test_pairs_differ_in_what_others_do_and_in_nothing_else() -> None:
    pairs: list[Pair] = [make(seed) for seed in PAIRS]
    assert all(one.plans[0] != one.plans[1] for one in pairs)
    for one, other in (pair.plans for pair in pairs):
        for name in one.__struct_fields__:
            assert name in ("chains", "sessions") or getattr(one, name) == getattr(other, name)
    kinds = {act.kind for pair in pairs for act in pair.program}
    assert kinds == {"send", "own", "acknowledge", "come", "go", "listen", "malformed"}
    assert {pair.plans[0].topology for pair in pairs} == {"one", "file", "apart", "vendors"}


def test_a_victim_is_full_by_bytes_or_has_spent_the_budget() -> None:
    """And no mail of the stranger's own is refused."""
    pairs = [pair for pair in map(make, PAIRS) if pair.plans[1].bounds != NO_BOUNDS]
    refused: Counter[str] = Counter()
    for pair in pairs[:12]:
        events = run_pair(pair.plans[1].seed).history.events
        refused.update({str(event.reason) for event in events if isinstance(event, Buried)})
    assert min(refused[reason] for reason in ("queue-full", "inbound-exhausted")) > 1


def test_what_differs_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As where a world has a victim who sends, and the other has not."""
    see = Stranger._see

    def tell(self: Stranger, what: str, found: object) -> None:
        see(self, what, found if what != "send" else len(self._world.plan.chains))

    monkeypatch.setattr(Stranger, "_see", tell)
    assert main(["--topology", "worlds", "--seeds", "20"]) == 1
    assert f": {PROMISE}: thing " in capsys.readouterr().out
