"""What came of a run, in figures: as JSON, and as tables."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from router.cli.output import Table
from tests.chaos.faults import Done
from tests.chaos.people import STEADY_USERS
from tests.chaos.run import Outcome
from tests.sim import history as h
from tests.sim.checker import Violation

BUCKET_SECONDS = 5.0
WINDOW_SECONDS = 1.0
EXCERPTS, EXCERPT_LINES, TEXT_LENGTH = 10, 40, 1500
PROMISES = {
    "accepted is durable": "lost",
    "at least once": "not returned",
    "in order": "reordered",
    "one id for life": "second ids, or twice",
    "acknowledged stays away": "acknowledged and back",
    "nobody else's mail": "strangers' mail",
    "nothing is stuck": "stuck",
    "ephemeral": "ephemeral and late",
    "sealed as sent": "not as it was sent",
    "within the limit": "too many in a batch",
    "sound": "failures of the router's own",
}
"""What the judge can find broken here, and what that is called in a table. ``push after commit`` is not among them:
whether a message could be fetched when its push command went out is seen by a simulation only."""


class Strike(Struct, frozen=True):
    """One fault."""

    kind: str
    target: str
    group: str
    began: float
    ended: float
    recovered: float | None
    """The longest that anything took that was under way when it began, or sent within a second of that, to users with a
    device that stays; in seconds from its beginning, or from the sending if that was later. ``None``: never."""

    @property
    def what(self) -> str:
        return self.kind if self.group == "topology" else f"{self.kind} {self.group}"


class Counts(Struct, frozen=True):
    sent: int
    """Messages, however often each was tried."""
    accepted: int
    """Messages that were answered 202."""
    delivered: int
    """Messages that were returned by a fetch."""
    dropped: int
    """Ephemeral ones that were never returned, as is allowed."""
    acknowledged: int
    """Messages for which an acknowledgement was answered."""
    redeliveries: int
    """Returned again, with the same id, before an acknowledgement was answered: what at least once allows."""
    tries_failed: int
    """Requests that were refused or never answered."""
    requests: int
    pushed: int
    """Messages for which a push command went out."""
    dead_letters: int
    restarts: int
    """Nodes that ended since a server did not answer, and were started again."""
    damaged: int = 0
    """Messages of which a stored copy was damaged; of these, ..."""
    damaged_delivered: int = 0
    """... were returned by a fetch that began after that, from another copy;"""
    damaged_dead_letters: int = 0
    """... became the dead letter ``damaged``."""


class Moment(Struct, frozen=True):
    """``BUCKET_SECONDS`` of a run."""

    at: float
    accepted: int
    delivered: int
    failed: int
    """Requests."""
    median: float | None
    """Seconds from the first try to send until delivery, of what was sent then to users with a device that stays."""
    longest: float | None


class Broken(Struct, frozen=True):
    """A violation, and what the history says about it."""

    promise: str
    text: str
    at: float
    history: list[str]


class Report(Struct, frozen=True):
    """The documented schema of ``--json``."""

    topology: str
    seed: int
    day: str
    seconds: float
    """How long things failed."""
    settled_seconds: float
    rate: float
    machine: str
    counts: Counts
    delivery_p50: float | None
    delivery_p99: float | None
    faults: list[Strike]
    timeline: list[Moment]
    violations: list[Broken]

    @property
    def broken(self) -> dict[str, int]:
        """Promise -> violations, for each promise that there is."""
        found = dict.fromkeys(PROMISES, 0)
        for violation in self.violations:
            found[violation.promise] = found.get(violation.promise, 0) + 1
        return found

    @property
    def by_kind(self) -> dict[str, list[Strike]]:
        """Faults by what they are, the most frequent first."""
        found: defaultdict[str, list[Strike]] = defaultdict(list)
        for strike in self.faults:
            found[strike.what].append(strike)
        return dict(sorted(found.items(), key=lambda kind: (-len(kind[1]), kind[0])))


def save(report: Report, path: Path) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(report) + b"\n")


def load(path: Path) -> Report:
    """Read it again."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def machine() -> str:
    """No name of a host, no path."""
    return f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}"


class Trail(Struct):
    """What became of one message; seconds after the start."""

    tag: str
    user: str
    sent: float
    ephemeral: bool
    accepted: float | None = None
    delivered: float | None = None
    returns: int = 0
    damaged: bool = False
    """A stored copy of it."""


