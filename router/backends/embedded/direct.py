"""Routes messages in the transaction that makes them durable, where one file holds all that a message passes.

A message has its record, its sequence, its place in hot or cold, its owed poke and its push command at once, or has
none of them. So nothing is pending between two steps, and no step is repeated.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import structs

from router.backends.embedded import cold
from router.backends.embedded.ingress import CHANNEL, SQL, enqueue, waiting
from router.backends.embedded.push import (
    EXPIRED_MORE,
    KEEP_SECONDS,
    Buried,
    EmbeddedDeadLetters,
    announce,
    expire_commands,
    withdraw,
)
from router.backends.embedded.recipients import HOT
from router.backends.embedded.routing import hot_row, route
from router.backends.embedded.rows import one
from router.backends.embedded.signals import Signalling
from router.backends.embedded.state import EmbeddedState
from router.clock import MICROSECONDS
from router.errors import DataDirLost, RouterError
from router.letters import REFUSED, letter_of
from router.messages import DeadLetter, Delivery, Message, Outcome, Published, QueueTotals, Routed

NO_PLACE = -1
"""The sequence of what is in the queue only within a transaction."""


class _Step(NamedTuple):
    """What one transaction did."""

    published: Published
    buried: Buried


class EmbeddedRoutingIngress:
    """``RoutingIngress`` over SQLite."""

    def __init__(
        self,
        state: EmbeddedState,
        signals: Signalling,
        letters: EmbeddedDeadLetters,
        *,
        check_room: Callable[[], None] = lambda: None,
    ) -> None:
        """``check_room`` raises ``NoRoom`` while the router accepts no new messages."""
        self._state = state
        self._database = state.database
        # Hot mail is as durable as cold mail here: a copy in cold would add nothing.
        self._rules = dataclasses.replace(state.rules, write_through=False)
        self._signals = signals
        self._letters = letters
        self._check_room = check_room
        self._announced = 0
        """Commands since the last look for old ones."""

    async def publish(self, messages: Sequence[Message]) -> Published:
        self._check_room()
        now = self._state.clock.now()
        try:
            step = await self._database.write(lambda db: self._route(db, messages, now))
        except Exception as error:
            if isinstance(error, RouterError) and not isinstance(error, DataDirLost):
                raise
            # One of them cannot be routed, or a page of the file is damaged: a pipeline tries each alone, and refuses
            # it in the end. Its sender has done nothing wrong.
            await self._database.write(lambda db: enqueue(db, messages))
            step = _Step(Published([None] * len(messages), [], []), Buried())
        self._letters.tell(step.buried)
        published = step.published
        if None in published.routed:
            self._signals.notify(CHANNEL)
        return published

    def _route(self, db: sqlite3.Connection, messages: Sequence[Message], now: int) -> _Step:
        """Route ``messages``, but for those that have to wait behind others of their recipients."""
        behind = waiting(db, {message.recipient for message in messages})
        direct = [message for message in messages if message.recipient not in behind]
        deliveries = [Delivery(message, 0, 1) for message in direct]
        done = route(db, deliveries, now, self._rules, stores=True)
        if done.stored:
            cold.put(db, self._state.keeper.all_dated(done.stored))
            if self._state.announces:
                self._announce(db, [queued.message for queued in done.stored], now)
        stored = {queued.message.name for queued in done.stored}
        results = iter(done.routed)
        letters: list[DeadLetter] = []
        routed: list[Routed | None] = []
        for message in messages:
            result = None if message.recipient in behind else next(results)
            if result is not None and result.outcome in REFUSED:
                letters.append(letter_of(Delivery(message, 0, 1), *REFUSED[result.outcome], now))
            elif result is not None and result.outcome is Outcome.DROPPED_OFFLINE:
                _work_as_if_online(db, message, now)
            routed.append(_final(result, is_stored=message.name in stored))
        if None in routed:
            enqueue(db, [message for message, result in zip(messages, routed, strict=True) if result is None])
        if self._state.announces:
            hot = [
                one for one, result in zip(messages, routed, strict=True) if result and result.outcome is Outcome.HOT
            ]
            _work_as_if_offline(db, hot, now)
        buried = self._letters.bury(db, letters) if letters else Buried()
        return _Step(Published(routed, letters, done.pokes), buried)

    def _announce(self, db: sqlite3.Connection, messages: Sequence[Message], now: int) -> None:
        announce(db, messages, now)
        self._announced += len(messages)
        if self._announced >= EXPIRED_MORE:
            before = self._state.keeper.deleting_at() - KEEP_SECONDS * MICROSECONDS
            # Delete more than come, or the table would never shrink.
            expire_commands(db, 2 * self._announced, before)
            self._announced = 0

    async def probe(self) -> None:
        await self._database.probe()

    async def backlog(self) -> QueueTotals:
        return QueueTotals(*await self._database.survey(lambda db: one(db, SQL["backlog"], ())))


def _final(result: Routed | None, *, is_stored: bool) -> Routed | None:
    """What became of a message that was routed with ``result``; ``None`` if it has to wait for a pipeline."""
    if result is None or (result.outcome is Outcome.COLD and not is_stored):
        return None  # a pipeline was to write it to cold, and still is
    # Its push command went out with it.
    return structs.replace(result, outcome=Outcome.DUPLICATE) if result.outcome is Outcome.ANNOUNCE else result


def _work_as_if_offline(db: sqlite3.Connection, hot: Sequence[Message], now: int) -> None:
    """Write push commands of ``hot``, and delete them: an answer takes as long as where they stay."""
    if hot:
        announce(db, hot, now)
        withdraw(db, [message.name for message in hot])


def _work_as_if_online(db: sqlite3.Connection, message: Message, now: int) -> None:
    """Write as much for a message that is dropped as for one that goes to the hot queue: else the time of the answer
    would tell its sender that the recipient is offline."""
    record = (message.id, message.recipient, message.lane, NO_PLACE, 0, message.keyed, len(message.envelope))
    if db.execute(HOT["register"], record).rowcount:
        db.execute(HOT["enqueue"], hot_row(Delivery(message, 0, 1), message, Routed(Outcome.HOT, NO_PLACE, now)))
        db.execute(HOT["remove"], (message.recipient, message.lane, NO_PLACE))
        db.execute(HOT["forget"], (message.id, message.recipient))
