"""Accepting a message: limit its sender, read it once, give it its id, and make it durable."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from router import envelope, ids
from router.checksum import checksum
from router.clock import MICROSECONDS, Clock
from router.errors import RateLimited
from router.interfaces import IngressProducer
from router.messages import Message
from router.metrics import Metrics

REMEMBERED_SENDERS = 100_000


class Bucket(Struct, frozen=True):
    """A token bucket: ``left`` sends at the time ``at`` (µs since 1970)."""

    left: float
    at: int


def take(bucket: Bucket | None, now: int, rate: float, burst: int) -> tuple[Bucket, float]:
    """The bucket after one send at ``now``, and for how many seconds the sender must wait instead (0: none)."""
    if bucket is None:
        return Bucket(burst - 1, now), 0.0
    # The clock may step back; that must not take anything from anybody.
    left = min(float(burst), bucket.left + max(0, now - bucket.at) / MICROSECONDS * rate)
    if left < 1:
        return Bucket(left, now), (1 - left) / rate
    return Bucket(left - 1, now), 0.0


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
        metrics: Metrics,
    ) -> None:
        """``rate`` is in sends per second and sender; 0 is no limit."""
        self._producer = producer
        self._clock = clock
        self._entropy = entropy
        self._secret = idempotency_secret
        self._max_bytes = max_bytes
        self._rate = rate
        self._burst = burst
        self._metrics = metrics
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def admit(self, sender: str) -> None:
        """Count one send of ``sender``; raises ``RateLimited``. The count is this process's own."""
        if not self._rate:
            return
        bucket, wait = take(self._buckets.get(sender), self._clock.now(), self._rate, self._burst)
        self._buckets[sender] = bucket
        self._buckets.move_to_end(sender)
        if len(self._buckets) > REMEMBERED_SENDERS:
            self._buckets.popitem(last=False)
        if wait:
            raise RateLimited(f"more than {self._rate:g} messages a second; wait {wait:.1f} s", wait)

    async def accept(self, sender: str, body: bytes, idempotency_key: str | None = None) -> str:
        """The id of the message in ``body``, which is durable now.

        Raises ``RateLimited``, ``InvalidEnvelope``, ``InvalidIdempotencyKey`` and ``Unavailable``. The sender is
        used for the limit and the id, and is then gone.
        """
        self.admit(sender)
        now = self._clock.now()
        read = envelope.read(body, self._max_bytes)
        if idempotency_key is None:
            id_ = ids.new_id(now, self._entropy(10))
        else:
            id_ = ids.keyed_id(self._secret, sender, ids.parse_key(idempotency_key))
        keyed = idempotency_key is not None
        summed = checksum(id_, read.recipient, read.canonical)
        await self._producer.publish(
            Message(id_, read.recipient, read.canonical, read.lane, read.ephemeral, now, keyed, summed)
        )
        self._metrics.accepted()
        return id_
