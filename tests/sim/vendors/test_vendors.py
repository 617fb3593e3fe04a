"""A fixed budget of runs over the vendors' stores, and every seed of them that ever found something (``seeds.txt``)."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest

from tests.sim import history as h
from tests.sim.run import known_seeds, run
from tests.sim.vendors.plan import FLIPS, make
from tests.sim.vendors.world import VendorWorld
from tests.support.seeds import every_promise_holds

BUDGET = 40
GROUP = 10
SEEDS = Path(__file__).with_name("seeds.txt")


@pytest.mark.parametrize("start", range(0, BUDGET, GROUP))
def test_every_promise_holds(start: int) -> None:
    every_promise_holds("vendors", range(start, start + GROUP))


FLIPPED = range(FLIPS[1], 8 * FLIPS[0], FLIPS[0])


@pytest.mark.parametrize("seed", FLIPPED)
def test_every_promise_holds_with_bits_that_flip(seed: int) -> None:
    every_promise_holds("vendors", [seed])


def test_bits_flip_in_what_each_tier_holds() -> None:
    """And it is told: a damaged copy is a dead letter, or another copy is served."""
    events = [event for seed in FLIPPED for event in run(make(seed)).history.events]
    flips = {event.who for event in events if isinstance(event, h.Note) and "a bit flips in" in event.text}
    assert flips == {"online", "cold"}
    assert any(isinstance(event, h.Buried) and event.reason == "damaged" for event in events)


@pytest.mark.parametrize("seed", known_seeds(SEEDS))
def test_what_once_failed_holds(seed: int) -> None:
    every_promise_holds("vendors", [seed])


def test_equal_plans_run_equally() -> None:
    for seed in (4, 2):
        first, second = run(make(seed)), run(make(seed))
        assert first.plan.vendors.online == ("redis" if seed == 4 else "firestore")
        assert (first.history.events, first.history.times) == (second.history.events, second.history.times)


@pytest.mark.parametrize("seed", [7, 2])
def test_the_real_backends_do_the_work(seed: int) -> None:
    """What a run is about has gone through each server: it is no run over nothing."""
    world = VendorWorld(make(seed))
    calls = [(world.pubsub, "call"), (world.firestore, "call"), (world.redis, "ask")]
    with ExitStack() as stack:
        asked = {
            type(server).__name__: stack.enter_context(mock.patch.object(server, name, wraps=getattr(server, name)))
            for server, name in calls
        }
        history = world.run()
    assert any(isinstance(event, h.Acked) for event in history.events)
    wanted = {"PubSub", "Firestore", *(["Redis"] if world.plan.vendors.online == "redis" else [])}
    assert {name for name, each in asked.items() if each.call_count > 50} == wanted
