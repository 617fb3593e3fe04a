"""What the embedded store is told by the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from router.clock import MICROSECONDS

DAY_SECONDS = 86_400
MOVE_LEASE_SECONDS = 60
ORPHAN_SECONDS = 60
"""A worker that has not reported a copy as deleted by then is taken for dead."""


@dataclass(frozen=True, slots=True)
class StoreRules:
    """Spans in seconds, from the ``online`` and ``limits`` sections."""

    lease_seconds: float
    tombstone_seconds: float
    ephemeral_seconds: float
    queue_messages: int
    fresh_cold_empty: bool
    """A user of whom this store knows nothing has nothing in cold: true where cold is in the same file."""

    def remember_until(self, now: int, *, keyed: bool) -> int:
        """Until when (µs since 1970) the id of a message that leaves the queues at ``now`` is remembered."""
        return now + int(self.remember_seconds(keyed=keyed) * MICROSECONDS)

    def remember_seconds(self, *, keyed: bool) -> float:
        return max(DAY_SECONDS, self.tombstone_seconds) if keyed else self.tombstone_seconds

    def ephemeral_cutoff(self, now: int) -> int:
        """An ephemeral message accepted at or before this has expired."""
        return now - int(self.ephemeral_seconds * MICROSECONDS)

    def lease_until(self, now: int) -> int:
        return now + int(self.lease_seconds * MICROSECONDS)
