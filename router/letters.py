"""Dead letters of refused messages: why routing refuses a message for good, and the letter that says so."""

from __future__ import annotations

from router.dead_reasons import DeadReason
from router.messages import DeadLetter, Delivery, Outcome, Queued

REFUSED = {
    Outcome.QUEUE_FULL: (DeadReason.QUEUE_FULL, "the recipient's queue holds limits.queue_messages"),
    Outcome.QUEUE_BYTES_FULL: (
        DeadReason.QUEUE_FULL,
        "with this message, the recipient's queue would hold more than limits.queue_bytes",
    ),
    Outcome.INBOUND_EXHAUSTED: (
        DeadReason.INBOUND_EXHAUSTED,
        "the recipient gets more than limits.inbound_bytes and limits.inbound_bytes_per_second allow",
    ),
}
"""Why a message with this outcome is a dead letter, and what more there is to say."""


def letter_of(refused: Queued | Delivery, reason: DeadReason, detail: str, at: int) -> DeadLetter:
    """The dead letter of ``refused``, written at ``at`` (µs since 1970)."""
    if isinstance(refused, Queued):
        message, attempts = refused.message, refused.attempts
    elif refused.message is not None:
        message, attempts = refused.message, refused.attempt
    else:
        id_ = refused.origin or str(refused.receipt)
        return DeadLetter(id_, refused.recipient, reason, detail, refused.body, refused.attempt, at)
    return DeadLetter(message.id, message.recipient, reason, detail, message.envelope, attempts, at)
