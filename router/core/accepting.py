"""Accepts a message: limits its sender, reads the envelope once, gives it its id, and makes it durable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from router import envelope, ids
from router.checksum import checksum
from router.clock import Clock
from router.core.buckets import Buckets
from router.errors import RateLimited
from router.interfaces import IngressProducer
from router.messages import Message
from router.metrics import Metrics

REMEMBERED_SENDERS = 100_000
REMEMBERED_PAIRS = 100_000
"""With the default limits, one sender needs 2,000 s, and ten senders need 200 s, until a pair is forgotten. Its bucket
is full again by then."""
PAIR_BYTES = 16 * 1024
"""A message counts as one send to its recipient for each ``PAIR_BYTES``, rounded up. Else one sender could use up the
recipient's budget for all senders (``limits.inbound_bytes``)."""
MESSAGE_BYTES = 1024
"""Charged to the sender for each message in addition to its bytes: about the size of its rows in an embedded file."""


class Acceptor:
    """Checks and limits each send, and publishes its message to the ingress."""

    def __init__(
        self,
        producer: IngressProducer,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        idempotency_secret: bytes,
        max_bytes: int,
        rate: float,
        burst: int,
        pair_rate: float,
        pair_burst: int,
        outbound_bytes: int,
        outbound_bytes_per_second: float,
        metrics: Metrics,
    ) -> None:
        """``rate``: sends per second of a sender. ``pair_rate``: sends per second of a sender to one recipient.
        ``outbound_bytes``: bytes that a sender may send at once. 0 means no limit. Each process counts by itself.
        """
        self._producer = producer
        self._clock = clock
        self._entropy = entropy
        self._secret = idempotency_secret
        self._max_bytes = max_bytes
        self._rate = rate
        self._pair_rate = pair_rate
        self._bytes_rate = outbound_bytes_per_second if outbound_bytes else 0
        self._metrics = metrics
        self._sends: Buckets[bytes] = Buckets(clock, rate, burst, REMEMBERED_SENDERS)
        self._pairs: Buckets[bytes] = Buckets(clock, pair_rate, pair_burst, REMEMBERED_PAIRS)
        self._bytes: Buckets[bytes] = Buckets(clock, self._bytes_rate, outbound_bytes, REMEMBERED_SENDERS)
        self._names_secret = entropy(32) if rate or pair_rate or outbound_bytes else b""
        """Key of the hashes under which the buckets are kept: even in memory, nobody can read who sends to whom."""

    def _admit(self, sender: bytes) -> None:
        """Count one send of ``sender``; raises ``RateLimited``."""
        if wait := self._sends.wait(sender, 1):
            raise RateLimited(f"more than {self._rate:g} messages a second; wait {wait:.1f} s", wait)
        self._sends.take(sender, 1)

    def _admit_message(self, sender: bytes, pair: bytes, size: int) -> None:
        """Count a message of ``size`` bytes for its sender and for the pair. Raises ``RateLimited``, and then counts
        nothing and takes the send of ``_admit`` back."""
        sends, cost = -(-size // PAIR_BYTES), size + MESSAGE_BYTES
        if wait := self._bytes.wait(sender, cost):
            refusal = f"more than limits.outbound_bytes over all recipients; {self._bytes_rate:g} come back a second"
        elif wait := self._pairs.wait(pair, sends):
            refusal = (
                f"more than {self._pair_rate:g} messages a second, of {PAIR_BYTES // 1024} KiB each, to one recipient"
            )
        if wait:
            self._sends.give_back(sender, 1)
            raise RateLimited(f"{refusal}; wait {wait:.1f} s", wait)
        self._bytes.take(sender, cost)
        self._pairs.take(pair, sends)

    async def accept(self, sender: str, body: bytes, idempotency_key: str | None = None) -> str:
        """Make the message in ``body`` durable and return its id.

        The sender is used for the limits and the id, and not kept. Raises ``RateLimited``, ``InvalidEnvelope``,
        ``InvalidIdempotencyKey`` and ``Unavailable``, in this order: the sender's limit of sends; the envelope, since
        only then its size and recipient are known; the key; the sender's budget of bytes and the limit of the pair. A
        send that one limit refuses takes nothing from the others.
        """
        name = _hidden(self._names_secret, sender)
        self._admit(name)
        now = self._clock.now()
        read = envelope.read(body, self._max_bytes)
        if idempotency_key is None:
            id_ = ids.new_id(now, self._entropy(10))
        else:
            id_ = ids.keyed_id(self._secret, sender, read.recipient, ids.parse_key(idempotency_key))
        self._admit_message(name, _hidden(self._names_secret, sender, read.recipient), len(read.canonical))
        keyed = idempotency_key is not None
        summed = checksum(id_, read.recipient, read.canonical)
        await self._producer.publish(
            Message(id_, read.recipient, read.canonical, read.lane, read.ephemeral, now, keyed, summed)
        )
        self._metrics.accepted()
        return id_


def _hidden(secret: bytes, sender: str, recipient: str = "") -> bytes:
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    name = sender.encode()
    return hashlib.blake2b(
        len(name).to_bytes(4, "big") + name + recipient.encode(), digest_size=16, key=secret, usedforsecurity=True
    ).digest()
