"""What every backend is told by the configuration, and the decisions that none of them may make in its own way.

``decide`` is the rule of the atomic routing step (docs/specification.md#the-atomic-step), beside the states of
``router.lifecycle``. A store that runs its step in another language repeats both there, by these names; the contract
tests hold it to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from router.clock import MICROSECONDS
from router.config import Config
from router.interfaces import MOST_IDS
from router.messages import Message, Outcome

DAY_SECONDS = 86_400
MOVE_LEASE_SECONDS = 60
IMPLAUSIBLE_SECONDS = 300
PLAUSIBLE_LEASES = 3
"""A lease is one long; by the clock of another node it may seem a little longer."""
APART_SECONDS = 2.0
"""Clocks that differ by at most this count as equal."""
PLAUSIBLE_INBOUND_SECONDS = 60
"""An inbound budget that is to be whole again so much later than it can be was charged by a clock that was wrong."""
KEPT_INBOUND_SECONDS = 7 * DAY_SECONDS
"""No user is remembered for longer for the sake of a budget that is not whole."""
ORPHAN_SECONDS = 60
"""A worker that has not reported a copy as deleted by then is taken for dead."""


@dataclass(frozen=True, slots=True)
class StoreRules:
    """Spans in seconds, from the ``online``, ``cold`` and ``limits`` sections."""

    lease_seconds: float
    tombstone_seconds: float
    ephemeral_seconds: float
    queue_messages: int
    queue_bytes: int
    inbound_span: int
    """In how many µs an inbound budget of which nothing is left is whole again; 0: there is none."""
    inbound_bytes_per_second: float
    fresh_cold_empty: bool
    """A user of whom this store knows nothing has nothing in cold but what it sees there, since that is in its file."""
    write_through: bool
    """Each hot message gets a copy in cold from the start, so cold may hold one of every message."""
    retention_seconds: float

    @classmethod
    def of(cls, config: Config) -> StoreRules:
        """The rules that ``config`` sets."""
        limits = config.limits
        return cls(
            lease_seconds=config.online.lease_seconds,
            tombstone_seconds=config.online.tombstone_seconds,
            ephemeral_seconds=limits.ephemeral_seconds,
            queue_messages=limits.queue_messages,
            queue_bytes=limits.queue_bytes,
            inbound_span=math.ceil(limits.inbound_bytes * MICROSECONDS / limits.inbound_bytes_per_second),
            inbound_bytes_per_second=limits.inbound_bytes_per_second,
            fresh_cold_empty=config.online.kind == config.cold.kind == "embedded",
            write_through=config.online.durability == "write-through",
            retention_seconds=config.cold.retention_days * DAY_SECONDS,
        )

    def remember_until(self, now: int, *, keyed: bool) -> int:
        """Until when (µs since 1970) the id of a message that leaves the queues at ``now`` is remembered."""
        return now + int(self.remember_seconds(keyed=keyed) * MICROSECONDS)

    def remember_seconds(self, *, keyed: bool) -> float:
        return max(DAY_SECONDS, self.tombstone_seconds) if keyed else self.tombstone_seconds

    def abandoned_before(self, at: int) -> int:
        """A sequence (µs): where ``at`` is the earliest time that it may be, mail with a lower one is in cold no more,
        and nobody is going to write it. Retention comes a day before, and leaves a tombstone of what it removes."""
        return at - int((self.retention_seconds + DAY_SECONDS) * MICROSECONDS)

    def ephemeral_cutoff(self, now: int) -> int:
        """An ephemeral message accepted at or before this has expired."""
        return now - int(self.ephemeral_seconds * MICROSECONDS)

    def charged(self, inbound_until: int, size: int, now: int) -> int:
        """When an inbound budget that was to be whole at ``inbound_until`` is, after ``size`` bytes came at ``now``."""
        return self._whole_at(inbound_until, now) + self._microseconds(size) if self.inbound_span else 0

    def is_exhausted(self, inbound_until: int, size: int, now: int) -> bool:
        """Whether an inbound budget has less than ``size`` left; a whole one lets through what is larger than it."""
        if inbound_until <= now or not self.inbound_span:
            return False
        whole_at = self._whole_at(inbound_until, now)
        return whole_at > now and whole_at + self._microseconds(size) > now + self.inbound_span

    def _whole_at(self, inbound_until: int, now: int) -> int:
        plausible = now + self.inbound_span + PLAUSIBLE_INBOUND_SECONDS * MICROSECONDS
        return inbound_until if now < inbound_until <= plausible else now

    def _microseconds(self, size: int) -> int:
        return math.ceil(size * MICROSECONDS / self.inbound_bytes_per_second)

    def lease_until(self, now: int) -> int:
        return now + int(self.lease_seconds * MICROSECONDS)

    def implausible_lease(self, now: int) -> int:
        """A lease that ends after this was given by a clock that was wrong and has been set back since; it counts as
        one that begins now."""
        return now + int(PLAUSIBLE_LEASES * self.lease_seconds * MICROSECONDS)


def each_once(ids: Sequence[str]) -> list[str]:
    """What ``ColdQueue.find`` is to look for; raises ``ValueError`` where that is more than ``MOST_IDS``."""
    sought = list(dict.fromkeys(ids))
    if len(sought) > MOST_IDS:
        raise ValueError(f"{len(sought)} ids are too many to be looked for at once, which are {MOST_IDS} at most")
    return sought


def holds_move(move_until: int, now: int) -> bool:
    """Whether a migration lease that ends then is held; one of a clock that was wrong and was set back is not."""
    return now < move_until <= implausible_move(now)


def keeps_inbound(now: int) -> int:
    """A budget that is whole again by then, and not yet, is remembered."""
    return now + KEPT_INBOUND_SECONDS * MICROSECONDS


def implausible_ack(now: int) -> int:
    """An acknowledgement after this was dated by a clock that was wrong: it may be long ago."""
    return now + IMPLAUSIBLE_SECONDS * MICROSECONDS


def implausible_move(now: int) -> int:
    """A migration lease that ends after this was given by a clock that was wrong."""
    return now + PLAUSIBLE_LEASES * MOVE_LEASE_SECONDS * MICROSECONDS


class Skew:
    """How far the clock of this process is ahead of its store's (µs), where that is more than a little.

    Its state: what was measured last.
    """

    def __init__(self) -> None:
        self.ahead = 0

    def measured(self, seconds: float) -> float:
        """Take note of ``seconds``, and return them."""
        self.ahead = int(seconds * MICROSECONDS) if abs(seconds) >= APART_SECONDS else 0
        return seconds


def decide(
    message: Message, *, online: bool, queued: int, size: int, inbound_until: int, now: int, rules: StoreRules
) -> Outcome:
    """Where a message with a new id goes; ``queued``: how many wait for its recipient, hot and cold; ``size``: how many
    bytes their envelopes have; ``inbound_until``: when its recipient's inbound budget is whole again; ``now``: by the
    store's clock."""
    if message.ephemeral:
        if message.accepted_at <= rules.ephemeral_cutoff(now):
            return Outcome.DROPPED_EXPIRED
        if not online:
            return Outcome.DROPPED_OFFLINE
    if queued >= rules.queue_messages:
        return Outcome.QUEUE_FULL
    if size + len(message.envelope) > rules.queue_bytes:
        return Outcome.QUEUE_BYTES_FULL
    if rules.is_exhausted(inbound_until, len(message.envelope), now):
        return Outcome.INBOUND_EXHAUSTED
    return Outcome.HOT if online else Outcome.COLD


def next_sequence(highest: int, now: int) -> int:
    """Greater than any before and than the clock, so that it rises even after the store was lost."""
    return max(highest + 1, now)


def cut_after(cut_at: int, now: int, *, more: bool, cold_empty: bool, poked: bool, online: bool) -> int:
    """``HotUser.cut_at`` after the first look of a fetch, which it was before.

    ``more``, ``cold_empty``: as ``HotPage`` has them. ``poked``: a poke was unanswered. ``online``: somebody is
    connected, also with a lease that has run out by this clock.
    """
    may_be_cut = more or (not cold_empty and (poked or cut_at > 0))
    return next_cut(cut_at, now) if may_be_cut and online else 0


def next_cut(cut_at: int, now: int) -> int:
    """A mark that no fetch before has, also within a microsecond; but a clock that was far ahead is not followed."""
    return cut_at + 1 if now <= cut_at < now + MICROSECONDS else now
