"""The books: accepted = acknowledged + queued + expired + dropped + dead."""

from __future__ import annotations

from msgspec import Struct


class Books(Struct, frozen=True):
    """What became of all messages, since the first one or in a span; each counts once."""

    accepted: int
    acknowledged: int
    queued: int
    """In the ingress, in hot or in cold; in a span: how many more than at its beginning."""
    expired: int
    """Deleted from cold after ``cold.retention_days``."""
    dropped: int
    """Ephemeral ones, whose time was over or whose recipient was gone."""
    dead: int
    """That became dead letters; one that is replayed counts again as accepted."""

    @property
    def missing(self) -> int:
        """Accepted messages of which nobody knows what became; negative: more has left than came."""
        return self.accepted - self.acknowledged - self.queued - self.expired - self.dropped - self.dead


class Unbalanced(Struct, frozen=True):
    """A recipient of whose messages the queues do not hold as many as the books say."""

    user: str
    kept: int
    """How many should be queued."""
    held: int
    """How many are."""
