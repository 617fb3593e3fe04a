"""Judges a history by the promises (docs/specification.md#promises), each by its own name.

Only what clients saw, what went out, and what lies in the stores at the end is judged; how the router came to it is
not looked at. Where a client cannot know (no answer, a refusal), both outcomes are allowed, but not one after the
other.

An ephemeral message may be dropped at any time, and one that was refused is a dead letter. Where such a message was
routed again, or by a call that was given up, it may come after all, and late; only then it has no order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from tests.sim import history as h
from tests.sim.plan import Plan
from tests.sim.promptness import Promptness
from tests.sim.refusals import REASONS, Refusals

CLOCKS_SECONDS = 300.0
"""So long before its time, mail is no longer asked for; longer than a drain at the end takes."""


class Violation(Struct, frozen=True):
    """A promise that was broken at ``at`` (seconds), by the event of this ``index``."""

    promise: str
    text: str
    at: float
    index: int


@dataclass(slots=True)
class Known:
    """What is known of one message. Moments are indices into the history."""

    tag: str
    user: str
    express: bool
    ephemeral: bool
    began: int
    began_at: float = 0.0
    batch: str = ""
    """It was first sent in one request with others of this batch, if any: behind those with a lower ``place``."""
    place: int = 0
    accepted: int | None = None
    accepted_clock: float = 0.0
    id: str | None = None
    seen: int | None = None
    """The first fetch that returned it had ended."""
    returned: int = -1
    ack_began: int | None = None
    acked: int | None = None
    gone: int | None = None
    """A fetch missed it, after an acknowledgement of which nobody knows whether it worked."""
    excused: bool = False
    """The online store forgot that it was acknowledged."""
    unrecorded: bool = False
    """The online store forgot it while it was hot: whoever has read it then acknowledges what nobody knows."""

    def __str__(self) -> str:
        return f"{self.tag} ({self.id})"


@dataclass(slots=True)
class _Fetch:
    began: int
    user: str
    limit: int
    clock: float
    without: tuple[str, ...]


@dataclass(slots=True)
class Judge:
    """Takes the events in their order; ``verdict`` tells what it found."""

    ephemeral_seconds: float
    retention_seconds: float = math.inf
    may_refuse: bool = False
    """Limits are small enough to be met."""
    violations: list[Violation] = field(default_factory=list)
    messages: dict[str, Known] = field(default_factory=dict)
    by_id: dict[str, Known] = field(default_factory=dict)
    live: dict[str, dict[str, Known]] = field(default_factory=dict)
    """By user and tag: known to be accepted, kept, and with no acknowledgement under way."""
    doubtful: dict[str, dict[str, Known]] = field(default_factory=dict)
    """An acknowledgement has begun, and none was answered."""
    buried: set[str] = field(default_factory=set)
    flipped: set[str] = field(default_factory=set)
    """A copy of them was damaged: they may be served from another, or be dead letters."""
    turned_away: set[str] = field(default_factory=set)
    """Dead letters, since a queue was full or a budget spent."""
    refused: set[str] = field(default_factory=set)
    """By an online store that was not heard."""
    again: set[str] = field(default_factory=set)
    """Routed more than once."""
    unsettled: set[str] = field(default_factory=set)
    """Written to cold in an outage: one fetch may have it, and the next one not."""
    missing: list[tuple[Violation, Known]] = field(default_factory=list)
    """What is one unless the message turns out to be refused: its dead letter comes a moment after later mail."""
    pushed: set[str] = field(default_factory=set)
    unannounceable: set[str] = field(default_factory=set)
    """When the online store forgot them: nobody knows that no push command went out."""
    adrift: set[str] = field(default_factory=set)
    """The online store forgot that they were on their way to cold; until they are seen, or announced."""
    ops: dict[int, h.Event | _Fetch] = field(default_factory=dict)
    draining: int | None = None
    index: int = 0
    at: float = 0.0

    def broken(self, promise: str, text: str) -> None:
        self.violations.append(Violation(promise, text, self.at, self.index))

    def take(self, at: float, index: int, event: h.Event) -> None:
        self.at, self.index = at, index
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    # Sending.

    def sending(self, event: h.Sending) -> None:
        self.ops[event.op] = event
        if event.tag not in self.messages:
            self.messages[event.tag] = Known(
                event.tag, event.user, event.express, event.ephemeral, self.index, self.at, event.batch, event.place
            )

    def sent(self, event: h.Sent) -> None:
        sending = self.ops.pop(event.op)
        assert isinstance(sending, h.Sending)
        message = self.messages[sending.tag]
        self._identify(message, event.id)
        if message.accepted is None:
            message.accepted = self.index
            self._watch(message)
        message.accepted_clock = max(message.accepted_clock, event.clock)

    def published(self, event: h.Published) -> None:
        message = self.by_id.get(event.id)
        if message is not None:
            message.accepted_clock = max(message.accepted_clock, event.clock)

    def _identify(self, message: Known, id_: str) -> None:
        other = self.by_id.setdefault(id_, message)
        if other is not message:
            self.broken("one id for life", f"{id_} is the id of {other.tag} and of {message.tag}")
        if message.id is None:
            message.id = id_
        elif message.id != id_:
            self.broken("one id for life", f"{message} has a second id, {id_}")

    def _watch(self, message: Known) -> None:
        gone = any(message.id in ids for ids in (self.buried, self.flipped, self.refused))
        kept = not message.ephemeral and message.ack_began is None and not gone
        if kept:
            self.live.setdefault(message.user, {})[message.tag] = message

    # Fetching.

    def fetching(self, event: h.Fetching) -> None:
        self.ops[event.op] = _Fetch(self.index, event.user, event.limit, event.clock, event.without)

    def fetched(self, event: h.Fetched) -> None:
        fetch = self.ops.pop(event.op)
        assert isinstance(fetch, _Fetch)
        fetch.clock = min(fetch.clock, event.clock)
        batch = self._known(fetch, event.batch)
        self._returned_rightly(fetch, batch)
        self._ordered(batch)
        self._complete(fetch, batch)
        for message in batch:
            message.returned = self.index
            if message.id is not None:
                self.adrift.discard(message.id)
            if message.seen is None and message.id not in self.unsettled:
                message.seen = self.index
                self._watch(message)

    def _known(self, fetch: _Fetch, items: Iterable[h.Item]) -> list[Known]:
        batch: list[Known] = []
        for item in items:
            message = self.messages.get(item.tag)
            if message is None:
                self.broken("sealed as sent", f"{item.id} carries what nobody sent: {item.tag!r}")
                continue
            if message.user != fetch.user:
                self.broken("nobody else's mail", f"{fetch.user} was given {message} of {message.user}")
            self._identify(message, item.id)
            batch.append(message)
        if len({message.tag for message in batch}) < len(batch):
            self.broken("one id for life", f"{fetch.user} was given a message twice in one batch")
        if len(batch) > fetch.limit:
            self.broken("within the limit", f"{len(batch)} messages, {fetch.limit} were asked for")
        return batch

    def _returned_rightly(self, fetch: _Fetch, batch: list[Known]) -> None:
        for message in batch:
            forgiven = message.excused or message.unrecorded
            if message.acked is not None and message.acked < fetch.began and not forgiven:
                self.broken("acknowledged stays away", f"{message} came back to {fetch.user}")
            elif message.id in fetch.without and not forgiven:
                self.broken("acknowledged stays away", f"{message} is in the page of the request that acknowledges it")
            elif message.gone is not None and message.gone < fetch.began and not self._may_return(message):
                self.broken("acknowledged stays away", f"{message} was gone and came back to {fetch.user}")
            late = message.accepted is not None and fetch.clock >= message.accepted_clock + self.ephemeral_seconds
            if message.ephemeral and late:
                self.broken("ephemeral", f"{message} was returned after its time")

    def _may_return(self, message: Known) -> bool:
        """Nobody answered its acknowledgement: it was gone, or out of sight where an outage had put it, and then it was
        delivered and routed again."""
        return message.excused or message.id in self.again

    def _ordered(self, batch: list[Known]) -> None:
        lanes = [not message.express for message in batch]
        if lanes != sorted(lanes):
            self.broken("in order", "normal mail stands before express mail")
        for express in (True, False):
            latest: Known | None = None
            last: dict[str, Known] = {}
            """By batch, the one with the highest place."""
            for message in batch:
                if message.express is not express or message.excused or self._may_be_late(message):
                    continue
                other = last.setdefault(message.batch, message)
                if message.batch and message.place < other.place and message.accepted is not None:
                    self.broken("in order", f"{other} stands before {message}, behind which it was sent")
                if message.place > other.place:
                    last[message.batch] = message
                if latest is not None and message.accepted is not None and message.accepted < latest.began:
                    self.broken("in order", f"{latest} stands before {message}, which was accepted before it was sent")
                if latest is None or message.began > latest.began:
                    latest = message

    def _may_be_late(self, message: Known) -> bool:
        """It was dropped or refused, and then routed after all; or its copy in the ingress is damaged, and one that was
        sent again is routed."""
        lost = message.ephemeral or message.id in self.buried or message.id in self.flipped
        again = message.id in self.again and lost
        sent_again = message.id in self.buried and message.id in self.flipped
        return again or sent_again or message.id in self.refused

    def _complete(self, fetch: _Fetch, batch: list[Known]) -> None:
        """Nothing that had to be in the batch is missing."""
        given = {message.tag for message in batch}
        latest = {
            express: max((m.began for m in batch if m.express is express), default=-1) for express in (True, False)
        }
        last = _last_places(batch)
        full = len(batch) >= fetch.limit
        normal = sum(not message.express for message in batch)
        share = fetch.limit // 5 or min(1, fetch.limit - 1)
        for message in list(self.live.get(fetch.user, {}).values()):
            if message.tag in given or message.id in self.adrift or self._may_have_expired(message):
                continue
            overtaken = message.place < last.get((message.batch, message.express), -1)
            overtaken |= message.accepted is not None and message.accepted < latest[message.express]
            if overtaken:
                text = f"{message} is missing from a batch with later mail: {_tags(batch)}"
                if self.may_refuse:
                    self.missing.append((Violation("in order", text, self.at, self.index), message))
                else:
                    self.broken("in order", text)
            elif message.seen is not None and message.seen < fetch.began:
                if not full:
                    self.broken("at least once", f"{message} was there before and is missing, nobody acknowledged it")
                elif normal > max(share, 1) if message.express else normal < share:
                    self.broken("a lane's part", f"{message} is missing from a batch with {normal} of normal mail")
        for message in self.doubtful.get(fetch.user, {}).values():
            missed = message.tag not in given and not full and not message.ephemeral
            missed = missed and message.id not in self.unsettled
            if missed and message.seen is not None and message.seen < fetch.began and message.gone is None:
                message.gone = self.index

    def _may_have_expired(self, message: Known) -> bool:
        """Or may be about to: it was routed no earlier than it was sent, and the clocks differ a little."""
        return self.at >= message.began_at + self.retention_seconds - CLOCKS_SECONDS

    # Acknowledging.

    def acking(self, event: h.Acking) -> None:
        self.ops[event.op] = event
        for message in self._own(event):
            if message.ack_began is None:
                message.ack_began = self.index
                self.live.get(message.user, {}).pop(message.tag, None)
                self.doubtful.setdefault(message.user, {})[message.tag] = message

    def acked(self, event: h.Acked) -> None:
        acking = self.ops.pop(event.op)
        assert isinstance(acking, h.Acking)
        for message in self._own(acking):
            if message.acked is None:
                message.acked = self.index
                # From now on it must not come back, whoever misses it.
                self.doubtful[message.user].pop(message.tag, None)

    def _own(self, event: h.Acking) -> list[Known]:
        known = [self.by_id[id_] for id_ in event.ids if id_ in self.by_id]
        return [message for message in known if message.user == event.user]

    # What goes out, and what happens to the stores.

    def push(self, event: h.Pushed) -> None:
        self.pushed.add(event.id)
        self.adrift.discard(event.id)
        if event.id in self.buried:
            self.again.add(event.id)
        message = self.by_id.get(event.id)
        damaged = event.id in self.buried and event.id in self.flipped
        if not event.found and not damaged and (message is None or message.ack_began is None):
            self.broken("push after commit", f"a push command went out for {event.id}, which cannot be fetched")
        if message is not None and message.user != event.user:
            self.broken("nobody else's mail", f"{event.user} was told of {message} of {message.user}")

    def bury(self, event: h.Buried) -> None:
        self.buried.add(event.id)
        if event.reason in REASONS:
            self.turned_away.add(event.id)
        if event.reason == "damaged" and event.id not in self.flipped:
            self.broken("sealed as sent", f"{event.id} is called damaged, and nobody has touched it")
        self._excuse(event.id)

    def refuse(self, event: h.Refused) -> None:
        self.refused.add(event.id)
        self._excuse(event.id)

    def flip(self, event: h.Flipped) -> None:
        self.flipped.add(event.id)
        self._excuse(event.id)

    def _excuse(self, id_: str) -> None:
        """It need not be in any batch from here on."""
        message = self.by_id.get(id_)
        if message is not None:
            self.live.get(message.user, {}).pop(message.tag, None)

    def routed_again(self, event: h.RoutedAgain) -> None:
        self.again.add(event.id)

    def unsettle(self, event: h.Unsettled) -> None:
        self.unsettled.update(event.ids)
        # A dead letter among them is routed again: a second copy, as of a publish that was repeated.
        self.again.update(self.buried.intersection(event.ids))

    def settled(self, event: h.Settled) -> None:
        self.unsettled.difference_update(event.ids)

    def power_lost(self, event: h.PowerLost) -> None:
        """What was routed and not on disk is routed again: until then it is as if it had not been."""
        for message in self.messages.values():
            message.seen = message.gone = None

    def forgotten(self, event: h.Forgotten) -> None:
        for message in self.messages.values():
            message.seen = None
            message.excused = message.excused or message.ack_began is not None
            message.unrecorded = message.unrecorded or message.id in event.unannounced
        self.unannounceable.update(event.unannounced)
        self.adrift.update(event.under_way)

    # The end.

    def final(self, event: h.Final) -> None:
        for id_ in event.ingress:
            self.broken("nothing is stuck", f"{id_} still waits to be routed")
        for what in event.owed:
            self.broken("nothing is stuck", f"{what} is still under way")
        for what in event.oddities:
            self.broken("one id for life", what)
        for user, id_ in event.hot:
            where = "with a client that reads" if user in event.online else "though the user is offline"
            self.broken("nothing is stuck", f"{id_} is still hot, {where}")
        held = {id_ for _, id_ in (*event.hot, *event.cold)}
        for user, id_ in event.cold:
            self._in_cold(user, id_, online=user in event.online)
        for message in self.messages.values():
            self._is_held(message, held)

    def _in_cold(self, user: str, id_: str, *, online: bool) -> None:
        if online and id_ not in self.buried:
            self.broken("nothing is stuck", f"{id_} is still cold, with a client that reads")
        if id_ not in self.pushed and id_ not in self.buried and id_ not in self.unannounceable:
            self.broken("nothing is stuck", f"{id_} is cold and was never announced")
        message = self.by_id.get(id_)
        if message is None:
            return
        if message.ephemeral:
            self.broken("ephemeral", f"{message} is in cold")
        if message.user != user:
            self.broken("nobody else's mail", f"{message} of {message.user} is in the queue of {user}")

    def _is_held(self, message: Known, held: set[str]) -> None:
        if message.accepted is None or message.ephemeral or message.ack_began is not None:
            return
        if self._may_have_expired(message):
            return
        if message.id not in held and message.id not in self.buried:
            self.broken("accepted is durable", f"{message} was answered 202 and is nowhere")

    def drain(self, event: h.Draining) -> None:
        self.draining = self.index
        self.unread = [
            message
            for message in self.messages.values()
            if message.accepted is not None
            and not message.ephemeral
            and message.ack_began is None
            and message.id not in self.buried
            and not self._may_have_expired(message)
        ]

    unread: list[Known] = field(default_factory=list)

    def end(self, event: h.End) -> None:
        assert self.draining is not None, "an end without a drain"
        for message in self.unread:
            if message.returned < self.draining and not (message.id in self.flipped and message.id in self.buried):
                self.broken("at least once", f"{message} never came to its recipient")
        for what in event.left:
            if what.rpartition(" ")[2] in self.buried:
                continue
            self.broken("one id for life", f"{what} is left when all is read and acknowledged")

    def failed(self, event: h.Failed) -> None:
        self.broken("sound", event.text)

    def verdict(self) -> list[Violation]:
        """All that was found, in its order."""
        refused = self.turned_away | self.refused
        missing = [violation for violation, message in self.missing if message.id not in refused]
        return sorted([*self.violations, *missing], key=lambda violation: violation.index)

    def forget_op(self, event: h.NotSent | h.NotFetched | h.NotAcked) -> None:
        self.ops.pop(event.op, None)


_HANDLERS: dict[type, Callable[[Judge, Any], None]] = {
    h.Sending: Judge.sending,
    h.Sent: Judge.sent,
    h.Published: Judge.published,
    h.NotSent: Judge.forget_op,
    h.Fetching: Judge.fetching,
    h.Fetched: Judge.fetched,
    h.NotFetched: Judge.forget_op,
    h.Acking: Judge.acking,
    h.Acked: Judge.acked,
    h.NotAcked: Judge.forget_op,
    h.Pushed: Judge.push,
    h.Buried: Judge.bury,
    h.Refused: Judge.refuse,
    h.Flipped: Judge.flip,
    h.RoutedAgain: Judge.routed_again,
    h.Unsettled: Judge.unsettle,
    h.Settled: Judge.settled,
    h.PowerLost: Judge.power_lost,
    h.Forgotten: Judge.forgotten,
    h.Final: Judge.final,
    h.Draining: Judge.drain,
    h.End: Judge.end,
    h.Failed: Judge.failed,
}
"""Each takes its own kind of event."""


def _last_places(messages: list[Known]) -> dict[tuple[str, bool], int]:
    """By batch and lane, the highest place of those that were sent together."""
    last: dict[tuple[str, bool], int] = {}
    for message in messages:
        if message.batch:
            part = message.batch, message.express
            last[part] = max(last.get(part, -1), message.place)
    return last


def _tags(batch: list[Known]) -> str:
    return ", ".join(message.tag for message in batch)


def judge(
    history: h.History,
    ephemeral_seconds: float,
    retention_seconds: float = math.inf,
    *,
    plain: bool = False,
    plan: Plan | None = None,
) -> list[Violation]:
    """All violations in ``history``, in the order in which they happened. ``plain``: see ``promptness``; ``plan``: see
    ``refusals``."""
    found = Judge(ephemeral_seconds, retention_seconds, may_refuse=plan is not None)
    prompt = Promptness(found.broken)
    refusals = Refusals(found.broken, plan) if plan is not None else None
    for index, (at, event) in enumerate(zip(history.times, history.events, strict=True)):
        found.take(at, index, event)
        if refusals is not None:
            refusals.take(index, event)
        if plain:
            prompt.take(at, index, event)
    return found.verdict()
