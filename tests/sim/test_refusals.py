"""The judge of refusals is judged; and the plans with small limits are run."""

from __future__ import annotations

from collections import Counter
from typing import Self

import pytest
from msgspec import structs

from tests.sim import history as h
from tests.sim import plan as plans
from tests.sim.checker import judge
from tests.sim.history import Buried, NotSent
from tests.sim.plan import NO_BOUNDS, SMALL_LIMITS, Bounds, Fault, Plan, make
from tests.sim.run import run
from tests.sim.stores import miscounted
from tests.sim.test_checker import BOB, EVE, Story
from tests.support.seeds import every_promise_holds

TIGHT = range(SMALL_LIMITS[1], 30 * SMALL_LIMITS[0], SMALL_LIMITS[0])
VENDORS_TIGHT = TIGHT[:8]
PLAN = structs.replace(
    make(0), cap=3, bounds=Bounds(queue_bytes=100, inbound_bytes=150, pair_rate=1.0, pair_burst=2), skew=0.0, faults=()
)


class Limited(Story):
    """A story in which messages have sizes, and are refused."""

    def mail(self, tag: str, size: int = 40, user: str = BOB) -> Self:
        op = self.history.op()
        return self.tell(h.Sending(op, user, tag, sender="s", size=size), h.Sent(op, f"i{tag}"))

    def too_many(self, tag: str) -> Self:
        op = self.history.op()
        return self.tell(h.Sending(op, BOB, tag, sender="s", size=40), h.NotSent(op, "429"))

    def full(self, tag: str) -> Self:
        return self.tell(h.Buried(f"i{tag}", "queue-full"))

    def spent(self, tag: str) -> Self:
        return self.tell(h.Buried(f"i{tag}", "inbound-exhausted"))

    def read(self, *tags: str) -> Self:
        return self.get(*tags).ack(*tags)

    def judged(self, plan: Plan = PLAN) -> list[str]:
        return [violation.text for violation in judge(self.history, 10.0, plan=plan)]


RIGHT = {
    "full by bytes": Limited().mail("a").mail("b").mail("c").full("c").end("a", "b"),
    "larger than a queue": Limited().mail("a", 101).full("a").end(),
    "full by messages": Limited().mail("a", 1).mail("b", 1).mail("c", 1).mail("d", 1).full("d").end(*"abc"),
    "spent": Limited().mail("a").mail("b").read("a", "b").mail("c", 71).spent("c").end(),
    "its letter comes after later mail": Limited()
    .mail("a", 90)
    .mail("b")
    .mail("c", 9)
    .get("a", "c")
    .full("b")
    .end(*"ac"),
    "refused, and not heard": Limited().mail("a").mail("b").get("b").tell(h.Refused("ia")).end("b", "a"),
    "counted while it was there": Limited().mail("a").mail("b").mail("c").read("a").full("c").end("b"),
    "too many": Limited().mail("a").mail("b").too_many("c").end("a", "b"),
}
WRONG = {
    "acknowledged mail takes places": (Limited().mail("a", 90).read("a").mail("b").full("b").end(), "b (ib)"),
    "another's mail takes places": (Limited().mail("a", 90, EVE).mail("b").full("b").end(), "b (ib)"),
    "what was refused takes places": (
        Limited().mail("a", 90).mail("b").full("b").read("a").mail("c", 70).full("c").end(),
        "c (ic)",
    ),
    "nothing is spent": (Limited().mail("a").mail("b").spent("b").end("a"), "b (ib)"),
    "not too many": (Limited().mail("a").too_many("b").end("a"), "429 for b"),
    "refused, and here": (Limited().mail("a").mail("b").too_many("c").read(*"abc").end(), "c was refused"),
    "lost": (Limited().mail("a", 90).mail("b").read("a").end(), "b (ib) was answered 202 and is nowhere"),
    "overtaken": (Limited().mail("a", 90).mail("b").get("b").end("a", "b"), "a (ia) is missing"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_judge_accepts_correct_refusals(name: str) -> None:
    assert RIGHT[name].judged() == []


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused_wrongly_is_found(name: str) -> None:
    story, text = WRONG[name]
    assert any(found.startswith(text) for found in story.judged())


def test_no_budget_is_judged_where_clocks_differ() -> None:
    jump = Fault(1.0, "jump", seconds=1.0, size=30.0)
    story, _ = WRONG["nothing is spent"]
    assert story.judged(structs.replace(PLAN, faults=(jump,))) == []


def test_bytes_that_are_counted_wrongly_are_found() -> None:
    counted = {"bob": (10, 20), "eve": (0, 5)}
    hot, cold = [("bob", 4), ("bob", 6)], [("bob", 20), ("eve", 5)]
    assert miscounted(counted, hot, cold, cold_too=True) == []
    told = "the store counts 20 bytes of cold mail of bob, and there are 0"
    assert miscounted(counted, hot, cold[1:], cold_too=True) == [told]
    assert miscounted(counted, hot, [], cold_too=False) == []
    assert miscounted({}, [("bob", 4)], [], cold_too=False) == [
        "the store counts 0 bytes of hot mail of bob, and there are 4"
    ]


def test_small_limits_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else of these plans, nor any other plan, is changed by them."""
    made = [make(seed) for seed in range(100)]
    met: Counter[str] = Counter()
    for seed in TIGHT[:12]:
        events = run(seed).history.events
        met.update({str(event.reason) for event in events if isinstance(event, Buried)})
        met.update({event.why for event in events if isinstance(event, NotSent)})
    assert min(met[reason] for reason in ("queue-full", "inbound-exhausted", "429")) > 1
    monkeypatch.setattr(plans, "SMALL_LIMITS", (1, 1))
    for plan in made:
        loose = make(plan.seed)
        assert loose.bounds == NO_BOUNDS
        assert structs.replace(plan, bounds=NO_BOUNDS, chains=loose.chains) == loose
        if plan.seed not in TIGHT:
            assert plan == loose


@pytest.mark.parametrize("start", range(0, len(TIGHT), 10))
def test_every_promise_holds_with_small_limits(start: int) -> None:
    every_promise_holds("own", TIGHT[start : start + 10])


@pytest.mark.parametrize("seed", VENDORS_TIGHT)
def test_every_promise_holds_with_small_limits_over_vendors(seed: int) -> None:
    every_promise_holds("vendors", [seed])
