"""Accepts a message: limits its sender, reads the envelope once, gives it its id, and makes it durable."""

from __future__ import annotations

from collections.abc import Callable

from router import envelope, ids
from router.checksum import checksum
from router.clock import Clock
from router.core.send_limits import SendLimits
from router.interfaces import IngressProducer
from router.messages import Message
from router.metrics import Metrics


class Acceptor:
    """Checks and limits each send, and publishes its message to the ingress."""

    def __init__(
        self,
        producer: IngressProducer,
        limits: SendLimits,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        idempotency_secret: bytes,
        max_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._producer = producer
        self._limits = limits
        self._clock = clock
        self._entropy = entropy
        self._secret = idempotency_secret
        self._max_bytes = max_bytes
        self._metrics = metrics

    async def accept(self, sender: str, body: bytes, idempotency_key: str | None = None) -> str:
        """Make the message in ``body`` durable and return its id.

        The sender is used for the limits and the id, and not kept. Raises ``RateLimited``, ``InvalidEnvelope``,
        ``InvalidIdempotencyKey`` and ``Unavailable``, in this order: the sender's limit of sends; the envelope, since
        only then its size and recipient are known; the key; the sender's budget of bytes and the limit of the pair. A
        send that one limit refuses takes nothing from the others.
        """
        sender_key = self._limits.key(sender)
        self._limits.admit(sender_key)
        now = self._clock.now()
        read = envelope.read(body, self._max_bytes)
        if idempotency_key is None:
            id_ = ids.new_id(now, self._entropy(10))
        else:
            id_ = ids.keyed_id(self._secret, sender, read.recipient, ids.parse_key(idempotency_key))
        self._limits.admit_message(sender_key, self._limits.key(sender, read.recipient), len(read.canonical))
        keyed = idempotency_key is not None
        summed = checksum(id_, read.recipient, read.canonical)
        await self._producer.publish(
            [Message(id_, read.recipient, read.canonical, read.lane, read.ephemeral, now, keyed, summed)]
        )
        self._metrics.accepted()
        return id_
