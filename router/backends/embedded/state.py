"""What the parts of the online store share: the file, and the way of pokes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.backends.embedded.database import Database
from router.backends.embedded.signals import Nodes
from router.backends.rules import StoreRules
from router.clock import Clock
from router.interfaces import PokeBus
from router.timekeeping import Timekeeper


@dataclass(frozen=True, slots=True)
class EmbeddedState:
    """Each call of a part is one transaction on ``database``, a function of ``sqlite3.Connection``."""

    database: Database
    pokes: PokeBus
    rules: StoreRules
    clock: Clock
    keeper: Timekeeper
    nodes: Nodes | None = None
    """Which nodes are dead, where anybody knows of it: their leases end at once."""

    async def publish(self, pokes: Sequence[tuple[str, str]]) -> None:
        """``pokes``: (node, user) pairs."""
        if pokes:
            await self.pokes.publish(pokes)
