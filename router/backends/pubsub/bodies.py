"""Converts messages of the ingress, push commands and dead letters to and from Pub/Sub messages.

No attribute and no body names a sender.
"""

from __future__ import annotations

import re
import sys
import zlib
from typing import Any

import msgspec

from router import envelope
from router.backends.pubsub.wire import PubsubMessage
from router.checksum import NEVER, checksum
from router.clock import Clock
from router.config import Config
from router.dead_reasons import DeadReason
from router.errors import InvalidEnvelope
from router.ids import foreign_id
from router.messages import DeadLetter, Delivery, Message
from router.trace_context import TRACEPARENT, TRACESTATE, kept, parted

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:-]{0,127}")
_MICROSECONDS = re.compile(r"[0-9]{1,18}")
CHECKSUM = "router_checksum"
"""Only the router writes this attribute: a message that has it was accepted, and was intact then."""
ATTRIBUTE_BYTES = 1024
"""The service's limit for the value of an attribute."""
MESSAGE_BYTES = 9_900_000
"""A little less than the service's limit for a message."""


def ordering_key(recipient: str, shards: int) -> str:
    """The ordering key of a recipient's messages: one of ``shards`` keys, or the recipient itself if ``shards`` is
    0."""
    return f"shard-{zlib.crc32(recipient.encode()) % shards}" if shards else recipient


def _named(key: str) -> str:
    """The recipient that an ordering key names; empty if it is the key of a shard."""
    return key if key.startswith("urn:") else ""


def ingress_message(message: Message, shards: int) -> Any:
    """``message`` for the ingress topic; its envelope says lane and whether it is ephemeral."""
    attributes = {"id": message.id, "accepted_at": str(message.accepted_at)}
    if message.checksum is not None:
        attributes[CHECKSUM] = str(message.checksum)
    if message.keyed:
        attributes["keyed"] = "true"
    if message.trace:
        attributes.update(parted(message.trace))
    key = ordering_key(message.recipient, shards)
    return PubsubMessage(data=message.envelope, attributes=attributes, ordering_key=key)


