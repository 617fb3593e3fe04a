"""What happens in one run, as plain data: made from a seed, and made smaller by ``shrink`` where it fails."""

from __future__ import annotations

import random
from collections.abc import Container
from typing import Literal, TypeVar

from msgspec import Struct, structs

P = TypeVar("P", bound=Struct)
Topology = Literal["one", "file", "apart", "vendors"]
"""``one``: one process with everything. ``file``: several processes over one file. ``apart``: several processes, with
the ingress, the online store, the cold queue and push on servers of their own, each of which can be away. ``vendors``:
the same with the real backends over simulated Redis, Firestore and Pub/Sub; see ``tests/sim/vendors/plan.py``."""

SPANS = {
    "lease_seconds": 6.0,
    "heartbeat_seconds": 2.0,
    "repoke_seconds": 3.0,
    "push_after_seconds": 6.0,
    "sweep_after_seconds": 15.0,
}
"""The defaults divided by about ten, so that a run covers more of them."""
EPHEMERAL_SECONDS = 4.0
DAY_RETENTION_SECONDS = 6 * 3600.0
SKEW_SECONDS = 1.5
STEP_SECONDS = 8.0
JUMPS = (30.0, 7200.0, 31 * 86_400.0, -30.0, -7200.0, -40 * 86_400.0)
"""Seconds, hours and months."""

SMALL_BOUNDS: tuple[tuple[dict[str, float], ...], ...] = (
    ({"queue_bytes": 450}, {"queue_bytes": 1000}, {"queue_bytes": 2500}),
    (
        {"inbound_bytes": 600, "inbound_bytes_per_second": 60.0},
        {"inbound_bytes": 1500, "inbound_bytes_per_second": 20.0},
    ),
    ({"pair_rate": 1.0, "pair_burst": 2}, {"pair_rate": 0.2, "pair_burst": 6}),
)
"""Limits that a run meets; an envelope has 60 to 480 bytes."""

CALL_FAULTS = ("refused", "failed after", "no answer", "answer lost", "late")
NET_FAULTS = ("request lost", "answer lost", "slow")


SMALL_LIMITS = 11, 1
"""Seeds that leave the second when they are divided by the first have plans with small limits. Of those that found
something before there were such plans (``seeds.txt``), none does: they mean what they did."""


LONG_JUMPS = 16, 4
"""Likewise, those in whose plans a clock is far off for minutes, where a clock may be at all."""


BATCHES = 18, (8, 12, 13)
"""Likewise, those in whose plans senders send several messages in one request."""


class Step(Struct, frozen=True):
    """One message to send."""

    tag: str
    to: int
    express: bool = False
    ephemeral: bool = False
    keyed: bool = False
    wait: float = 0.0
    """Seconds before it."""
    pad: int = 0
    """So many bytes of its payload say nothing."""


class Chain(Struct, frozen=True):
    """One sender's messages, each sent when the one before was answered."""

    at: float
    sender: int
    steps: tuple[Step, ...]
    together: int = 1
    """So many of them go in one request."""


class Session(Struct, frozen=True):
    """A device comes, reads for a while, and leaves."""

    at: float
    user: int
    device: int
    seconds: float
    leave: Literal["close", "cut", "vanish"]
    """``close`` says goodbye; ``cut`` is a reset; ``vanish`` says nothing, and reads nothing any more."""
    limit: int
    sloppy: float = 0.0
    """How often it acknowledges a part only, twice, or what is not its own; or dies before it does."""
    slow: float = 0.0
    """Seconds that its socket takes for each frame."""
    offline: bool = False
    """It only pulls, without a socket."""
    stays: bool = False
    """It connects again and again until the end of the run."""
    deaf: bool = False
    """It is connected and looks at nothing."""
    one_page: bool = False
    """It reads one page for each poke, and acknowledges all of it."""


class Fault(Struct, frozen=True):
    """Something goes wrong at ``at``, for ``seconds`` where it has a length."""

    at: float
    kind: Literal[
        "crash",
        "stop",
        "pause",
        "step",
        "jump",
        "away",
        "power",
        "forget",
        "migrate",
        "restart",
        "full",
        "flip",
        "replace",
    ]
    target: int = 0
    seconds: float = 0.0
    store: str = ""
    fuse: int = 1
    """A crash or a pause comes after so many callbacks."""
    size: float = 0.0
    """By so many seconds a clock jumps; after ``seconds`` it is put right."""


class Rate(Struct, frozen=True):
    """How often single calls go wrong."""

    kind: str
    share: float


