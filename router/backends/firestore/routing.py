"""Routes and settles messages. The steps below the class are pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from router.backends.firestore.documents import message_write
from router.backends.firestore.recipient import Pokes
from router.backends.firestore.records import Record, record_of
from router.backends.firestore.state import FirestoreState, by_user, flat, ids_of
from router.backends.firestore.transactions import STEP_BYTES, STEP_MESSAGES, Work, parts, together
from router.backends.firestore.wire import Write, integers
from router.backends.routing_rules import Skew, StoreRules, decide
from router.lifecycle import Event, State, entry, is_misplaced, redelivery, redelivery_owes, step
from router.messages import Delivery, Message, Outcome, Pending, Queued, Routed, Settled


class FirestoreRouting:
    """``Routing`` over Firestore."""

    def __init__(self, state: FirestoreState) -> None:
        self._state = state

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        now = self._state.clock.now()
        own: defaultdict[str, list[int]] = defaultdict(list)
        for index, delivery in enumerate(deliveries):
            own[message_of(delivery).recipient].append(index)

        async def route(user: str) -> list[Routed]:
            return await self._route(user, [deliveries[index] for index in own[user]], now)

        routed = await together(route, own)
        results = dict(zip((index for indices in own.values() for index in indices), flat(routed), strict=True))
        return [results[index] for index in range(len(deliveries))]

    async def _route(self, user: str, deliveries: Sequence[Delivery], now: int) -> list[Routed]:
        hot, at = self._state.layout.hot_of(user), self._state.keeper.deleting_at()
        results: list[Routed] = []
        for part in steps(deliveries):

            def step(work: Work, part: Sequence[Delivery] = part) -> tuple[list[Routed], Pokes]:
                return route(work, hot, part, now, at, self._state.rules, self._state.skew)

            ids = [message_of(delivery).id for delivery in part]
            new = {id_ for id_, delivery in zip(ids, part, strict=True) if not delivery.delivered_before}
            results += await self._state.change_and_poke(user, ids, step, new=new)
        return results

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        now, own = self._state.clock.now(), by_user(messages)

        async def settle_own(user: str) -> list[Settled]:
            settled: list[Settled] = []
            for part in parts(own[user]):

                def step(work: Work, part: Sequence[Queued] = part) -> tuple[Settled, Pokes]:
                    return settle(work, part, now)

                settled.append(await self._state.change_and_poke(user, ids_of(part), step))
            return settled

        settled = list(flat(await together(settle_own, own)))
        return Settled(list(flat(one.acked for one in settled)), list(flat(one.misplaced for one in settled)))


def route(
    work: Work, hot: str, deliveries: Sequence[Delivery], now: int, at: int, rules: StoreRules, skew: Skew
) -> tuple[list[Routed], Pokes]:
    """Route ``deliveries``, all of one recipient, in their order. The caller sends the pokes once this is committed.

    ``hot``: the path of the recipient's hot queue; ``at``: tombstones that ended at or before this count as gone, even
    if no sweeper has deleted them yet.
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
        queued_bytes=recipient.queued_bytes,
        inbound_until=recipient.inbound_until,
        now=now - skew.ahead,
        rules=rules,
    )
    if outcome not in (Outcome.HOT, Outcome.COLD):
        return Routed(outcome)
    entered = Queued(message, recipient.next_sequence(now), now, attempts=delivery.attempt)
    state = step(State.UNKNOWN, entry(delivery, outcome, write_through=rules.write_through)).after
    work.keep(record_of(entered, state, None if record is None else record.update_time))
    recipient.inbound_until = rules.recipient.charged(recipient.inbound_until, entered.size, now - skew.ahead)
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
    """A write of the document of a hot message: as in ``documents``, and ``ephemeral_at``, when it was accepted, if it
    is ephemeral, else ``durable``, its sequence."""
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
    """``deliveries`` in parts, each of which fits into one commit."""
    start = size = 0
    for index, delivery in enumerate(deliveries):
        length = len(message_of(delivery).envelope)
        if index > start and (index - start == STEP_MESSAGES or size + length > STEP_BYTES):
            yield deliveries[start:index]
            start, size = index, 0
        size += length
    yield deliveries[start:]


def effective_state(work: Work, record: Record) -> State:
    """The state of ``record``. A migrator that takes a message notes that in the user's document, not in the record."""
    taken = work.recipient.is_doubled(record.lane, record.sequence)
    return step(record.state, Event.TAKEN).after if taken else record.state


def settle(work: Work, messages: Sequence[Queued], now: int) -> tuple[Settled, Pokes]:
    """Record that cold holds ``messages``, all of one user. The caller sends the pokes once this is committed."""
    acked: list[Queued] = []
    misplaced: list[Queued] = []
    settled = False
    work.recipient.end_leases(now)
    for queued in messages:
        record = work.records.get(queued.message.id)
        state = record.state if record else State.UNKNOWN
        after, owes_deletion = step(state, Event.SETTLED)
        if owes_deletion:
            acked.append(queued)
            continue
        if record is None:
            work.recipient.sequence = max(work.recipient.sequence, queued.sequence)
            work.keep(record_of(queued, after))
            work.recipient.enter_cold(queued.size)
        elif is_misplaced(state, record.sequence, queued):
            misplaced.append(msgspec.structs.replace(queued, sequence=record.sequence))
            continue
        elif after is state:
            continue
        else:
            record.state = after
            work.recipient.pending.pop(record.id, None)
            work.keep(record)
        work.recipient.cold_changed()
        settled = True
    return Settled(acked, misplaced), work.recipient.poke(now) if settled else []
