"""Nobody is refused for nothing: a part of the judge.

A queue is full of what was sent to its owner and is not acknowledged; a budget is spent by what came. Neither can hold
more than all that had been sent when the dead letter went out, and what was acknowledged before the refused message was
sent has left the queue. What was refused with 429 is nowhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.sim import history as h
from tests.sim.plan import Plan

PROMISE = "refused is said"
REASONS = ("queue-full", "inbound-exhausted")
TOO_MANY = "429"


@dataclass(slots=True)
class _Message:
    """Moments are indices into the history."""

    sending: h.Sending
    began: int
    acked: float = math.inf
    open: int = 0
    """How many tries were not refused with 429, or not yet."""


@dataclass(slots=True)
class Refusals:
    """Takes the events in their order, and tells ``broken`` at the end. State: what it has seen of each message."""

    broken: Callable[[str, str], None]
    plan: Plan
    """It says what the limits are, and whether clocks agree."""
    messages: dict[str, _Message] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    """By id."""
    tries: dict[int, h.Sending] = field(default_factory=dict)
    acking: dict[int, h.Acking] = field(default_factory=dict)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    letters: list[tuple[int, h.Buried]] = field(default_factory=list)
    again: set[str] = field(default_factory=set)
    forgot: bool = False

    def take(self, index: int, event: h.Event) -> None:
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, index, event)

    def sending(self, index: int, event: h.Sending) -> None:
        self.tries[event.op] = event
        self.pairs[event.sender, event.user] += 1
        self.messages.setdefault(event.tag, _Message(event, index)).open += 1

    def sent(self, index: int, event: h.Sent) -> None:
        del index
        sending = self.tries.pop(event.op)
        self.tags[event.id] = sending.tag

    def not_sent(self, index: int, event: h.NotSent) -> None:
        del index
        sending = self.tries.pop(event.op)
        if event.why != TOO_MANY:
            return
        self.messages[sending.tag].open -= 1
        tries, bounds = self.pairs[sending.sender, sending.user], self.plan.bounds
        if not bounds.pair_rate or tries <= bounds.pair_burst:
            self.broken(PROMISE, f"429 for {sending.tag}, the {tries}. from {sending.sender} to {sending.user}")

    def fetched(self, index: int, event: h.Fetched) -> None:
        del index
        for item in event.batch:
            message = self.messages.get(item.tag)
            if message is not None and not message.open:
                self.broken(PROMISE, f"{item.tag} was refused with 429, and is here")

    def acknowledging(self, index: int, event: h.Acking) -> None:
        del index
        self.acking[event.op] = event

    def acknowledged(self, index: int, event: h.Acked) -> None:
        acking = self.acking.pop(event.op)
        for id_ in acking.ids:
            message = self.messages.get(self.tags.get(id_, ""))
            if message is not None and message.sending.user == acking.user:
                message.acked = min(message.acked, index)

    def bury(self, index: int, event: h.Buried) -> None:
        self.letters.append((index, event))

    def routed_again(self, index: int, event: h.RoutedAgain) -> None:
        del index
        self.again.add(event.id)

    def forgotten(self, index: int, event: h.Forgotten) -> None:
        """What was acknowledged may be delivered, and be counted, once more."""
        del index, event
        self.forgot = True

    def end(self, index: int, event: h.End) -> None:
        del index, event
        reasons = dict(zip(REASONS, (self._is_full, self._is_exhausted), strict=True))
        for index_, letter in self.letters:
            message = self.messages.get(self.tags.get(letter.id, ""))
            judge = reasons.get(letter.reason)
            if message is not None and judge is not None and not judge(index_, message):
                self.broken(PROMISE, f"{message.sending.tag} ({letter.id}) is called {letter.reason}, and nothing is")

    def _others(self, index: int, message: _Message) -> list[_Message]:
        """What can have come to the same recipient when ``message`` was routed, of which ``index`` told."""
        refused = {letter.id for _, letter in self.letters if letter.reason in REASONS} - self.again
        gone = {self.tags[id_] for id_ in refused if id_ in self.tags}
        return [
            other
            for tag, other in self.messages.items()
            if other is not message
            and other.sending.user == message.sending.user
            and other.began < index
            and tag not in gone
        ]

    def _is_full(self, index: int, message: _Message) -> bool:
        others = self._others(index, message)
        waiting = [other for other in others if self.forgot or other.acked > message.began]
        size = sum(other.sending.size for other in (*waiting, message))
        return len(waiting) >= self.plan.cap or size > self.plan.bounds.queue_bytes

    def _is_exhausted(self, index: int, message: _Message) -> bool:
        """A clock that was ahead has spent more of the budget."""
        size = sum(other.sending.size for other in (*self._others(index, message), message))
        return self.forgot or not self.plan.clocks_agree or size > self.plan.bounds.inbound_bytes


_HANDLERS: dict[type, Callable[[Refusals, int, Any], None]] = {
    h.Sending: Refusals.sending,
    h.Sent: Refusals.sent,
    h.NotSent: Refusals.not_sent,
    h.Fetched: Refusals.fetched,
    h.Acking: Refusals.acknowledging,
    h.Acked: Refusals.acknowledged,
    h.Buried: Refusals.bury,
    h.RoutedAgain: Refusals.routed_again,
    h.Forgotten: Refusals.forgotten,
    h.End: Refusals.end,
}