def trails(history: h.History) -> dict[str, Trail]:
    """Of every message, by its tag, in the order of their first tries."""
    found: dict[str, Trail] = {}
    sending: dict[int, Trail] = {}
    flipped = {event.id for event in history.events if isinstance(event, h.Flipped)}
    for at, event in zip(history.times, history.events, strict=True):
        if isinstance(event, h.Sending):
            trail = Trail(event.tag, event.user, at, event.ephemeral)
            sending[event.op] = found.setdefault(event.tag, trail)
        elif isinstance(event, h.Sent):
            trail = sending[event.op]
            trail.accepted = at if trail.accepted is None else trail.accepted
            trail.damaged = event.id in flipped
        elif isinstance(event, h.Fetched):
            for item in event.batch:
                if item.tag in found:
                    trail = found[item.tag]
                    trail.returns += 1
                    trail.delivered = at if trail.delivered is None else trail.delivered
    return found


def make(outcome: Outcome, day: str, on: str) -> Report:
    """The report of a run; ``on``: what machine it was made on."""
    history, known = outcome.history, trails(outcome.history)
    times = sorted(t.delivered - t.sent for t in known.values() if _counts(t) and t.delivered is not None)
    return Report(
        topology=outcome.topology,
        seed=outcome.options.seed,
        day=day,
        seconds=outcome.options.seconds,
        settled_seconds=round(outcome.settled_seconds, 1),
        rate=outcome.options.rate,
        machine=on,
        counts=_count(outcome, known),
        delivery_p50=quantile(times, 0.5),
        delivery_p99=quantile(times, 0.99),
        faults=[_strike(done, known) for done in sorted(outcome.faults, key=lambda done: done.began)],
        timeline=list(_timeline(history, known)),
        violations=list(_broken(history, outcome.violations)),
    )


def _broken(history: h.History, violations: Sequence[Violation]) -> Iterator[Broken]:
    """Each violation; the first ones with what the history says: what follows is mostly of the same cause."""
    for number, violation in enumerate(violations):
        told = excerpt(history, violation) if number < EXCERPTS else []
        yield Broken(violation.promise, violation.text[:TEXT_LENGTH], round(violation.at, 3), told)


def _counts(trail: Trail) -> bool:
    """Whether its delivery says how long delivery takes: its reader is there, and it may be neither dropped nor a dead
    letter."""
    may_vanish = trail.ephemeral or trail.damaged
    return trail.user in STEADY_USERS and not may_vanish and trail.accepted is not None


def _count(outcome: Outcome, known: dict[str, Trail]) -> Counts:
    events = outcome.history.events
    acked = {id_ for op in _acknowledged(events) for id_ in op.ids}
    returned = {item.id for event in events if isinstance(event, h.Fetched) for item in event.batch}
    delivered = sum(trail.returns > 0 for trail in known.values())
    damaged = {event.id for event in events if isinstance(event, h.Flipped)}
    buried = {event.id for event in events if isinstance(event, h.Buried)}
    return Counts(
        sent=len(known),
        accepted=sum(trail.accepted is not None for trail in known.values()),
        delivered=delivered,
        dropped=sum(trail.ephemeral and trail.returns == 0 for trail in known.values()),
        acknowledged=len(acked & returned),
        redeliveries=sum(trail.returns for trail in known.values()) - delivered,
        tries_failed=sum(isinstance(event, h.NotSent | h.NotFetched | h.NotAcked) for event in events),
        requests=sum(isinstance(event, h.Sending | h.Fetching | h.Acking) for event in events),
        pushed=len({event.id for event in events if isinstance(event, h.Pushed)}),
        dead_letters=len(buried),
        restarts=outcome.restarts,
        damaged=len(damaged),
        damaged_delivered=len(_returned_after_damage(events)),
        damaged_dead_letters=len(damaged & buried),
    )


def _returned_after_damage(events: Sequence[h.Event]) -> set[str]:
    """Ids of messages that a fetch has returned which began when a copy of them was damaged already."""
    damaged: set[str] = set()
    before: dict[int, set[str]] = {}
    returned: set[str] = set()
    for event in events:
        if isinstance(event, h.Flipped):
            damaged.add(event.id)
        elif isinstance(event, h.Fetching):
            before[event.op] = set(damaged)
        elif isinstance(event, h.Fetched):
            returned.update(item.id for item in event.batch if item.id in before[event.op])
    return returned


