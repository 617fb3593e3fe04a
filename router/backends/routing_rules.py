"""The configured rules of a store, and the decisions that all backends must make alike.

``decide`` is the rule of the atomic routing step (docs/specification.md#the-atomic-step), beside the states of
``router.lifecycle``. The Lua scripts of Redis repeat both under the same names; the contract tests compare them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from router.backends.recipient_limits import RecipientLimits
from router.clock import MICROSECONDS
from router.config import Config
from router.interfaces import MOST_IDS
from router.messages import Message, Outcome

DAY_SECONDS = 86_400
MOVE_LEASE_SECONDS = 60
UNDER_WAY_SECONDS = 30
"""A cold write that has been pending for longer is of a pipeline that died: a write that fails is repeated sooner."""
LEAD_SECONDS = 180
"""How long a process counts for all after it has said so; three times as long as it takes until it says so again."""
IMPLAUSIBLE_SECONDS = 300
PLAUSIBLE_LEASES = 3
"""A lease that ends later than this many leases from now was given by a wrong clock. The clocks of two nodes differ a
little, so one lease would be too strict."""
APART_SECONDS = 2.0
"""Clocks that differ by less than this count as equal."""
ORPHAN_SECONDS = 60
"""If nobody reports a copy of an acknowledged message as deleted within this time, a sweeper deletes it."""


@dataclass(frozen=True, slots=True)
class StoreRules:
    """Spans in seconds, from the ``online``, ``cold`` and ``limits`` sections."""

    lease_seconds: float
    tombstone_seconds: float
    ephemeral_seconds: float
    recipient: RecipientLimits
    fresh_cold_empty: bool
    """Online store and cold queue are one SQLite file. Then the store can look whether an unknown user's cold queue is
    empty; any other store has to assume that it is not."""
    write_through: bool
    """Each hot message gets a copy in cold as soon as it is routed."""
    retention_seconds: float

    @classmethod
    def of(cls, config: Config, *, fresh_cold_empty: bool = False) -> StoreRules:
        """The rules that ``config`` sets."""
        return cls(
            lease_seconds=config.online.lease_seconds,
            tombstone_seconds=config.online.tombstone_seconds,
            ephemeral_seconds=config.limits.ephemeral_seconds,
            recipient=RecipientLimits.of(config.limits),
            fresh_cold_empty=fresh_cold_empty,
            write_through=config.online.durability == "write-through",
            retention_seconds=config.cold.retention_days * DAY_SECONDS,
        )

    def remember_until(self, now: int, *, keyed: bool) -> int:
        """When (µs since 1970) the tombstone of a message ends that leaves the queues at ``now``."""
        return now + int(self.remember_seconds(keyed=keyed) * MICROSECONDS)

    def remember_seconds(self, *, keyed: bool) -> float:
        return max(DAY_SECONDS, self.tombstone_seconds) if keyed else self.tombstone_seconds

    def abandoned_before(self, at: int) -> int:
        """A sequence (µs); ``at`` is the earliest time that it may be. Retention has deleted all mail with a lower one
        from cold, and nobody is going to write any. Retention itself comes a day earlier, so that it, and not this
        bound, ends the record of mail that is in cold, and leaves a tombstone."""
        return at - int((self.retention_seconds + DAY_SECONDS) * MICROSECONDS)

    def ephemeral_cutoff(self, now: int) -> int:
        """Ephemeral messages accepted at or before this (µs since 1970) have expired."""
        return now - int(self.ephemeral_seconds * MICROSECONDS)

    def lease_until(self, now: int) -> int:
        return now + int(self.lease_seconds * MICROSECONDS)

    def implausible_lease(self, now: int) -> int:
        """A lease that ends after this was given by a wrong clock, which was set back since. It counts as one that
        begins now."""
        return now + int(PLAUSIBLE_LEASES * self.lease_seconds * MICROSECONDS)


def each_once(ids: Sequence[str]) -> list[str]:
    """``ids`` without repetitions, for ``ColdQueue.find``; raises ``ValueError`` for more than ``MOST_IDS``."""
    sought = list(dict.fromkeys(ids))
    if len(sought) > MOST_IDS:
        raise ValueError(f"{len(sought)} ids are too many to be looked for at once, which are {MOST_IDS} at most")
    return sought


def offline_since(noted: int, ended: Iterable[int]) -> int:
    """Since when a user without a live connection is offline. ``noted``: when the last one was seen to end, 0 if it was
    not; ``ended``: ends of the leases of connections that have run out and that nobody has seen to end yet."""
    return max((noted, *ended))


def holds_move(move_until: int, now: int) -> bool:
    """Whether a migration lease that ends at ``move_until`` is still held. One given by a wrong clock is not."""
    return now < move_until <= implausible_move(now)


def implausible_ack(now: int) -> int:
    """An acknowledgement dated after this was dated by a wrong clock, and may be old."""
    return now + IMPLAUSIBLE_SECONDS * MICROSECONDS


def implausible_move(now: int) -> int:
    """A migration lease that ends after this was given by a wrong clock."""
    return now + PLAUSIBLE_LEASES * MOVE_LEASE_SECONDS * MICROSECONDS


class Skew:
    """How far (µs) the clock of this process is ahead of its store's, by the last measurement; 0 for less than
    ``APART_SECONDS``."""

    def __init__(self) -> None:
        self.ahead = 0

    def measured(self, seconds: float) -> float:
        """Record ``seconds`` as measured, and return them."""
        self.ahead = int(seconds * MICROSECONDS) if abs(seconds) >= APART_SECONDS else 0
        return seconds


def decide(
    message: Message, *, online: bool, queued: int, queued_bytes: int, inbound_until: int, now: int, rules: StoreRules
) -> Outcome:
    """Where a message with a new id goes. ``queued``, ``queued_bytes``: messages and envelope bytes that wait for its
    recipient, hot and cold together; ``inbound_until``: when the recipient's inbound budget is whole again; ``now``: by
    the store's clock."""
    if message.ephemeral:
        if message.accepted_at <= rules.ephemeral_cutoff(now):
            return Outcome.DROPPED_EXPIRED
        if not online:
            return Outcome.DROPPED_OFFLINE
    refusal = rules.recipient.refusal(
        len(message.envelope), queued=queued, queued_bytes=queued_bytes, inbound_until=inbound_until, now=now
    )
    return refusal or (Outcome.HOT if online else Outcome.COLD)


def next_sequence(highest: int, now: int) -> int:
    """Greater than ``highest``, and not less than the clock, so that sequences keep rising after a store lost its
    data."""
    return max(highest + 1, now)


def cut_after(cut_at: int, now: int, *, more: bool, cold_empty: bool, poked: bool, online: bool) -> int:
    """The new ``HotUser.cut_at`` after the first read of a fetch; ``cut_at`` is the old one.

    ``more``, ``cold_empty``: as in ``HotPage``. ``poked``: a poke has no answer yet. ``online``: the user has a
    connection, even one whose lease has run out by this clock.
    """
    may_be_cut = more or (not cold_empty and (poked or cut_at > 0))
    return next_cut(cut_at, now) if may_be_cut and online else 0


def next_cut(cut_at: int, now: int) -> int:
    """A mark (µs since 1970) that differs from the one before, even within a microsecond. A mark that a wrong clock set
    more than a second ahead is not continued."""
    return cut_at + 1 if now <= cut_at < now + MICROSECONDS else now