class Bounds(Struct, frozen=True):
    """Those of ``limits`` that have the same names; but for pairs, no run comes near these."""

    queue_bytes: int = 1 << 30
    inbound_bytes: int = 1 << 27
    inbound_bytes_per_second: float = 131_072.0
    pair_rate: float = 0.0
    pair_burst: int = 1000

    @property
    def inbound_seconds(self) -> float:
        """A budget that is spent is whole again after so long."""
        return self.inbound_bytes / self.inbound_bytes_per_second


NO_BOUNDS = Bounds()


class Vendors(Struct, frozen=True):
    """How the vendors' stores are used."""

    online: Literal["redis", "firestore"] = "redis"
    """With Firestore pokes go over Pub/Sub."""
    shards: int = 4
    """Ordering keys of the ingress; 0: each recipient has one."""
    pulls: int = 0
    """Pull calls at once; 0: a stream."""


class Plan(Struct, frozen=True):
    """One run; equal plans run equally."""

    seed: int
    topology: Topology
    nodes: tuple[str, ...]
    """What each process does, as words: api, ws, process."""
    users: int
    chains: tuple[Chain, ...]
    sessions: tuple[Session, ...]
    faults: tuple[Fault, ...] = ()
    calls: tuple[Rate, ...] = ()
    """Faults of calls to stores."""
    net: tuple[Rate, ...] = ()
    """Faults between clients and nodes."""
    shuffled: bool = True
    latency: float = 0.0
    """Seconds that a call takes at most."""
    skew: float = 0.0
    write_through: bool = False
    cap: int = 100_000
    bounds: Bounds = NO_BOUNDS
    connections: int = 20
    """How many a user may have."""
    duplicates: float = 0.0
    """How often the ingress delivers again what it has delivered, where it is a server of its own."""
    lost_pokes: float = 0.0
    poison: int = 0
    """One message in so many can never be routed; 0: none."""
    seconds: float = 25.0
    """When the last new thing begins."""
    day: bool = False
    """The spans are those of the default configuration, and mail is kept for ``DAY_RETENTION_SECONDS``."""
    piped: Literal["none", "some", "all"] = "none"
    """Over one file, the nodes that do not route what they accept, as where push commands go elsewhere: it waits in the
    ingress for a pipeline. ``some``: those with odd numbers."""
    plain: bool = False
    """Nothing goes wrong but that processes with sockets die: then nothing may be late either."""

    vendors: Vendors = Vendors()
    """Where the topology is ``vendors``."""

    @property
    def clocks_agree(self) -> bool:
        return not self.skew and not any(fault.kind in ("step", "jump") for fault in self.faults)

    @property
    def ephemeral_seconds(self) -> float:
        return 10.0 if self.day else EPHEMERAL_SECONDS

    @property
    def retention_seconds(self) -> float:
        return DAY_RETENTION_SECONDS if self.day else 30 * 86_400.0


def make(seed: int) -> Plan:
    """The plan of ``seed``; about 100 requests of clients and 500 calls to stores.

    Half of the plans know a few kinds of faults only, and many of each: what needs the same thing to go wrong several
    times would else drown in the rest. In a quarter of them, things begin together, by the same beat as the sweepers.
    A tenth are ``plain``.
    """
    chance = random.Random(seed)
    topology: Topology = chance.choices(("one", "file", "apart"), (2, 3, 5))[0]
    calm = chance.random() < 0.1
    few = chance.random() < 0.5
    seconds = chance.choice((8.0, 15.0, 25.0))
    nodes = _nodes(chance, topology)
    users = chance.choice((1, 2, 2, 3))
    write_through = topology == "apart" and chance.random() < 0.3
    # Without the online store, sequences come from the clocks: then these may not differ (docs/proof.md).
    askew = chance.random() < 0.3
    plan = Plan(
        seed=seed,
        topology=topology,
        nodes=nodes,
        users=users,
        chains=_chains(chance, users, seconds),
        sessions=_sessions(chance, users, seconds),
        faults=()
        if calm
        else _faults(chance, topology, len(nodes), seconds, write_through=write_through, askew=askew, few=few),
        calls=() if calm or askew else tuple(_call_rates(chance, topology, few=few)),
        net=() if calm else tuple(_rates(chance, NET_FAULTS, (0.01, 0.03, 0.1))),
        shuffled=chance.random() < 0.7,
        latency=chance.choice((0.0, 0.0, 0.002, 0.002, 0.02, 0.02, 0.3, 0.8)),
        skew=chance.choice((0.0, 0.1, SKEW_SECONDS)) if askew else 0.0,
        write_through=write_through,
        cap=chance.choice((100_000, 100_000, 100_000, 100_000, 8)),
        duplicates=0.0 if calm else chance.choice((0.0, 0.02, 0.1)),
        lost_pokes=0.0 if calm else chance.choice((0.0, 0.0, 0.1, 0.5)),
        poison=chance.choice((0, 0, 0, 0, 15)),
        seconds=seconds,
    )
    if chance.random() < 0.25:
        plan = _on_the_beat(plan, chance.choice((0.5, 1.0)))
    plan = plain(plan) if chance.random() < 0.1 else with_limits(with_long_jump(with_jumps(_with_flips(plan))))
    return with_batches(structs.replace(plan, sessions=_one_page(plan), piped=piped(seed)), *BATCHES)


