"""Why messages become dead letters: one word for each reason, in the log, the metric, the dead letter and the docs."""

from __future__ import annotations

from enum import StrEnum


class DeadReason(StrEnum):
    """Why a message is a dead letter: a stable word, also the label of the metric."""

    UNDECODABLE = "undecodable"
    """The bytes in the ingress are not a message."""
    QUEUE_FULL = "queue-full"
    """The recipient's queue holds ``limits.queue_messages``, or would hold more than ``limits.queue_bytes``."""
    INBOUND_EXHAUSTED = "inbound-exhausted"
    """The recipient gets more than ``limits.inbound_bytes`` and ``limits.inbound_bytes_per_second`` allow."""
    ATTEMPTS_EXHAUSTED = "attempts-exhausted"
    """Routing failed ``ingress.max_attempts`` times, through a fault of the router."""
    UNSTORABLE = "unstorable"
    """A migration was to move it to the cold queue, which can never hold it."""
    DAMAGED = "damaged"
    """The stored bytes do not match the checksum of what was accepted."""
