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
GONE_SECONDS = 9.0
"""From the end of a user's last connection until nothing of theirs is hot: the lease, and a sweep. What a migrator that
died has left is not counted here; unfetched mail would move after 15 s."""


@dataclass(slots=True)
class _Mail:
    user: str
    tag: str
    began: int
    returned: bool = False


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
    told: set[str] = field(default_factory=set)
    at: float = 0.0
    index: int = 0

    def take(self, at: float, index: int, event: h.Event) -> None:
        self.at, self.index = at, index
        while self.due and self.due[0][0] < at:
            self._look(*self.due.popleft())
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _look(self, _: float, mail: _Mail, device: str, since: int) -> None:
        if not mail.returned and self.waiting[mail.user].get(device) == since:
            self.broken("told at once", f"{device} waits, and was not poked for {mail.tag}")

    def sending(self, event: h.Sending) -> None:
        self.ops[event.op] = self.mail.setdefault(event.tag, _Mail(event.user, event.tag, self.index))

    def sent(self, event: h.Sent) -> None:
        mail = self.ops.pop(event.op)
        for device, since in self.waiting[mail.user].items():
            if since < mail.began:
                self.due.append((self.at + POKED_SECONDS, mail, device, since))

    def fetched(self, event: h.Fetched) -> None:
        for item in event.batch:
            self.mail[item.tag].returned = True

    def came(self, event: h.Connected) -> None:
        self.connected[event.user].add(event.device)

    def waits(self, event: h.Waiting) -> None:
        self.waiting[event.user][event.device] = self.index

    def roused(self, event: h.Roused) -> None:
        self.waiting[event.user].pop(event.device, None)

    def left(self, event: h.Left) -> None:
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
    h.Fetched: Promptness.fetched,
    h.Connected: Promptness.came,
    h.Waiting: Promptness.waits,
    h.Roused: Promptness.roused,
    h.Left: Promptness.left,
    h.Died: Promptness.died,
    h.Hot: Promptness.hot,
}
"""Each takes its own kind of event."""
