"""The embedded online store: presence and hot queue in one SQLite file, put together from its parts."""

from __future__ import annotations

from router.backends.composed import ComposedOnlineStore
from router.backends.embedded.maintenance import EmbeddedMaintenance
from router.backends.embedded.migration import EmbeddedMigration
from router.backends.embedded.presence import EmbeddedPresence
from router.backends.embedded.queue import EmbeddedQueue
from router.backends.embedded.routing import EmbeddedRouting
from router.backends.embedded.state import EmbeddedState


class EmbeddedOnlineStore(ComposedOnlineStore):
    """``OnlineStore`` over SQLite."""

    def __init__(self, state: EmbeddedState) -> None:
        self.state = state
        super().__init__(
            EmbeddedPresence(state),
            EmbeddedRouting(state),
            EmbeddedQueue(state),
            EmbeddedMigration(state),
            EmbeddedMaintenance(state),
        )