def piped(seed: int) -> Literal["none", "some", "all"]:
    """For ``Plan.piped``. From a chance of its own: all else is what it would be without."""
    return random.Random(f"piped {seed}").choices(("none", "some", "all"), (6, 2, 2))[0]


def _with_flips(plan: Plan) -> Plan:
    """In some plans, bits flip in what is stored. They have a chance of their own: the rest of each plan stays."""
    chance = random.Random(f"{plan.seed} flips")
    if not plan.faults or chance.random() > 0.2:
        return plan
    flips = tuple(
        Fault(chance.random() * plan.seconds, "flip", store=chance.choice(("ingress", "online", "cold")))
        for _ in range(chance.choice((1, 5, 30)))
    )
    return structs.replace(plan, faults=plan.faults + flips)


def with_jumps(plan: Plan) -> Plan:
    """In some plans, nodes' clocks are far off for a while. They have a chance of their own: all else stays.

    Without the online store, sequences come from the clocks: then these may not jump (docs/proof.md).
    """
    chance = random.Random(f"{plan.seed} clocks")
    if not _may_jump(plan) or chance.random() > 0.25:
        return plan
    jumps = tuple(
        Fault(
            at=chance.random() * plan.seconds,
            kind="jump",
            target=chance.randrange(len(plan.nodes)),
            seconds=chance.choice((0.5, 3.0, 10.0)),
            size=chance.choice(JUMPS),
        )
        for _ in range(chance.choice((1, 2, 5)))
    )
    return structs.replace(plan, faults=plan.faults + jumps)


def _may_jump(plan: Plan) -> bool:
    return not plan.calls and not {"away", "forget", "restart", "full"} & {fault.kind for fault in plan.faults}


def with_long_jump(plan: Plan) -> Plan:
    """In some plans, the clock of a node is far off for minutes. For an hour it may not be: retention believes it then,
    where there is no other clock to ask (docs/security.md)."""
    divisor, rest = LONG_JUMPS
    if plan.seed % divisor != rest or not _may_jump(plan):
        return plan
    chance = random.Random(f"{plan.seed} long clocks")
    jump = Fault(
        at=chance.random() * plan.seconds,
        kind="jump",
        target=chance.randrange(len(plan.nodes)),
        seconds=chance.choice((120.0, 600.0, 2400.0)),
        size=chance.choice(JUMPS),
    )
    return structs.replace(plan, faults=(*plan.faults, jump))


def with_limits(plan: Plan) -> Plan:
    """In some plans, queues take few bytes, few come to one recipient in a time, or few messages from one sender."""
    divisor, rest = SMALL_LIMITS
    if plan.seed % divisor != rest:
        return plan
    chance = random.Random(f"limits {plan.seed}")
    bounds = NO_BOUNDS
    for some in chance.sample(SMALL_BOUNDS, chance.choice((1, 1, 2, 3))):
        bounds = structs.replace(bounds, **chance.choice(some))
    chains = tuple(
        structs.replace(
            chain, steps=tuple(structs.replace(step, pad=chance.choice((0, 0, 0, 90, 300))) for step in chain.steps)
        )
        for chain in plan.chains
    )
    return structs.replace(plan, bounds=bounds, chains=chains)


def with_batches(plan: Plan, divisor: int, rests: Container[int]) -> Plan:
    """In some plans, messages go together, most of them so that they can be sent again. A part of a batch fails more
    often than calls do."""
    if plan.seed % divisor not in rests:
        return plan
    chance = random.Random(f"batches {plan.seed}")
    keyed = chance.choice((0.3, 0.9))
    chains = tuple(
        structs.replace(
            chain,
            together=chance.choice((1, 3, 8)),
            steps=tuple(structs.replace(step, keyed=chance.random() < keyed) for step in chain.steps),
        )
        for chain in plan.chains
    )
    fails = plan.topology == "apart" and plan.calls
    return structs.replace(plan, chains=chains, calls=(*plan.calls, Rate("partly", 0.05)) if fails else plan.calls)


