"""Rate limits of sending: sends of a sender, sends of a sender to one recipient, and bytes of a sender.

What a user's requests may cost is limited in ``work_budget``; what may come to a recipient, by the online
store (``backends.recipient_limits``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from msgspec import Struct

from router.clock import Clock
from router.config import Config
from router.core.token_buckets import TokenBuckets
from router.errors import RateLimited

REMEMBERED_SENDERS = 100_000
REMEMBERED_PAIRS = 100_000
"""With the default limits, one sender needs 2,000 s, and ten senders need 200 s, until a pair is forgotten. Its bucket
is full again by then."""
PAIR_BYTES = 16 * 1024
"""A message counts as one send to its recipient for each ``PAIR_BYTES``, rounded up. Else one sender could use up the
recipient's budget for all senders (``limits.inbound_bytes``)."""
MESSAGE_BYTES = 1024
"""Charged to the sender for each message in addition to its bytes: about the size of its rows in an embedded file."""


class Statistics(Struct, frozen=True):
    """How many buckets a process remembers at one moment, also where they are full again."""

    senders: int
    """Buckets of sends."""
    pairs: int
    """Buckets of sends to one recipient."""
    budgets: int
    """Senders whose bytes are counted."""


class SendLimits:
    """Counts the sends of this process. State: a token bucket for each sender and pair that has sent lately."""

    def __init__(
        self,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        rate: float,
        burst: int,
        pair_rate: float,
        pair_burst: int,
        outbound_bytes: int,
        outbound_bytes_per_second: float,
    ) -> None:
        """``rate``: sends per second of a sender. ``pair_rate``: sends per second of a sender to one recipient.
        ``outbound_bytes``: bytes that a sender may send at once. 0 means no limit.
        """
        self._rate = rate
        self._pair_rate = pair_rate
        self._bytes_rate = outbound_bytes_per_second if outbound_bytes else 0
        self._sends: TokenBuckets[bytes] = TokenBuckets(clock, rate, burst, REMEMBERED_SENDERS)
        self._pairs: TokenBuckets[bytes] = TokenBuckets(clock, pair_rate, pair_burst, REMEMBERED_PAIRS)
        self._bytes: TokenBuckets[bytes] = TokenBuckets(clock, self._bytes_rate, outbound_bytes, REMEMBERED_SENDERS)
        self._names_secret = entropy(32) if rate or pair_rate or outbound_bytes else b""
        """Key of the hashes under which the buckets are kept: even in memory, nobody can read who sends to whom."""

    @classmethod
    def of(cls, config: Config, clock: Clock, entropy: Callable[[int], bytes]) -> SendLimits:
        """Those that ``config`` sets."""
        limits = config.limits
        return cls(
            clock,
            entropy,
            rate=limits.send_rate,
            burst=limits.send_burst,
            pair_rate=limits.pair_rate,
            pair_burst=limits.pair_burst,
            outbound_bytes=limits.outbound_bytes,
            outbound_bytes_per_second=limits.outbound_bytes_per_second,
        )

    def statistics(self) -> Statistics:
        return Statistics(self._sends.remembered, self._pairs.remembered, self._bytes.remembered)

    def __repr__(self) -> str:
        return f"<SendLimits: {self.statistics()}>"

    def key(self, sender: str, recipient: str = "") -> bytes:
        """What a sender, or a sender and a recipient, are called here."""
        return _hidden(self._names_secret, sender, recipient)

    def admit(self, sender: bytes) -> None:
        """Count one send of ``sender``; raises ``RateLimited``."""
        if wait := self._sends.wait(sender, 1):
            raise RateLimited(f"more than {self._rate:g} messages a second; wait {wait:.1f} s", wait)
        self._sends.take(sender, 1)

    def give_back(self, sender: bytes) -> None:
        """A send that was counted was none."""
        self._sends.give_back(sender, 1)

    def admit_message(self, sender: bytes, pair: bytes, size: int) -> None:
        """Count a message of ``size`` bytes for its sender and for the pair. Raises ``RateLimited``, and then counts
        nothing and takes the send of ``admit`` back."""
        sends, cost = -(-size // PAIR_BYTES), size + MESSAGE_BYTES
        if wait := self._bytes.wait(sender, cost):
            refusal = f"more than limits.outbound_bytes over all recipients; {self._bytes_rate:g} come back a second"
        elif wait := self._pairs.wait(pair, sends):
            refusal = (
                f"more than {self._pair_rate:g} messages a second, of {PAIR_BYTES // 1024} KiB each, to one recipient"
            )
        if wait:
            self.give_back(sender)
            raise RateLimited(f"{refusal}; wait {wait:.1f} s", wait)
        self._bytes.take(sender, cost)
        self._pairs.take(pair, sends)


def _hidden(secret: bytes, sender: str, recipient: str = "") -> bytes:
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    name = sender.encode()
    return hashlib.blake2b(
        len(name).to_bytes(4, "big") + name + recipient.encode(), digest_size=16, key=secret, usedforsecurity=True
    ).digest()
