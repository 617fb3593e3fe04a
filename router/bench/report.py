"""What a load found. ``Report`` is the documented schema of ``router bench --json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from router.bench.latencies import Latencies
from router.bench.ledger import EXAMPLES, Fault
from router.bench.load import Load
from router.bench.pace import NANOSECONDS


class Promises(Struct):
    """How often each promise was broken: 0, or the router is at fault."""

    lost: int
    """Accepted, and never returned though nothing else was coming any more."""
    out_of_order: int
    """Returned behind a message of the same recipient that was begun after this one was accepted."""
    second_id: int
    """A message under two ids, or an id of two messages."""
    came_back: int
    """Returned by a fetch that began after its acknowledgement was answered."""
    somebody_elses: int
    """Returned to whom it was not sent."""
    altered: int
    """Not the bytes that were sent."""


class Messages(Struct):
    """What became of the messages."""

    offered: int
    """That were due to be sent."""
    accepted: int
    """Answered 202."""
    given_up: int
    """Begun, and not answered 202 within 10 s of tries; they may have arrived all the same."""
    unsent: int
    """Due, and never begun, since no sender was free; with `--rate` only."""
    saved: int
    """Saved by their recipients and acknowledged, each counted once."""
    redelivered: int
    """Returned again before their acknowledgement was answered; that is no fault."""
    left: int
    """In the router still, as far as is known."""


class Rates(Struct):
    """Messages a second."""

    offered: float
    accepted: float
    saved: float
    """Of those who were online, until they had the last."""


class Percentiles(Struct):
    """Seconds, each from the moment at which a message was due."""

    p50: float
    p90: float
    p99: float
    max: float


class Latency(Struct):
    """Null where nothing was measured."""

    accepted: Percentiles | None
    """Until it was answered 202."""
    poked: Percentiles | None
    """Of people online, until the poke for it was read; until it was fetched, where a fetch under way brought it."""
    saved: Percentiles | None
    """Of people online, until it was saved and its acknowledgement was answered."""


class Cold(Struct):
    """People who came online when nothing was sent any more."""

    people: int
    messages: int
    """Which they saved."""
    seconds: float
    """From their coming until they had the last."""
    per_second: float


class Refusal(Struct):
    """A kind of try that was refused or not answered."""

    route: str
    status: int | None
    """Null where there was no answer."""
    reason: str
    """The last part of the problem's `type`; without one the words of the status, or the name of the error."""
    tries: int


class Report(Struct):
    """What `--json` prints."""

    run: str
    """Part of the names of its people: `urn:sm:bench:<run>-0` and so on."""
    url: str
    started_at: str
    """RFC 3339."""
    held: bool
    """No promise was broken."""
    interrupted: bool
    people: int
    offline: int
    """How many of the people came at the end."""
    senders: int
    message_bytes: int
    """Decoded bytes of the opaque fields of each message."""
    rate: float | None
    """What `--rate` asked for; null where senders waited for answers."""
    seconds: float
    """From the first send until the last was answered."""
    messages: Messages
    per_second: Rates
    latency: Latency
    cold: Cold | None
    """Null without `--offline`."""
    refusals: list[Refusal]
    """Of tries: a message may have been refused and then accepted."""
    reconnections: int
    """Sockets that were lost and connected again."""
    foreign: int
    """Messages of others that were in the way, with `--tokens`; they were left alone."""
    promises: Promises
    examples: list[str]
    """Some of the broken promises in words."""
    cpu_share: float
    """Of one core that the load itself took; near 1, it is the load that is measured."""


def report(load: Load, run: str, started_at: str, *, interrupted: bool) -> Report:
    """What is known of ``load`` when it has ended."""
    ledgers = [one.mailbox.ledger for one in load.recipients]
    faults = sum((ledger.faults for ledger in ledgers), Counter[Fault]())
    plan = load.plan
    messages = _messages(load)
    return Report(
        run=run,
        url=plan.url,
        started_at=started_at,
        held=not faults,
        interrupted=interrupted,
        people=len(load.recipients),
        offline=len(load.offline),
        senders=len(load.cast.senders),
        message_bytes=plan.size,
        rate=plan.pace.rate,
        seconds=load.sent_for,
        messages=messages,
        per_second=_rates(load, messages),
        latency=Latency(*map(_percentiles, (load.waits.accepted, load.waits.poked, load.waits.saved))),
        cold=_cold(load),
        refusals=[Refusal(kind.route, kind.status, kind.reason, tries) for kind, tries in load.failed.most_common()],
        reconnections=sum(max(0, one.connections - 1) for one in load.recipients),
        foreign=sum(len(one.mailbox.strange) for one in load.recipients if not load.cast.made_up),
        promises=_promises(faults),
        examples=_some([ledger.examples for ledger in ledgers]),
        cpu_share=load.cpu_share,
    )


def _messages(load: Load) -> Messages:
    ledgers = [one.mailbox.ledger for one in load.recipients]
    offered = load.plan.pace.offered(load.begun, load.offered_for)
    return Messages(
        offered=offered,
        accepted=load.accepted,
        given_up=load.begun - load.accepted,
        unsent=offered - load.begun,
        saved=load.saved,
        redelivered=sum(ledger.redelivered_count for ledger in ledgers),
        left=load.left,
    )


def _rates(load: Load, messages: Messages) -> Rates:
    online = sum(one.mailbox.ledger.done_count for one in load.online)
    return Rates(
        _per_second(messages.offered, load.offered_for / NANOSECONDS),
        _per_second(messages.accepted, load.sent_for),
        _per_second(online, load.received_for),
    )


def _per_second(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def _percentiles(latencies: Latencies) -> Percentiles | None:
    return Percentiles(*latencies.percentiles(50, 90, 99, 100)) if len(latencies) else None


def _cold(load: Load) -> Cold | None:
    if not load.offline:
        return None
    count = sum(one.mailbox.ledger.done_count for one in load.offline)
    return Cold(len(load.offline), count, load.cold_for, _per_second(count, load.cold_for))


def _promises(faults: Counter[Fault]) -> Promises:
    return Promises(
        lost=faults[Fault.LOST],
        out_of_order=faults[Fault.OUT_OF_ORDER],
        second_id=faults[Fault.SECOND_ID],
        came_back=faults[Fault.CAME_BACK],
        somebody_elses=faults[Fault.SOMEBODY_ELSES],
        altered=faults[Fault.ALTERED],
    )


def _some(examples: Sequence[Sequence[str]]) -> list[str]:
    """A few of each kind."""
    told: Counter[str] = Counter()
    chosen = []
    for example in (example for some in examples for example in some):
        kind = example.rpartition(": ")[2]
        told[kind] += 1
        if told[kind] <= EXAMPLES:
            chosen.append(example)
    return chosen