def _one_page(plan: Plan) -> tuple[Session, ...]:
    """The sessions of ``plan``; in every third, half of the devices read one page a poke. From a chance of their own,
    so that all else is what it would be without them."""
    chance = random.Random(f"one page {plan.seed}")
    if chance.random() >= 1 / 3:
        return plan.sessions
    return tuple(structs.replace(one, one_page=chance.random() < 0.5) for one in plan.sessions)


def plain(plan: Plan) -> Plan:
    """The same, but nothing goes wrong except that processes die which have sockets and route nothing: whoever routes
    owes the pokes, and they are repeated if it dies."""
    routing = {"process"} if plan.topology == "apart" or plan.piped == "all" else {"process", "api"}
    mortal = [n for n, roles in enumerate(plan.nodes) if "ws" in roles.split() and not routing & set(roles.split())]
    faults = tuple(
        structs.replace(fault, kind="crash", target=mortal[fault.target % len(mortal)])
        for fault in plan.faults
        if mortal
    )
    return structs.replace(
        plan, faults=faults, calls=(), net=(), latency=min(plan.latency, 0.02), skew=0.0, cap=100_000,
        duplicates=0.0, lost_pokes=0.0, poison=0, plain=True,
    )  # fmt: skip


def _on_the_beat(plan: Plan, beat: float) -> Plan:
    def rounded(seconds: float) -> float:
        return beat * round(seconds / beat)

    def change(part: P, **times: float) -> P:
        return structs.replace(part, **{name: rounded(seconds) for name, seconds in times.items()})

    return structs.replace(
        plan,
        chains=tuple(
            structs.replace(
                change(chain, at=chain.at), steps=tuple(change(step, wait=step.wait) for step in chain.steps)
            )
            for chain in plan.chains
        ),
        sessions=tuple(change(one, at=one.at, seconds=one.seconds) for one in plan.sessions),
        faults=tuple(change(fault, at=fault.at) for fault in plan.faults),
    )


def day(seed: int, hours: float = 24.0) -> Plan:
    """A small cluster with the spans of the default configuration: people come and go, some stay away for longer than
    mail is kept; leases, pokes, announcements, tombstones and retention run out."""
    chance = random.Random(seed)
    topology: Topology = chance.choice(("file", "apart"))
    seconds, users = 3600.0 * hours, 12
    nodes = ("api ws", "api ws", "process")
    return Plan(
        seed=seed,
        topology=topology,
        nodes=nodes,
        users=users,
        chains=tuple(_days_chain(chance, number, users, seconds) for number in range(int(12 * hours))),
        sessions=tuple(_days_session(chance, number, users - 2, seconds) for number in range(int(6 * hours))),
        faults=tuple(_days_fault(chance, topology, len(nodes), seconds) for _ in range(int(3 * hours))),
        calls=tuple(Rate(kind, 0.001) for kind in (CALL_FAULTS if topology == "apart" else CALL_FAULTS[:2])),
        net=tuple(Rate(kind, 0.003) for kind in NET_FAULTS),
        latency=0.02,
        duplicates=0.02,
        lost_pokes=0.02,
        seconds=seconds,
        day=True,
    )


def _days_chain(chance: random.Random, number: int, users: int, seconds: float) -> Chain:
    steps = tuple(
        Step(
            f"m{number * 20 + count}",
            chance.randrange(users),
            chance.random() < 0.1,
            chance.random() < 0.1,
            chance.random() < 0.2,
            chance.random() * 60,
        )
        for count in range(chance.randint(1, 15))
    )
    return Chain(chance.random() * seconds, chance.randrange(3), steps)


def _days_session(chance: random.Random, number: int, users: int, seconds: float) -> Session:
    return Session(
        at=chance.random() * seconds * 0.98,
        user=chance.randrange(users),
        device=number,
        seconds=chance.choice((5.0, 120.0, 3000.0)) * chance.random(),
        leave=chance.choice(("close", "close", "cut", "vanish")),
        limit=chance.choice((3, 50)),
        sloppy=chance.choice((0.0, 0.0, 0.2)),
        offline=chance.random() < 0.1,
        stays=number < 2,
        deaf=chance.random() < 0.1,
    )


