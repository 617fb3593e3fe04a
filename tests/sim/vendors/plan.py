"""The plans of runs over the vendors' stores; their seeds are others than those of ``tests/sim/plan.py``."""

from __future__ import annotations

import random

from msgspec import structs

from tests.sim import plan as plans
from tests.sim.plan import CALL_FAULTS, NET_FAULTS, SKEW_SECONDS, Fault, Plan, Vendors

FLIPS = 11, 10
"""Seeds that leave the second when they are divided by the first; of those in ``seeds.txt``, none did."""

BATCHES = 18, (6, 10, 11, 17)
"""Likewise, those in whose plans senders send several messages in one request."""


def make(seed: int) -> Plan:
    """The plan of ``seed``; about 200 requests of clients in all."""
    chance = random.Random(f"vendors {seed}")
    calm, seconds = chance.random() < 0.1, chance.choice((8.0, 15.0, 25.0))
    nodes = plans._nodes(chance, "vendors")
    users = chance.choice((1, 2, 2, 3))
    vendors = Vendors(
        online="redis" if chance.random() < 0.7 else "firestore",
        shards=chance.choice((0, 1, 4)),
        pulls=chance.choice((0, 0, 3)),
    )
    write_through = chance.random() < 0.3
    # Without the online store, sequences come from the clocks: then these may not differ (docs/proof.md).
    askew = chance.random() < 0.2
    plan = Plan(
        seed=seed,
        topology="vendors",
        nodes=nodes,
        users=users,
        chains=plans._chains(chance, users, seconds),
        sessions=plans._sessions(chance, users, seconds),
        faults=() if calm else _faults(chance, vendors, len(nodes), seconds, write_through=write_through, askew=askew),
        calls=() if calm or askew else tuple(plans._rates(chance, (*CALL_FAULTS, "partly"), (0.003, 0.02, 0.1))),
        net=() if calm else tuple(plans._rates(chance, NET_FAULTS, (0.01, 0.03, 0.1))),
        shuffled=chance.random() < 0.7,
        latency=chance.choice((0.0, 0.002, 0.02, 0.3)),
        skew=chance.choice((0.0, 0.1, SKEW_SECONDS)) if askew else 0.0,
        write_through=write_through,
        cap=chance.choice((100_000, 100_000, 100_000, 100_000, 8)),
        duplicates=0.0 if calm else chance.choice((0.0, 0.02, 0.1)),
        lost_pokes=0.0 if calm else chance.choice((0.0, 0.0, 0.1, 0.5)),
        poison=chance.choice((0, 0, 0, 0, 15)),
        seconds=seconds,
        vendors=vendors,
    )
    plan = plans.plain(plan) if chance.random() < 0.1 else plans.with_limits(plans.with_jumps(_with_flips(plan)))
    if vendors.online == "redis" and write_through and not askew and _may_be_replaced(plan):
        plan = structs.replace(plan, faults=plan.faults + _replacements(seed, seconds))
    return plans.with_batches(structs.replace(plan, sessions=plans._one_page(plan)), *BATCHES)


def _with_flips(plan: Plan) -> Plan:
    """In some plans, bits flip in what Redis and Firestore hold. They have a chance of their own: all else stays."""
    divisor, rest = FLIPS
    if plan.seed % divisor != rest or not plan.faults:
        return plan
    chance = random.Random(f"{plan.seed} flips")
    flips = tuple(
        Fault(chance.random() * plan.seconds, "flip", store=chance.choice(("online", "cold")))
        for _ in range(chance.choice((1, 5, 30)))
    )
    return structs.replace(plan, faults=plan.faults + flips)


def _may_be_replaced(plan: Plan) -> bool:
    """Where clocks jump, nobody waits for what a master that was replaced was told of."""
    return bool(plan.faults) and not plan.plain and all(fault.kind != "jump" for fault in plan.faults)


def _replacements(seed: int, seconds: float) -> tuple[Fault, ...]:
    """Masters that freeze, are replaced and thaw. From a chance of their own, so that all else is as without them."""
    chance = random.Random(f"replacements {seed}")
    spans = chance.choice(((), (2.0,), (9.0,), (2.0, 9.0)))
    return tuple(Fault(chance.random() * seconds, "replace", seconds=chance.random() * span) for span in spans)


def _faults(
    chance: random.Random, vendors: Vendors, nodes: int, seconds: float, *, write_through: bool, askew: bool
) -> tuple[Fault, ...]:
    redis = vendors.online == "redis" and not askew
    kinds = ["crash", "crash", "stop", "pause", "migrate"]
    kinds += ["step"] if askew else ["away", "away", "away"]
    kinds += ["restart", "restart", "full"] if redis else []
    kinds += ["forget"] if redis and write_through else []
    kinds = chance.sample(kinds, chance.randint(1, 3))
    return tuple(
        Fault(
            at=chance.random() * seconds,
            kind=chance.choice(kinds),  # type: ignore[arg-type]  # one of the words
            target=chance.randrange(nodes),
            seconds=chance.choice((0.2, 2.0, 9.0)) * chance.random(),
            store=chance.choice(("online", "online", "cold", "ingress")),
            fuse=chance.choice((1, 3, 10, 40, 100)),
        )
        for _ in range(chance.choice((0, 2, 5, 9)))
    )
