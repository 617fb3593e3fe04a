"""What cannot be routed, moved or served is refused: a dead letter is published, counted and reported."""

from __future__ import annotations

from router.clock import Clock
from router.core.dependencies import Reports
from router.dead_reasons import DeadReason
from router.interfaces import DeadLetters
from router.letters import letter_of
from router.messages import Delivery, Queued
from router.metrics import Metrics


class Refuser:
    """Makes messages dead letters, wherever they were found."""

    def __init__(self, letters: DeadLetters, *, clock: Clock, metrics: Metrics, reports: Reports) -> None:
        self._letters = letters
        self._clock = clock
        self._metrics = metrics
        self._reports = reports

    async def refuse(self, refused: Queued | Delivery, reason: DeadReason, detail: str) -> None:
        """Return once the dead letter of ``refused`` is durable; it is still where it was found. Raises
        ``Unavailable``; then nobody was told of it."""
        letter = letter_of(refused, reason, detail, self._clock.now())
        await self._letters.publish([letter])
        self._metrics.dead_letter(reason)
        self._reports.dead_letter(letter)
