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
    """How often each promise was broken; anything but 0 is a fault of the router."""

    lost: int
    """Accepted, but not returned within `--patience` after the last progress."""
    out_of_order: int
    """Returned after a message to the same recipient that was sent only after this one was accepted."""
    second_id: int
    """One message with two ids, or two messages with one id."""
    came_back: int
    """Returned by a fetch that began after the acknowledgement was answered."""
    somebody_elses: int
    """Returned to another user than its recipient."""
    altered: int
    """Returned with other bytes than were sent."""


class Messages(Struct):
    """Counts of messages."""

    offered: int
    """Due to be sent."""
    accepted: int
    """Answered 202."""
    given_up: int
    """Sent, but not answered 202 within 10 s of attempts; they may have arrived nevertheless."""
    unsent: int
    """Due, but never sent, since no sender was free; with `--rate` only."""
    saved: int
    """Saved by their recipients and acknowledged, each counted once."""
    redelivered: int
    """Returned again before their acknowledgement was answered, which is allowed."""
    left: int
    """Still in the router, as far as the command knows."""


class Rates(Struct):
    """Messages per second."""

    offered: float
    accepted: float
    saved: float
    """By recipients who were online, until they had the last one."""


class Percentiles(Struct):
    """In seconds, from the moment at which a message was due."""

    p50: float
    p90: float
    p99: float
    max: float


class Latency(Struct):
    """Null if nothing was measured."""

    accepted: Percentiles | None
    """Until the 202."""
    poked: Percentiles | None
    """For recipients online: until its poke was read, or until a fetch already under way returned it."""
    saved: Percentiles | None
    """For recipients online: until it was saved and its acknowledgement was answered."""


class Cold(Struct):
    """Recipients who came online after all messages were sent."""

    people: int
    messages: int
    """Messages that they saved."""
    seconds: float
    """From coming online until they had the last one."""
    per_second: float


class Refusal(Struct):
    """A kind of failed attempt: refused, or not answered."""

    route: str
    status: int | None
    """Null if there was no answer."""
    reason: str
    """The last part of the problem's `type`; if there is none, the phrase of the status or the name of the error."""
    tries: int


class Report(Struct):
    """What `--json` prints."""

    run: str
    """Part of the names of the generated users: `urn:sm:bench:<run>-0` and so on."""
    url: str
    started_at: str
    """RFC 3339."""
    held: bool
    """No promise was broken."""
    interrupted: bool
    people: int
    offline: int
    """How many of the people came online only at the end."""
    senders: int
    message_bytes: int
    """Decoded bytes of the opaque fields of each message."""
    rate: float | None
    """The value of `--rate`; null without it."""
    seconds: float
    """From the first send until the last was answered."""
    messages: Messages
    per_second: Rates
    latency: Latency
    cold: Cold | None
    """Null without `--offline`."""
    refusals: list[Refusal]
    """Counts attempts: a message may have been refused and then accepted."""
    reconnections: int
    """WebSockets that were lost and opened again."""
    foreign: int
    """With `--tokens`: messages from other senders that were in the way; they were left alone."""
    promises: Promises
    examples: list[str]
    """Descriptions of some broken promises."""
    cpu_share: float
    """Share of one core that the load generator used. Near 1, the figures measure the generator, not the router."""


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