class IngressReader:
    """Reads what the ingress subscription delivers. Other publishers may send bare envelopes, in any spelling and
    without attributes; such a message gets its id from Pub/Sub's own, which is the same in each redelivery."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._clock = clock
        self._max_bytes = config.limits.envelope_bytes
        self._topic = config.ingress.topic

    def read(self, received: Any) -> Delivery:
        """``received`` is a ``ReceivedMessage``; if its body is not an envelope, the delivery holds no message."""
        message = received.message
        attempt = max(1, received.delivery_attempt)
        origin = foreign_id(self._topic, message.message_id)
        # If the subscription does not count deliveries, any may be a redelivery.
        found = received.delivery_attempt == 0
        try:
            read = self._message(message, origin)
        except InvalidEnvelope as error:
            reason, problem, recipient = DeadReason.UNDECODABLE, str(error), ""
            if CHECKSUM in message.attributes:
                reason, problem = DeadReason.DAMAGED, f"it was valid when it was accepted, and now {problem}"
                origin, recipient = message.attributes.get("id") or origin, _named(message.ordering_key)
            return Delivery(
                None, received.ack_id, attempt, problem, message.data,
                found=found, origin=origin, reason=reason, recipient=recipient,
            )  # fmt: skip
        return Delivery(read, received.ack_id, attempt, found=found)

    def _message(self, message: Any, origin: str) -> Message:
        attributes = message.attributes
        id_ = attributes.get("id")
        if id_ is not None and not _ID.fullmatch(id_):
            raise InvalidEnvelope(
                'the attribute "id" is not a valid id: leave it out, or write letters, digits and ._~:-'
            )
        # A message that the API has accepted is not refused here, even if the limit is lower now.
        read = envelope.read(message.data, self._max_bytes if id_ is None else sys.maxsize)
        recipient, summed = read.recipient, checksum(id_ or origin, read.recipient, message.data)
        if attributes.get(CHECKSUM, str(summed)) != str(summed):
            recipient, summed = _named(message.ordering_key) or recipient, NEVER
        elif read.canonical != message.data:
            summed = checksum(id_ or origin, read.recipient, read.canonical)
        return Message(
            id_ or origin,
            recipient,
            read.canonical,
            read.lane,
            read.ephemeral,
            self._accepted_at(message, ephemeral=read.ephemeral),
            attributes.get("keyed") == "true",
            summed,
            _trace(attributes),
        )

    def _accepted_at(self, message: Any, *, ephemeral: bool) -> int:
        """When ``message`` was accepted: by the attribute, or else by Pub/Sub.

        Ephemeral mail is dropped some time after this. Three clocks have seen such a message (the accepting server's,
        Pub/Sub's and this one), and the middle one counts, so that no clock decides alone. For other mail the time is
        never in the future: a publisher of raw messages can write any time, and the message would outlive its
        retention.
        """
        told, published, now = message.attributes.get("accepted_at") or "", message.publish_time, self._clock.now()
        at = int(told) if _MICROSECONDS.fullmatch(told) else published.ToMicroseconds()
        return sorted((at, published.ToMicroseconds(), now))[1] if ephemeral else min(at, now)


def _trace(attributes: Any) -> str:
    traceparent = attributes.get(TRACEPARENT)
    return kept(traceparent, attributes.get(TRACESTATE)) if traceparent else ""


class _Content(msgspec.Struct):
    title: str = "New message"
    body: str = "You have received a new secure message."
    sound: str = "default"


class _Notification(msgspec.Struct, rename="camel"):
    recipient_id: str
    content: _Content
    data_payload: dict[str, str]


class _Request(msgspec.Struct):
    ID: str
    Payload: bytes
    """Base64 in JSON."""


def push_command(message: Message) -> Any:
    """``push.format = "command"``: the recipient and the sealed envelope."""
    return _push(message, envelope.push_command(message.recipient, message.envelope))


def notification_request(message: Message) -> Any:
    """``push.format = "notification-request"``: what to show, and the id; nothing of the envelope."""
    notification = _Notification(message.recipient, _Content(), {"message_id": message.id})
    return _push(message, msgspec.json.encode(_Request(message.id, msgspec.json.encode(notification))))


def _push(message: Message, data: bytes) -> Any:
    attributes = {
        "messageId": message.id,
        "recipientId": message.recipient,
        "priority": str(envelope.priority(message.envelope)),
    }
    if message.trace:
        attributes.update(parted(message.trace))
    return PubsubMessage(data=data, attributes=attributes, ordering_key=message.recipient)


def dead_letter(letter: DeadLetter) -> Any:
    """The body as it was received, with the rest of ``letter`` as attributes; empty ones are left out."""
    detail = letter.detail
    if len(letter.body) > MESSAGE_BYTES:
        detail = f"{detail}; of {len(letter.body)} bytes the first {MESSAGE_BYTES} are kept"
    attributes = {
        "id": letter.id,
        "recipient": letter.recipient,
        "reason": letter.reason,
        "detail": detail,
        "attempts": str(letter.attempts),
        "at": str(letter.at),
    }
    return PubsubMessage(
        data=letter.body[:MESSAGE_BYTES], attributes={name: _cut(value) for name, value in attributes.items() if value}
    )


def letter_of(message: Any) -> DeadLetter:
    """Read what ``dead_letter`` made. A message that Pub/Sub itself moved here, after too many deliveries, says
    less."""
    attributes = message.attributes
    reason, at, attempts = attributes.get("reason", ""), attributes.get("at", ""), attributes.get("attempts", "")
    return DeadLetter(
        id=attributes.get("id", ""),
        recipient=attributes.get("recipient", ""),
        reason=DeadReason(reason) if reason in set(DeadReason) else DeadReason.ATTEMPTS_EXHAUSTED,
        detail=attributes.get("detail", ""),
        body=message.data,
        attempts=int(attempts) if _MICROSECONDS.fullmatch(attempts) else 0,
        at=int(at) if _MICROSECONDS.fullmatch(at) else message.publish_time.ToMicroseconds(),
    )


def _cut(value: str) -> str:
    """``value``, cut to what an attribute may hold."""
    return value.encode()[:ATTRIBUTE_BYTES].decode(errors="ignore")
