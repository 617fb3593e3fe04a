"""What the outcome of routing leads to, and who can go on without whom."""

from __future__ import annotations

from collections.abc import Sequence

from router.core.deliveries import InFlight, Step
from router.dead_reasons import DeadReason
from router.letters import REFUSED
from router.messages import Outcome, Routed

SILENT = (Outcome.HOT, Outcome.COPY)
"""Their copies in cold owe no push command."""
STEPS = {
    Outcome.HOT: Step.WRITTEN,
    Outcome.COLD: Step.PLACED,
    Outcome.ANNOUNCE: Step.SETTLED,
    Outcome.COPY: Step.PLACED,
    Outcome.DUPLICATE: Step.WRITTEN,
    Outcome.DROPPED_OFFLINE: Step.WRITTEN,
    Outcome.DROPPED_EXPIRED: Step.WRITTEN,
    **dict.fromkeys(REFUSED, Step.REFUSED),
}
"""Where each outcome leads, but for write-through."""


def step_after(routed: Routed, flight: InFlight, *, write_through: bool) -> Step:
    """Where ``routed``, the answer to where ``flight`` goes, leads."""
    if write_through and routed.outcome is Outcome.HOT and not flight.message.ephemeral:
        return Step.PLACED
    return STEPS[routed.outcome]


def refusal_of(flight: InFlight) -> tuple[DeadReason, str]:
    """Why ``flight``, which is refused, is a dead letter, and what more there is to say."""
    if flight.delivery.message is None:
        return flight.delivery.reason, flight.delivery.problem
    return REFUSED[flight.outcome]


def apart(flights: Sequence[InFlight]) -> list[list[InFlight]]:
    """``flights`` in parts, each recipient in one of them: whose messages have the same outcomes stay together.

    So nobody waits for what only others are owed, and when one's own mail arrives does not tell where another's went.
    A recipient whose message is refused is alone, since dead letters go out one after another.
    """
    outcomes: dict[str, set[Outcome]] = {}
    for flight in flights:
        outcomes.setdefault(flight.recipient, set()).add(flight.outcome)
    parts: dict[tuple[frozenset[Outcome], str], list[InFlight]] = {}
    for flight in flights:
        own = outcomes[flight.recipient]
        alone = "" if own.isdisjoint(REFUSED) else flight.recipient
        parts.setdefault((frozenset(own), alone), []).append(flight)
    return list(parts.values())
