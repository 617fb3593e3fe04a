"""The judge: records what was sent to one recipient and what came back, and says which promises that breaks.

It does no I/O: senders and readers say what happened and when. The times of one ledger come from one clock that never
steps back, in any unit. An answer is entered after it was read, a request before it is sent; so a promise that is
called broken was broken, however late the entries are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

EXAMPLES = 3
"""Faults of each kind that are described in words; all are counted."""


class Fault(StrEnum):
    """A broken promise of the router."""

    LOST = "lost"
    OUT_OF_ORDER = "out of order"
    SECOND_ID = "under a second id"
    CAME_BACK = "came back after acknowledgement"
    SOMEBODY_ELSES = "somebody else's"
    ALTERED = "altered"


class _Sent(Struct, gc=False):
    began: int
    answered: int | None = None
    id: str = ""
    """From the answer or from the first fetch, whichever came first."""
    held: bool = False
    done: bool = False
    """Acknowledged."""


class Ledger:
    """One recipient's mail, all in one lane. The ledger numbers the messages; the router gives them ids."""

    def __init__(self, recipient: str) -> None:
        self.faults: Counter[Fault] = Counter()
        self.examples: list[str] = []
        self.accepted_count = 0
        self.done_count = 0
        """Acknowledged, each message once."""
        self.missing = 0
        """Accepted, and not returned yet."""
        self.left = 0
        """In the router, as far as the ledger knows: accepted or returned, and not acknowledged."""
        self.redelivered_count = 0
        """Returned again before their acknowledgement was answered, which is allowed."""
        self._recipient = recipient
        self._sent: list[_Sent] = []
        self._numbers: dict[str, int] = {}
        self._acknowledged: dict[str, int] = {}
        self._latest_began = -1

    def begin(self, at: int) -> int:
        """The number of the next message, whose first attempt begins at ``at``."""
        self._sent.append(_Sent(at))
        return len(self._sent) - 1

    def accepted(self, number: int, id_: str, at: int) -> None:
        """The message was answered 202 with ``id_``."""
        sent = self._sent[number]
        self.accepted_count += 1
        if not sent.held:
            self.missing += 1
            self.left += 1
        sent.answered = at
        self._name(number, sent, id_)

    def returned(self, page: Iterable[tuple[int, str]], asked: int) -> list[int]:
        """A fetch that began at ``asked`` returned these numbers and ids, in this order.

        Returns the numbers that were returned for the first time. A number that was never sent to this recipient counts
        as somebody else's mail.
        """
        new = []
        on_page = -1
        for number, id_ in page:
            if not 0 <= number < len(self._sent):
                self.found(Fault.SOMEBODY_ELSES, id_)
                continue
            sent = self._sent[number]
            if not sent.held:
                self._hold(number, sent, id_)
                new.append(number)
                ahead = max(on_page, self._latest_began)
            elif self._redelivered(number, sent, id_, asked):
                ahead = on_page
            else:
                continue
            # A message in front of it was begun after this one had been accepted.
            if sent.answered is not None and sent.answered < ahead:
                self.found(Fault.OUT_OF_ORDER, id_)
            on_page = max(on_page, sent.began)
            self._latest_began = max(self._latest_began, sent.began)
        return new

    def acknowledged(self, ids: Iterable[str], at: int) -> list[int]:
        """The acknowledgement of ``ids`` was answered; returns the numbers for which it was the first."""
        first = []
        for id_ in ids:
            self._acknowledged.setdefault(id_, at)
            number = self._numbers.get(id_)
            if number is not None and not self._sent[number].done:
                self._sent[number].done = True
                first.append(number)
        self.done_count += len(first)
        self.left -= len(first)
        return first

    def found(self, fault: Fault, id_: str) -> None:
        """Count a fault of the message ``id_``."""
        self.faults[fault] += 1
        if self.faults[fault] <= EXAMPLES:
            self.examples.append(f"{id_} of {self._recipient}: {fault}")

    def close(self) -> None:
        """No more mail will come: count what is missing as lost."""
        for sent in self._sent:
            if sent.answered is not None and not sent.held:
                self.found(Fault.LOST, sent.id)

    def _hold(self, number: int, sent: _Sent, id_: str) -> None:
        sent.held = True
        if sent.answered is None:
            self.left += 1
        else:
            self.missing -= 1
        self._name(number, sent, id_)

    def _redelivered(self, number: int, sent: _Sent, id_: str, asked: int) -> bool:
        """Whether this is the same message again, which is allowed until the router has answered its
        acknowledgement."""
        if self._numbers.get(id_) != number:
            self._name(number, sent, id_)
            return False
        if self._acknowledged.get(id_, asked + 1) <= asked:
            self.found(Fault.CAME_BACK, id_)
            return False
        self.redelivered_count += 1
        return True

    def _name(self, number: int, sent: _Sent, id_: str) -> None:
        """Check that one message has one id, and one id one message."""
        owner = self._numbers.setdefault(id_, number)
        if owner != number or (sent.id and sent.id != id_):
            self.found(Fault.SECOND_ID, id_)
        elif not sent.id:
            sent.id = id_
