"""What may not take long in a run in which nothing goes wrong but that processes with sockets die.

Elsewhere repetitions, heartbeats and sweeps make good what was missed, and a judge that waits for them sees nothing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.sim import history as h

POKED_SECONDS = 1.0
"""From a 202 until a client that waits is poked; heartbeats take 2 s and repetitions 3 s (``plan.SPANS``)."""
CUT_SECONDS = 5.0
"""From a user's last fetch or acknowledgement until a client that waits is poked for what these have left: 2 s, a
sweep, and the way."""
GONE_SECONDS = 9.0
"""From the end of a user's last connection until nothing of theirs is hot: the lease, and a sweep. What a migrator that
died has left is not counted here; unfetched mail would move after 15 s."""


@dataclass(slots=True)
class _Mail:
    user: str
    tag: str
    began: int
    ephemeral: bool = False
    accepted: int = 0
    returned: bool = False

    @property
    def is_there(self) -> bool:
        return self.accepted > 0 and not (self.ephemeral or self.returned)


@dataclass(slots=True)
class Promptness:
    """Takes the events in their order, and tells of each that came late."""

    broken: Callable[[str, str], None]
    mail: dict[str, _Mail] = field(default_factory=dict)
    ops: dict[int, _Mail] = field(default_factory=dict)
    waiting: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """By user and device: since when, as an index, it has waited for a poke."""
    connected: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    gone_at: dict[str, float] = field(default_factory=dict)
    died_at: float = 0.0
    """When the last process died; it may have held a connection of anybody."""
    due: deque[tuple[float, _Mail, str, int]] = field(default_factory=deque)
    """Until when, for which message, which device that has waited since when is to be poked."""
    read_at: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """When a user's devices have fetched or acknowledged last."""
    readers: dict[int, str] = field(default_factory=dict)
    """By operation, whose it is."""
    left: deque[tuple[float, str, str, int]] = field(default_factory=deque)
    """Until when, of which user, which device that has waited since when is to have been poked, if there is mail."""
    told: set[str] = field(default_factory=set)
    at: float = 0.0
    index: int = 0

    def take(self, at: float, index: int, event: h.Event) -> None:
        self.at, self.index = at, index
        while self.due and self.due[0][0] < at:
            self._look(*self.due.popleft())
        while self.left and self.left[0][0] < at:
            self._look_for_rest(*self.left.popleft())
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _look(self, _: float, mail: _Mail, device: str, since: int) -> None:
        if not mail.returned and self.waiting[mail.user].get(device) == since:
            self.broken("told at once", f"{device} waits, and was not poked for {mail.tag}")

    def _look_for_rest(self, until: float, user: str, device: str, since: int) -> None:
        if self.waiting[user].get(device) != since:
            return
        if self.read_at[user] + CUT_SECONDS > until:
            self._expect(user, device, since)
            return
        own = (mail for mail in self.mail.values() if mail.user == user)
        rest = [mail.tag for mail in own if mail.is_there and mail.accepted < since]
        if rest:
            self.broken("told at once", f"{device} waits, and was not poked for the rest: {', '.join(rest)}")

    def _expect(self, user: str, device: str, since: int) -> None:
        self.left.append((self.at + CUT_SECONDS, user, device, since))

    def sending(self, event: h.Sending) -> None:
        mail = _Mail(event.user, event.tag, self.index, event.ephemeral)
        self.ops[event.op] = self.mail.setdefault(event.tag, mail)

    def sent(self, event: h.Sent) -> None:
        mail = self.ops.pop(event.op)
        mail.accepted = mail.accepted or self.index
        for device, since in self.waiting[mail.user].items():
            if since < mail.began:
                self.due.append((self.at + POKED_SECONDS, mail, device, since))

    def reading(self, event: h.Fetching | h.Acking) -> None:
        self.readers[event.op] = event.user
        self.read_at[event.user] = self.at

    def has_read(self, event: h.NotFetched | h.Acked | h.NotAcked) -> None:
        self.read_at[self.readers.pop(event.op)] = self.at

    def fetched(self, event: h.Fetched) -> None:
        self.read_at[self.readers.pop(event.op)] = self.at
        for item in event.batch:
            self.mail[item.tag].returned = True

    def came(self, event: h.Connected) -> None:
        self.connected[event.user].add(event.device)

    def waits(self, event: h.Waiting) -> None:
        self.waiting[event.user][event.device] = self.index
        self._expect(event.user, event.device, self.index)

    def roused(self, event: h.Roused) -> None:
        self.waiting[event.user].pop(event.device, None)

    def went(self, event: h.Left) -> None:
        self.waiting[event.user].pop(event.device, None)
        self.connected[event.user].discard(event.device)
        self.gone_at[event.user] = self.at

    def died(self, _: h.Died) -> None:
        self.died_at = self.at

    def hot(self, event: h.Hot) -> None:
        for user, id_ in event.messages:
            gone_at = max(self.gone_at.get(user, 0.0), self.died_at)
            gone = not self.connected[user] and self.at > gone_at + GONE_SECONDS
            if gone and id_ not in self.told:
                self.told.add(id_)
                self.broken("nothing is stuck", f"{id_} is still hot, and {user} is gone")


_HANDLERS: dict[type, Callable[[Promptness, Any], None]] = {
    h.Sending: Promptness.sending,
    h.Sent: Promptness.sent,
    h.Fetching: Promptness.reading,
    h.Fetched: Promptness.fetched,
    h.NotFetched: Promptness.has_read,
    h.Acking: Promptness.reading,
    h.Acked: Promptness.has_read,
    h.NotAcked: Promptness.has_read,
    h.Connected: Promptness.came,
    h.Waiting: Promptness.waits,
    h.Roused: Promptness.roused,
    h.Left: Promptness.went,
    h.Died: Promptness.died,
    h.Hot: Promptness.hot,
}
"""Each takes its own kind of event."""