def _acknowledged(events: Sequence[h.Event]) -> Iterator[h.Acking]:
    began = {event.op: event for event in events if isinstance(event, h.Acking)}
    return (began[event.op] for event in events if isinstance(event, h.Acked))


def _strike(done: Done, known: dict[str, Trail]) -> Strike:
    began, ended = round(done.began, 2), round(done.ended, 2)
    return Strike(done.kind, done.target, done.group, began, ended, recovery(done.began, known))


def recovery(began: float, known: dict[str, Trail]) -> float | None:
    """See ``Strike.recovered``. Where nothing was under way or sent then, the first that was sent later counts."""
    counted = [trail for trail in known.values() if _counts(trail) and not _arrived(trail, began)]
    hit = [trail for trail in counted if trail.sent < began + WINDOW_SECONDS] or counted[:1]
    waits = [trail.delivered - max(trail.sent, began) for trail in hit if trail.delivered is not None]
    return round(max(waits), 3) if waits and len(waits) == len(hit) else None


def _arrived(trail: Trail, at: float) -> bool:
    return trail.delivered is not None and trail.delivered <= at


def _timeline(history: h.History, known: dict[str, Trail]) -> Iterator[Moment]:
    buckets = range(math.ceil((history.times[-1] if len(history) else 0.0) / BUCKET_SECONDS))
    accepted, delivered, failed = ([0] * len(buckets) for _ in range(3))
    waits: defaultdict[int, list[float]] = defaultdict(list)
    for trail in known.values():
        if trail.accepted is not None:
            accepted[_bucket(trail.accepted)] += 1
        if trail.delivered is not None:
            delivered[_bucket(trail.delivered)] += 1
        if _counts(trail) and trail.delivered is not None:
            waits[_bucket(trail.sent)].append(trail.delivered - trail.sent)
    for at, event in zip(history.times, history.events, strict=True):
        failed[min(_bucket(at), len(buckets) - 1)] += isinstance(event, h.NotSent | h.NotFetched | h.NotAcked)
    for index in buckets:
        times = sorted(waits[index])
        longest = round(times[-1], 3) if times else None
        yield Moment(
            index * BUCKET_SECONDS, accepted[index], delivered[index], failed[index], quantile(times, 0.5), longest
        )


def _bucket(at: float) -> int:
    return int(at / BUCKET_SECONDS)


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of all are not above."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)


def excerpt(history: h.History, violation: Violation) -> list[str]:
    """The lines of the history that tell of what ``violation`` names, faults included, up to where it was found."""
    lines: list[str] = []
    ops: set[int] = set()
    for at, event in zip(history.times[: violation.index + 1], history.events, strict=False):
        op = getattr(event, "op", None)
        named = any(word in violation.text for word in _names(event))
        if named and op is not None:
            ops.add(op)
        if named or op in ops or isinstance(event, h.Note):
            lines.append(f"{at:9.3f}  {_shortened(event, violation.text)}")
    return lines[-EXCERPT_LINES:]


def _names(event: h.Event) -> list[str]:
    """The words by which a violation may speak of what this event is about."""
    if isinstance(event, h.Sending):
        return [f"{event.tag} ("]
    if isinstance(event, h.Fetched):
        return [item.id for item in event.batch]
    if isinstance(event, h.Acking):
        return list(event.ids)
    return [event.id] if isinstance(event, h.Sent | h.Pushed | h.Buried | h.Flipped) else []


def _shortened(event: h.Event, text: str) -> str:
    """One line that names only what ``text`` names, and how much else there was."""
    if isinstance(event, h.Fetched):
        kept = tuple(item for item in event.batch if item.id in text)
        rest = len(event.batch) - len(kept)
        return h.words(h.Fetched(event.op, kept)) + (f" and {rest} others" if rest else "")
    if isinstance(event, h.Acking):
        kept_ids = tuple(id_ for id_ in event.ids if id_ in text)
        return h.words(h.Acking(event.op, event.user, kept_ids)) + f" of {len(event.ids)}"
    return h.words(event)[:500]


