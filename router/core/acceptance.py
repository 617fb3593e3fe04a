"""Accepts messages: limits their sender, reads each envelope once, gives it its id, and makes it durable."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router import envelope, ids
from router.checksum import checksum
from router.clock import Clock
from router.core.send_limits import SendLimits
from router.errors import RateLimited, RouterError
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
        message = self._read(sender, body, idempotency_key)
        self._admit_message(sender, sender_key, message)
        await self._producer.publish([message])
        self._metrics.accepted()
        return message.id

    def batch(self, sender: str) -> Batch:
        """For several messages of ``sender`` that are made durable together."""
        return Batch(self, sender)

    def _read(self, sender: str, body: bytes, idempotency_key: str | None) -> Message:
        now = self._clock.now()
        read = envelope.read(body, self._max_bytes)
        if idempotency_key is None:
            id_ = ids.new_id(now, self._entropy(10))
        else:
            id_ = ids.keyed_id(self._secret, sender, read.recipient, ids.parse_key(idempotency_key))
        keyed = idempotency_key is not None
        summed = checksum(id_, read.recipient, read.canonical)
        return Message(id_, read.recipient, read.canonical, read.lane, read.ephemeral, now, keyed, summed)

    def _admit_message(self, sender: str, sender_key: bytes, message: Message) -> None:
        self._limits.admit_message(sender_key, self._limits.key(sender, message.recipient), len(message.envelope))


class Batch:
    """Messages of one sender, each of which is accepted or refused as if it was sent alone, in the order given.

    If one of them may be accepted later, because of a limit or a failure, those behind it to the same recipient are
    refused with its error: a client that sends them again in their order has them delivered in it. State: what became
    of each message so far.
    """

    def __init__(self, acceptor: Acceptor, sender: str) -> None:
        self._acceptor = acceptor
        self._sender = sender
        self._sender_key = acceptor._limits.key(sender)
        self._read: list[Message | RouterError] = []
        self._limited: RateLimited | None = None
        """The sender may send nothing more; to whom, nobody has read."""
        self._held: dict[str, RouterError] = {}
        """By recipient: why a message to them may be accepted later only."""

    def add(self, body: bytes, idempotency_key: str | None) -> None:
        """Read and limit one message, as ``Acceptor.accept`` does."""
        try:
            self._read.append(self._admitted(body, idempotency_key))
        except RouterError as error:
            self._read.append(error)

    def refuse(self, error: RouterError) -> None:
        """One message is refused for good, with ``error``."""
        self._read.append(error)

    def _admitted(self, body: bytes, idempotency_key: str | None) -> Message:
        acceptor = self._acceptor
        if self._limited is not None:
            raise self._limited
        try:
            acceptor._limits.admit(self._sender_key)
        except RateLimited as error:
            self._limited = error
            raise
        message = acceptor._read(self._sender, body, idempotency_key)
        if (held := self._held.get(message.recipient)) is not None:
            acceptor._limits.give_back(self._sender_key)
            raise held
        try:
            acceptor._admit_message(self._sender, self._sender_key, message)
        except RateLimited as error:
            self._held[message.recipient] = error
            raise
        return message

    async def publish(self) -> list[str | RouterError]:
        """Make the messages that were admitted durable, together. Returns the id or the error of each that was added.

        Raises the error of the first one where it failed to publish any.
        """
        messages = [each for each in self._read if isinstance(each, Message)]
        failures = iter(await self._publish(messages) if messages else ())
        outcomes: list[str | RouterError] = []
        for each in self._read:
            if isinstance(each, RouterError):
                outcomes.append(each)
            elif (failure := next(failures)) is not None:
                outcomes.append(failure)
            else:
                self._acceptor._metrics.accepted()
                outcomes.append(each.id)
        return outcomes

    async def _publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        failures = await self._acceptor._producer.publish(messages)
        if (first := failures[0]) is not None and None not in failures:
            raise first
        return failures
