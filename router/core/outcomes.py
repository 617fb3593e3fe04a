"""What the outcomes of one batch owe, and who can go on without whom."""

from __future__ import annotations

from collections.abc import Sequence

from router.core.recipients import recipient_of
from router.messages import DeadReason, Delivery, Outcome, Routed

Fate = tuple[Delivery, Routed]
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
"""Why a message is a dead letter, and what more there is to say."""
SILENT = (Outcome.HOT, Outcome.COPY)
"""Their copies in cold owe no push command."""


def belongs_in_cold(fate: Fate, *, write_through: bool) -> bool:
    """Whether a copy in cold, or its push command, may be owed."""
    delivery, result = fate
    if result.outcome is Outcome.HOT:
        return write_through and delivery.message is not None and not delivery.message.ephemeral
    return result.outcome in (Outcome.COLD, Outcome.ANNOUNCE, Outcome.COPY)


def apart(fates: Sequence[Fate]) -> list[list[Fate]]:
    """``fates`` in parts, each recipient in one of them: whose messages have the same outcomes stay together.

    So nobody waits for what only others are owed, and when one's own mail arrives does not tell where another's went.
    Whoever is refused something is alone, since dead letters go out one after another.
    """
    outcomes: dict[str, set[Outcome]] = {}
    for delivery, result in fates:
        outcomes.setdefault(recipient_of(delivery), set()).add(result.outcome)
    parts: dict[tuple[frozenset[Outcome], str], list[Fate]] = {}
    for delivery, result in fates:
        recipient = recipient_of(delivery)
        own = outcomes[recipient]
        alone = "" if own.isdisjoint(REFUSED) else recipient
        parts.setdefault((frozenset(own), alone), []).append((delivery, result))
    return list(parts.values())