def tables(report: Report) -> list[Table]:
    """For a terminal or a pipe."""
    counts = report.counts
    figures = [[name.replace("_", " "), f"{getattr(counts, name):,}"] for name in counts.__struct_fields__]
    figures += [
        ["delivery to who is online, p50", seconds(report.delivery_p50)],
        ["delivery to who is online, p99", seconds(report.delivery_p99)],
        ["quiet after all was up", seconds(report.settled_seconds)],
    ]
    return [
        Table(title(report), ["", "figure"], figures),
        Table("Faults", ["fault", "count", "lasted, p50", "recovered, p50", "recovered, max"], fault_rows(report)),
        Table(
            "Promises",
            ["promise", "broken", "found"],
            [[promise, PROMISES.get(promise, ""), str(count)] for promise, count in report.broken.items()],
        ),
    ]


def fault_rows(report: Report) -> list[list[str]]:
    """One for each kind of fault."""
    rows = []
    for what, strikes in report.by_kind.items():
        lasted = sorted(strike.ended - strike.began for strike in strikes)
        recovered = sorted(strike.recovered for strike in strikes if strike.recovered is not None)
        rows.append(
            [
                what,
                str(len(strikes)),
                seconds(quantile(lasted, 0.5)),
                seconds(quantile(recovered, 0.5)),
                seconds(quantile(recovered, 1.0)),
            ]
        )
    return rows


def title(report: Report) -> str:
    """One line on what this was."""
    return (
        f"Chaos, {report.topology}: {len(report.faults)} faults in {report.seconds:.0f} s, seed {report.seed}, "
        f"{report.day}, {report.machine}"
    )


def verdict(report: Report) -> str:
    """One line on how it ended."""
    found = len(report.violations)
    if not found:
        return f"every promise kept: {report.counts.accepted:,} messages through {len(report.faults)} faults"
    again = f"make chaos ARGS='--topology {report.topology}' MINUTES={report.seconds / 60:g} SEED={report.seed}"
    return f"{found} violation{'s' * (found != 1)}; again: {again}"


def seconds(value: float | None) -> str:
    """``12 ms``, ``1.2 s``."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def markdown(reports: Sequence[Report]) -> str:
    """Runs side by side, for ``docs/proof/chaos.md``."""
    head = ["", *(f"{report.topology}, seed {report.seed}" for report in reports)]
    figures = {
        "faults": [str(len(report.faults)) for report in reports],
        "for": [f"{report.seconds / 60:g} min" for report in reports],
        "messages accepted": [f"{report.counts.accepted:,}" for report in reports],
        "delivered, and ephemeral ones dropped": [f"{r.counts.delivered:,}, {r.counts.dropped:,}" for r in reports],
        "requests, of which failed": [
            f"{report.counts.requests:,}, {report.counts.tries_failed:,}" for report in reports
        ],
        "redeliveries, the same id before its acknowledgement": [f"{r.counts.redeliveries:,}" for r in reports],
        "delivery to who is online, p50 and p99": [
            f"{seconds(report.delivery_p50)}, {seconds(report.delivery_p99)}" for report in reports
        ],
        "damaged in a store; delivered from another copy; dead letters `damaged`": [
            f"{r.counts.damaged}, {r.counts.damaged_delivered}, {r.counts.damaged_dead_letters}" for r in reports
        ],
        "dead letters": [str(report.counts.dead_letters) for report in reports],
    }
    rows = [[words, *cells] for words, cells in figures.items()]
    rows += [[f"**{PROMISES[promise]}**", *(str(r.broken[promise]) for r in reports)] for promise in PROMISES]
    kinds = dict.fromkeys(what for report in reports for what in report.by_kind)
    faults = [[what, *(_share(report, what) for report in reports)] for what in sorted(kinds)]
    days = "; ".join(f"{report.topology} on {report.day}, {report.machine}" for report in reports)
    return (
        f"Made {days}.\n\n{_pipes(head, rows)}\n"
        "How often each fault struck, and how long it took to recover, p50 and longest:\n\n"
        f"{_pipes(['fault', *head[1:]], faults)}"
    )


def _share(report: Report, what: str) -> str:
    strikes = report.by_kind.get(what, [])
    recovered = sorted(strike.recovered for strike in strikes if strike.recovered is not None)
    if not strikes:
        return ""
    return f"{len(strikes)}: {seconds(quantile(recovered, 0.5))}, {seconds(quantile(recovered, 1.0))}"


def _pipes(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
