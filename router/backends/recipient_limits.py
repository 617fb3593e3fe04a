"""What may wait for a recipient, and how fast mail may come to them: the limits that a store keeps as it routes.

``lua/route.lua`` repeats them under the same names; the contract tests compare them. Limits for senders are in
``router.core.send_limits``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from router.clock import MICROSECONDS
from router.config import Limits
from router.messages import Outcome

PLAUSIBLE_INBOUND_SECONDS = 60
"""If an inbound budget is to be whole later than its span and this from now, a wrong clock charged it."""
KEPT_INBOUND_SECONDS = 7 * 86_400
"""Longest time for which a store keeps an idle user because their inbound budget is not whole yet."""


@dataclass(frozen=True, slots=True)
class RecipientLimits:
    """Limits of one recipient, from the ``limits`` section. Times are µs since 1970, by the store's clock."""

    queue_messages: int
    queue_bytes: int
    inbound_span: int
    """µs in which an empty inbound budget becomes whole again; 0: no such limit."""
    inbound_bytes_per_second: float

    @classmethod
    def of(cls, limits: Limits) -> RecipientLimits:
        return cls(
            queue_messages=limits.queue_messages,
            queue_bytes=limits.queue_bytes,
            inbound_span=math.ceil(limits.inbound_bytes * MICROSECONDS / limits.inbound_bytes_per_second),
            inbound_bytes_per_second=limits.inbound_bytes_per_second,
        )

    def refusal(self, size: int, *, queued: int, queued_bytes: int, inbound_until: int, now: int) -> Outcome | None:
        """Why a message of ``size`` bytes is refused, or ``None``. ``queued``, ``queued_bytes``: what waits for the
        recipient, hot and cold together; ``inbound_until``: when their inbound budget is whole again."""
        if queued >= self.queue_messages:
            return Outcome.QUEUE_FULL
        if queued_bytes + size > self.queue_bytes:
            return Outcome.QUEUE_BYTES_FULL
        return Outcome.INBOUND_EXHAUSTED if self.is_exhausted(inbound_until, size, now) else None

    def charged(self, inbound_until: int, size: int, now: int) -> int:
        """When an inbound budget is whole again after ``size`` bytes are charged to it at ``now``; ``inbound_until`` is
        when it was to be whole before."""
        return self._whole_at(inbound_until, now) + self._microseconds(size) if self.inbound_span else 0

    def is_exhausted(self, inbound_until: int, size: int, now: int) -> bool:
        """Whether an inbound budget has less than ``size`` bytes left. A whole one admits a message of any size."""
        if inbound_until <= now or not self.inbound_span:
            return False
        whole_at = self._whole_at(inbound_until, now)
        return whole_at > now and whole_at + self._microseconds(size) > now + self.inbound_span

    def _whole_at(self, inbound_until: int, now: int) -> int:
        plausible = now + self.inbound_span + PLAUSIBLE_INBOUND_SECONDS * MICROSECONDS
        return inbound_until if now < inbound_until <= plausible else now

    def _microseconds(self, size: int) -> int:
        return math.ceil(size * MICROSECONDS / self.inbound_bytes_per_second)


def keeps_inbound(now: int) -> int:
    """A store keeps an idle user whose inbound budget becomes whole between ``now`` and this; see
    ``KEPT_INBOUND_SECONDS``."""
    return now + KEPT_INBOUND_SECONDS * MICROSECONDS
