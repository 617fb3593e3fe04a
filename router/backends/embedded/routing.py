"""Routes and settles messages, each call in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from router.backends.embedded.recipients import HOT, Pokes, Recipient, recipients_of, save
from router.backends.embedded.rows import json_list, one
from router.backends.embedded.state import EmbeddedState
from router.backends.routing_rules import StoreRules, decide
from router.lifecycle import Event, State, entry, is_misplaced, redelivery, redelivery_owes, state_of, step
from router.messages import Delivery, Message, Outcome, Queued, Routed, Settled


class EmbeddedRouting:
    """``Routing`` over SQLite."""

    def __init__(self, state: EmbeddedState) -> None:
        self._state = state

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        now = self._state.clock.now()
        done = await self._state.database.write_ordered(lambda db: route(db, deliveries, now, self._state.rules))
        await self._state.publish(done.pokes)
        return done.routed

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        now = self._state.clock.now()
        settled, pokes = await self._state.database.write_ordered(
            lambda db: settle(db, messages, now, self._state.rules)
        )
        await self._state.publish(pokes)
        return settled


class Done(NamedTuple):
    """What one step of routing did."""

    routed: list[Routed]
    pokes: Pokes
    """The caller sends them once the transaction is committed."""
    stored: list[Queued]
    """Those that the caller writes to cold in the same transaction."""


def route(
    connection: sqlite3.Connection,
    deliveries: Sequence[Delivery],
    now: int,
    rules: StoreRules,
    *,
    stores: bool = False,
) -> Done:
    """Route ``deliveries`` in their order; ``stores``: the caller writes what goes to cold in the same transaction."""
    recipients = recipients_of(connection, (_message(delivery).recipient for delivery in deliveries), now, rules)
    hot: list[tuple[object, ...]] = []
    done = Done([], [], [])
    for delivery in deliveries:
        message = _message(delivery)
        recipient = recipients[message.recipient]
        outcome = decide(
            message,
            online=bool(recipient.nodes),
            queued=recipient.hot + recipient.cold,
            queued_bytes=recipient.hot_bytes + recipient.cold_bytes,
            inbound_until=recipient.inbound_until,
            now=now,
            rules=rules,
        )
        entered = None
        if outcome is Outcome.HOT or outcome is Outcome.COLD:
            entered = _enter(connection, delivery, message, recipient, outcome, now, rules, stores=stores)
        if entered is None:
            known = _known(connection, delivery, message, now, rules)
            if known is None:
                recipient.accepted += 1
                recipient.turn_away(outcome)
            done.routed.append(known or Routed(outcome))
            continue
        done.routed.append(entered)
        if outcome is Outcome.HOT:
            hot.append(hot_row(delivery, message, entered))
            done.pokes.extend(recipient.poke(now))
        elif stores:
            done.stored.append(Queued(message, entered.sequence, now, attempts=delivery.attempt))
    if hot:
        connection.executemany(HOT["enqueue"], hot)
    save(connection, recipients.values())
    return done


def _message(delivery: Delivery) -> Message:
    assert delivery.message is not None, "only readable deliveries are routed"
    return delivery.message


def _enter(
    connection: sqlite3.Connection,
    delivery: Delivery,
    message: Message,
    recipient: Recipient,
    outcome: Outcome,
    now: int,
    rules: StoreRules,
    *,
    stores: bool,
) -> Routed | None:
    """Give the message its place; ``None`` if its id is known."""
    before = recipient.sequence
    sequence = recipient.next_sequence(now)
    state = step(State.UNKNOWN, entry(delivery, outcome, write_through=rules.write_through, stores=stores)).after
    size = len(message.envelope)
    record = (message.id, message.recipient, message.lane, sequence, state, message.keyed, size)
    if connection.execute(HOT["register"], record).rowcount == 0:
        recipient.sequence = before
        return None
    recipient.accepted += 1
    recipient.inbound_until = rules.recipient.charged(recipient.inbound_until, size, now)
    if outcome is Outcome.HOT:
        recipient.hot += 1
        recipient.hot_bytes += size
        # A fetch that began earlier must see that cold may get a copy.
        recipient.cold_version += state is State.DOUBLE
    else:
        recipient.cold += 1
        recipient.cold_bytes += size
        recipient.pending += state is State.PENDING
        recipient.cold_version += 1
        recipient.cold_empty = 0
    return Routed(outcome, sequence, now)


def _known(
    connection: sqlite3.Connection, delivery: Delivery, message: Message, now: int, rules: StoreRules
) -> Routed | None:
    name = message.id, message.recipient
    row = connection.execute(HOT["registered"], name).fetchone()
    if row is None:
        return None
    _, sequence, number, _, _ = row
    state = state_of(number)
    if (after := redelivery(state, delivery)) is not state:
        connection.execute(HOT["redelivered"], (after, *name))
    return Routed(redelivery_owes(state, write_through=rules.write_through), sequence, now)


def hot_row(delivery: Delivery, message: Message, result: Routed) -> tuple[object, ...]:
    """The parameters of ``hot.enqueue``."""
    return (
        message.recipient, message.lane, result.sequence, message.id, result.queued_at, message.accepted_at,
        message.ephemeral, message.keyed, delivery.attempt, message.checksum, message.envelope,
    )  # fmt: skip


def settle(db: sqlite3.Connection, messages: Sequence[Queued], now: int, rules: StoreRules) -> tuple[Settled, Pokes]:
    acked: list[Queued] = []
    misplaced: list[Queued] = []
    arrived: dict[tuple[str, str], tuple[Queued, State, State]] = {}
    ids = json_list(queued.message.id for queued in messages)
    rows = db.execute(HOT["registered_some"], (ids,))
    records = {(user, id_): (sequence, state_of(number)) for id_, user, sequence, number in rows}
    for queued in messages:
        name = queued.message.name
        sequence, state = records.get(name, (0, State.UNKNOWN))
        settled = step(state, Event.SETTLED)
        if settled.owes_deletion or (state is State.UNKNOWN and _has_left(db, queued, rules)):
            acked.append(queued)
        elif is_misplaced(state, sequence, queued):
            misplaced.append(msgspec.structs.replace(queued, sequence=sequence))
        elif settled.after is not state:
            arrived.setdefault(name, (queued, state, settled.after))
    return Settled(acked, misplaced), _arrive(db, arrived.values(), now, rules)


def _has_left(db: sqlite3.Connection, queued: Queued, rules: StoreRules) -> bool:
    """Whether cold is in this file and has no copy of a message without a record, which a late or repeated call
    settles: it was acknowledged or has expired, with its record, since its writer wrote it."""
    (has_left,) = one(db, HOT["not_in_cold"], (rules.fresh_cold_empty, queued.message.id, queued.message.recipient))
    return bool(has_left)


def _arrive(
    db: sqlite3.Connection, arrived: Collection[tuple[Queued, State, State]], now: int, rules: StoreRules
) -> Pokes:
    """Record messages that cold holds now; each comes with its state before and its state after that."""
    recipients = recipients_of(db, (queued.message.recipient for queued, *_ in arrived), now, rules)
    changed: list[tuple[object, ...]] = []
    for queued, state, after in arrived:
        message, recipient = queued.message, recipients[queued.message.recipient]
        if state is State.UNKNOWN:
            values = (message.id, message.recipient, message.lane, queued.sequence, after, message.keyed)
            is_new = db.execute(HOT["register"], (*values, queued.size)).rowcount
            recipient.accepted += is_new
            recipient.cold += is_new
            recipient.cold_bytes += is_new * queued.size
            recipient.sequence = max(recipient.sequence, queued.sequence)
        else:
            changed.append((after, None, message.id, message.recipient))
            recipient.pending -= state is State.PENDING
        recipient.cold_version += 1
        recipient.cold_empty = 0
    db.executemany(HOT["set_state"], changed)
    # Before ``save``: a poke changes its recipient too.
    pokes = [poke for recipient in recipients.values() for poke in recipient.poke(now)]
    save(db, recipients.values())
    return pokes
