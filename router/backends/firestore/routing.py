"""The atomic routing step of one recipient: presence, sequence, dedupe, enqueue and the decision to poke. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.backends.firestore.documents import message_write
from router.backends.firestore.recipient import Pokes
from router.backends.firestore.records import Record, record_of
from router.backends.firestore.transactions import STEP_BYTES, STEP_MESSAGES, Work
from router.backends.firestore.wire import Write, integers
from router.backends.rules import Skew, StoreRules, decide
from router.lifecycle import Event, State, entry, redelivery, redelivery_owes, step
from router.messages import Delivery, Message, Outcome, Pending, Queued, Routed


def route(
    work: Work, hot: str, deliveries: Sequence[Delivery], now: int, at: int, rules: StoreRules, skew: Skew
) -> tuple[list[Routed], Pokes]:
    """Route ``deliveries``, all of one recipient, in their order; the pokes are sent once this is committed.

    ``hot``: the path of the recipient's hot queue; ``at``: tombstones whose time was over then count as gone, though no
    sweeper has deleted them yet.
    """
    pokes: Pokes = []
    work.recipient.end_leases(now)
    results = [_route(work, hot, delivery, now, at, rules, skew) for delivery in deliveries]
    if any(result.outcome is Outcome.HOT for result in results):
        pokes = work.recipient.poke(now)
    return results, pokes


def _route(work: Work, hot: str, delivery: Delivery, now: int, at: int, rules: StoreRules, skew: Skew) -> Routed:
    message = message_of(delivery)
    recipient = work.recipient
    record = work.records.get(message.id)
    if record is not None and not record.forgettable(at):
        return _known(work, record, delivery, now, rules)
    online = bool(recipient.live(now))
    outcome = decide(
        message,
        online=online,
        queued=recipient.queued,
        size=recipient.queued_bytes,
        inbound_until=recipient.inbound_until,
        now=now - skew.ahead,
        rules=rules,
    )
    if outcome not in (Outcome.HOT, Outcome.COLD):
        return Routed(outcome)
    entered = Queued(message, recipient.next_sequence(now), now, attempts=delivery.attempt)
    state = step(State.UNKNOWN, entry(delivery, outcome, write_through=rules.write_through)).after
    work.keep(record_of(entered, state, None if record is None else record.update_time))
    recipient.inbound_until = rules.charged(recipient.inbound_until, entered.size, now - skew.ahead)
    if outcome is Outcome.HOT:
        recipient.enter_hot(message, now)
        recipient.cold_version += state is State.DOUBLE
        work.write(hot_write(hot, entered))
    else:
        recipient.enter_cold(entered.size)
        recipient.pending[message.id] = Pending(message.id, message.lane, entered.sequence)
        recipient.cold_changed()
    return Routed(outcome, entered.sequence, now)


def _known(work: Work, record: Record, delivery: Delivery, now: int, rules: StoreRules) -> Routed:
    state = record.state
    if (after := redelivery(state, delivery)) is not state:
        record.state, record.acked_at = after, now
        work.keep(record)
    return Routed(redelivery_owes(state, write_through=rules.write_through), record.sequence, now)


def hot_write(hot: str, queued: Queued) -> Write:
    """The document of a hot message: that of ``documents``, with ``ephemeral_at``, when an ephemeral one was accepted,
    or ``durable``, the sequence of one that is not."""
    write = message_write(hot, queued)
    if queued.message.ephemeral:
        integers(write.update.fields, [("ephemeral_at", queued.message.accepted_at)])
    else:
        integers(write.update.fields, [("durable", queued.sequence)])
    return write


def message_of(delivery: Delivery) -> Message:
    assert delivery.message is not None, "only readable deliveries are routed"
    return delivery.message


def steps(deliveries: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
    """``deliveries`` in parts that one commit takes each."""
    start = size = 0
    for index, delivery in enumerate(deliveries):
        length = len(message_of(delivery).envelope)
        if index > start and (index - start == STEP_MESSAGES or size + length > STEP_BYTES):
            yield deliveries[start:index]
            start, size = index, 0
        size += length
    yield deliveries[start:]


def effective_state(work: Work, record: Record) -> State:
    """The state of ``record``, in which a migrator that takes a message writes nothing."""
    taken = work.recipient.is_doubled(record.lane, record.sequence)
    return step(record.state, Event.TAKEN).after if taken else record.state
