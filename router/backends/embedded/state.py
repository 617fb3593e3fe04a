"""What the parts of the online store share: the database, and the sending of pokes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.backends.embedded.database import Database
from router.backends.embedded.signals import Nodes
from router.backends.routing_rules import StoreRules
from router.clock import Clock
from router.interfaces import PokeBus
from router.timekeeping import Timekeeper


@dataclass(frozen=True, slots=True)
class EmbeddedState:
    """What each part needs. A part's call is one transaction on ``database``: a function of ``sqlite3.Connection``."""

    database: Database
    pokes: PokeBus
    rules: StoreRules
    clock: Clock
    keeper: Timekeeper
    direct: bool = False
    """This file holds all that a message passes: ingress, online store, cold queue, and the outbox, if there is one."""
    announces: bool = True
    """It holds the outbox."""
    remembers: bool = False
    """The record of each message that leaves the queues stays for its time, even if its id cannot come again."""
    nodes: Nodes | None = None
    """Knows which nodes are dead, whose leases end at once; ``None`` if nothing knows."""
    lead: Callable[[], bool] = lambda: True
    """Takes the lock of the one process that counts for all on this file; returns whether this process has it."""

    async def publish(self, pokes: Sequence[tuple[str, str]]) -> None:
        """Send ``pokes``, (node, user) pairs."""
        if pokes:
            await self.pokes.publish(pokes)
