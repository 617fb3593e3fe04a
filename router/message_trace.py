"""What the stores know of one message: the facts from which ``router trace`` tells what became of it.

Points in time are µs since 1970. Nothing here holds an envelope.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from router.lifecycle import State
from router.messages import Connection, Lane


class Waiting(Struct, frozen=True):
    """The message waits in the ingress."""

    accepted_at: int
    lane: Lane
    keyed: bool
    ephemeral: bool
    bytes: int
    """Size of the envelope, as everywhere here."""
    attempts: int
    """How often a pipeline has handed it back."""
    ahead: int
    """Messages of the same recipient that the ingress delivers before it."""


class Record(Struct, frozen=True):
    """What the online store has on record of the id."""

    state: State
    lane: Lane
    keyed: bool
    sequence: int
    """0 where the store keeps none once the message has left the queues."""
    ephemeral: bool | None = None
    """``None`` where the record does not say."""
    left_at: int = 0
    """When it left the queues; 0 while it is in one."""


class Copy(Struct, frozen=True):
    """The message in one tier."""

    lane: Lane
    sequence: int
    queued_at: int
    accepted_at: int
    keyed: bool
    ephemeral: bool
    bytes: int
    attempts: int
    """The ``Delivery.attempt`` that was routed; 1 is the first."""
    announced: bool
    unreported: bool = False


class Attention(Struct, frozen=True):
    """Whether the recipient is there, and what they have been told."""

    connections: list[Connection]
    """The live ones, the oldest first."""
    offline_since: int = 0
    """When the last connection ended; 0 if the store does not know."""
    poked_at: int = 0
    fetched: bool = True
    """They have fetched since that poke."""
    cut_at: int = 0
    """As ``HotUser.cut_at``."""
    move_owner: str = ""
    move_until: int = 0
    """Until when ``move_owner`` holds the migration lease; 0 if nobody does."""


class Letter(Struct, frozen=True):
    """A dead letter of the message."""

    reason: str
    detail: str
    at: int
    attempts: int
    bytes: int


class Facts(Struct, frozen=True):
    """What backends know of one message of one recipient. Each field belongs to one role: a backend that does not keep
    it leaves the default."""

    waiting: Waiting | None = None
    record: Record | None = None
    hot: Copy | None = None
    hot_ahead: int = 0
    """Messages of its lane that stand in front of it in the hot queue."""
    pending_ahead: int = 0
    """Cold writes of its lane in front of it that are not confirmed."""
    attention: Attention | None = None
    cold: Copy | None = None
    cold_ahead: int = 0
    letters: list[Letter] = []
    command_at: int = 0
    """When its push command was put into the outbox, in which it still is; else 0."""
    router_runs: bool | None = None
    """Whether a process listens on the store that routes, or holds connections; ``None`` if the store cannot tell."""

    @property
    def known(self) -> bool:
        """Whether anything is known of the message itself."""
        return bool(self.waiting or self.record or self.hot or self.cold or self.letters or self.command_at)


NOTHING = Facts()


def merged(facts: Facts, more: Facts) -> Facts:
    """Both together, of backends that keep different roles."""
    told = {name: getattr(more, name) for name in Facts.__struct_fields__}
    return replace(facts, **{name: value for name, value in told.items() if value != getattr(NOTHING, name)})