def _days_fault(chance: random.Random, topology: Topology, nodes: int, seconds: float) -> Fault:
    kinds = ["crash", "stop", "pause", "migrate", *(["away", "away"] if topology == "apart" else ["power"])]
    return Fault(
        at=chance.random() * seconds * 0.98,
        kind=chance.choice(kinds),  # type: ignore[arg-type]  # one of the words
        target=chance.randrange(nodes),
        seconds=chance.choice((1.0, 20.0, 120.0)) * chance.random(),
        store=chance.choice(("online", "cold", "ingress", "push")),
        fuse=chance.choice((1, 10, 100)),
    )


def _nodes(chance: random.Random, topology: Topology) -> tuple[str, ...]:
    if topology == "one":
        return ("api ws process",)
    return chance.choice(
        (
            ("api", "ws", "process"),
            ("api", "ws", "ws", "process", "process"),
            ("api ws", "api ws", "process"),
            ("api ws process", "api ws process"),
        )
    )


def _chains(chance: random.Random, users: int, seconds: float) -> tuple[Chain, ...]:
    chains = []
    count, left = 0, chance.choice((15, 40, 60))
    express, ephemeral, keyed = (chance.choice((0.0, 0.1, 0.4)) for _ in range(3))
    pause = chance.choice((0.0, 0.05, 0.5))
    while left > 0:
        length = min(left, chance.randint(1, 15))
        left -= length
        steps = []
        for _ in range(length):
            count += 1
            steps.append(
                Step(
                    f"m{count}",
                    chance.randrange(users),
                    chance.random() < express,
                    chance.random() < ephemeral,
                    chance.random() < keyed,
                    chance.random() * pause,
                )
            )
        chains.append(Chain(chance.random() * seconds * 0.8, chance.randrange(3), tuple(steps)))
    return tuple(chains)


def _sessions(chance: random.Random, users: int, seconds: float) -> tuple[Session, ...]:
    sloppy = chance.choice((0.0, 0.1, 0.4))
    slow = chance.choice((0.0, 0.0, 0.5, 3.0))
    longest = chance.choice((0.3, 3.0, 10.0))
    return tuple(
        Session(
            at=chance.random() * seconds,
            user=chance.randrange(users),
            device=number,
            seconds=chance.random() * longest,
            leave=chance.choice(("close", "close", "cut", "vanish")),
            limit=chance.choice((1, 2, 3, 7, 50)),
            sloppy=sloppy,
            slow=slow * (chance.random() < 0.3),
            offline=chance.random() < 0.15,
            stays=chance.random() < 0.15,
            deaf=chance.random() < 0.08,
        )
        for number in range(chance.choice((3, 8, 14)))
    )


def _faults(
    chance: random.Random,
    topology: Topology,
    nodes: int,
    seconds: float,
    *,
    write_through: bool,
    askew: bool,
    few: bool,
) -> tuple[Fault, ...]:
    kinds = ["crash", "crash", "stop", "pause", "migrate"]
    kinds += ["step"] if askew else []
    kinds += ["away", "away", "away"] if topology == "apart" and not askew else []
    kinds += ["forget"] if write_through and not askew else []
    kinds += ["power"] if topology != "apart" else []
    kinds = chance.sample(kinds, chance.randint(1, 2 if few else 3))
    stores: tuple[str, ...] = ("online", "online", "cold", "ingress", "push")
    if few:
        stores = (chance.choice(stores),)
    return tuple(
        Fault(
            at=chance.random() * seconds,
            kind=chance.choice(kinds),  # type: ignore[arg-type]  # one of the words
            target=chance.randrange(nodes),
            seconds=chance.choice((0.2, 2.0, 9.0)) * chance.random(),
            store=chance.choice(stores),
            fuse=chance.choice((1, 3, 10, 40, 100)),
        )
        for _ in range(chance.choice((0, 2, 5, 9, 15) if few else (0, 2, 5, 9)))
    )


def _call_rates(chance: random.Random, topology: Topology, *, few: bool) -> list[Rate]:
    kinds = (*CALL_FAULTS, "partly") if topology == "apart" else ("refused", "failed after")
    if few:
        return [Rate(kind, chance.choice((0.03, 0.1, 0.25))) for kind in chance.sample(kinds, chance.randint(0, 2))]
    return _rates(chance, kinds, (0.003, 0.02, 0.1) if topology == "apart" else (0.003, 0.03))


def _rates(chance: random.Random, kinds: tuple[str, ...], shares: tuple[float, ...]) -> list[Rate]:
    if chance.random() < 0.3:
        return []
    return [Rate(kind, chance.choice(shares)) for kind in kinds if chance.random() < 0.4]
