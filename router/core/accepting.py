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
"""With the defaults, one sender needs 2,000 s to send to enough others that a pair is forgotten, ten senders need
200 s. By then the bucket of that pair is full again anyway."""
PAIR_BYTES = 16 * 1024
"""A message counts as one send to its recipient for each of these many bytes, rounded up: else one sender could use up
the recipient's budget for all senders (``limits.inbound_bytes``)."""
MESSAGE_BYTES = 1024
"""What a message costs of its sender's budget beside its bytes: about what its rows take in an embedded file."""


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
        outbound_bytes: int,
        outbound_bytes_per_second: float,
        metrics: Metrics,
    ) -> None:
        """``rate`` is in sends per second and sender, ``pair_rate`` in those of a sender to a recipient;
        ``outbound_bytes`` may come from a sender at once. 0 means no limit.

        The counts are this process's own.
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
        """Who sends, and to whom, is not kept in clear, also not here."""

    def _admit(self, sender: bytes) -> None:
        """Count one send of ``sender``; raises ``RateLimited``."""
        if wait := self._sends.wait(sender, 1):
            raise RateLimited(f"more than {self._rate:g} messages a second; wait {wait:.1f} s", wait)
        self._sends.take(sender, 1)

    def _admit_message(self, sender: bytes, pair: bytes, size: int) -> None:
        """Count a message of ``size`` bytes, whoever it is for; raises ``RateLimited``, and then nothing is counted."""
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
        """The id of the message in ``body``, which is durable now.

        Raises ``RateLimited``, ``InvalidEnvelope``, ``InvalidIdempotencyKey`` and ``Unavailable``. The sender is
        used for the limits and the id, and is then gone.

        In this order: the sender's limit of sends; the envelope, and only then it is known how large it is, and whom it
        is for; the key; the sender's budget of bytes; the limit of sender and recipient. What one of the limits refuses
        takes nothing of the others.
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
