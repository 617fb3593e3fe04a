"""The online store in Firestore, put together from its parts."""

from __future__ import annotations

from router.backends.composed import ComposedOnlineStore
from router.backends.firestore.maintenance import FirestoreMaintenance
from router.backends.firestore.migration import FirestoreMigration
from router.backends.firestore.presence import FirestorePresence
from router.backends.firestore.queue import FirestoreQueue
from router.backends.firestore.routing import FirestoreRouting
from router.backends.firestore.state import FirestoreState


class FirestoreOnlineStore(ComposedOnlineStore):
    """``OnlineStore`` over Firestore."""

    def __init__(self, state: FirestoreState) -> None:
        self.state = state
        super().__init__(
            FirestorePresence(state),
            FirestoreRouting(state),
            FirestoreQueue(state),
            FirestoreMigration(state),
            FirestoreMaintenance(state),
        )
