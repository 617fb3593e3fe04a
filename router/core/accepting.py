"""Accepting a message: limit its sender, read it once, give it its id, and make it durable."""

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
"""With the defaults, one sender needs 2,000 s to send to so many others that a pair of theirs is forgotten, ten senders
need 200 s. By then its bucket is full again by itself."""
PAIR_BYTES = 16 * 1024
"""A message counts as one send to its recipient for each so many bytes, also begun ones: else one sender could use up
what may come to the recipient from all (``limits.inbound_bytes``)."""


class Acceptor:
    """What happens to an envelope between the edge and the ingress."""

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
        metrics: Metrics,
    ) -> None:
        """``rate`` is in sends per second and sender, ``pair_rate`` in those of a sender to a recipient; 0 is no limit.

        The counts are this process's own.
        """
        self._producer = producer
        self._clock = clock
        self._entropy = entropy
        self._secret = idempotency_secret
        self._max_bytes = max_bytes
        self._rate = rate
        self._pair_rate = pair_rate
        self._metrics = metrics
        self._senders: Buckets[str] | None = Buckets(clock, rate, burst, REMEMBERED_SENDERS) if rate else None
        self._pairs: Buckets[bytes] | None = None
        self._pair_secret = b""
        """Who sends to whom is not kept in clear, also not here."""
        if pair_rate:
            self._pairs = Buckets(clock, pair_rate, pair_burst, REMEMBERED_PAIRS)
            self._pair_secret = entropy(32)

    def _admit(self, sender: str) -> None:
        """Count one send of ``sender``; raises ``RateLimited``."""
        if self._senders is None:
            return
        if wait := self._senders.wait(sender, 1):
            raise RateLimited(f"more than {self._rate:g} messages a second; wait {wait:.1f} s", wait)
        self._senders.take(sender, 1)

    def _admit_pair(self, sender: str, recipient: str, size: int) -> None:
        """Count a message of ``size`` bytes of ``sender`` to ``recipient``, whoever that is; raises ``RateLimited``."""
        if self._pairs is None:
            return
        pair, sends = _pair(self._pair_secret, sender, recipient), -(-size // PAIR_BYTES)
        if wait := self._pairs.wait(pair, sends):
            if self._senders is not None:
                self._senders.give_back(sender, 1)
            raise RateLimited(
                f"more than {self._pair_rate:g} messages a second, of {PAIR_BYTES // 1024} KiB each, to one recipient; "
                f"wait {wait:.1f} s",
                wait,
            )
        self._pairs.take(pair, sends)

    async def accept(self, sender: str, body: bytes, idempotency_key: str | None = None) -> str:
        """The id of the message in ``body``, which is durable now.

        Raises ``RateLimited``, ``InvalidEnvelope``, ``InvalidIdempotencyKey`` and ``Unavailable``. The sender is
        used for the limits and the id, and is then gone.

        In this order: the sender's limit; the envelope, and only then it is known whom it is for; the key; the limit of
        sender and recipient. Whatever the last one refuses costs the sender nothing of the first.
        """
        self._admit(sender)
        now = self._clock.now()
        read = envelope.read(body, self._max_bytes)
        if idempotency_key is None:
            id_ = ids.new_id(now, self._entropy(10))
        else:
            id_ = ids.keyed_id(self._secret, sender, read.recipient, ids.parse_key(idempotency_key))
        self._admit_pair(sender, read.recipient, len(read.canonical))
        keyed = idempotency_key is not None
        summed = checksum(id_, read.recipient, read.canonical)
        await self._producer.publish(
            Message(id_, read.recipient, read.canonical, read.lane, read.ephemeral, now, keyed, summed)
        )
        self._metrics.accepted()
        return id_


def _pair(secret: bytes, sender: str, recipient: str) -> bytes:
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    name = sender.encode()
    return hashlib.blake2b(
        len(name).to_bytes(4, "big") + name + recipient.encode(), digest_size=16, key=secret, usedforsecurity=True
    ).digest()
