"""The indexes and TTL policies that the collections need; ``examples/firestore`` has them for the default names.

By default Firestore indexes every field, which costs time and space with each write. This list has indexes only for
fields that a query follows, in ascending order. Firestore makes an index over all collections of a name only on demand.
"""

from __future__ import annotations

from msgspec import Struct

TTL_FIELD = "expire_at"


class Field(Struct, frozen=True):
    """One field of a collection's documents, and its indexes."""

    collection: str
    name: str
    under_parent: bool = False
    """Index for queries in one collection."""
    everywhere: bool = False
    """Index for queries over all collections of this name."""

    @property
    def scopes(self) -> list[str]:
        """The scopes of its indexes, by their names in Firestore."""
        wanted = {"COLLECTION": self.under_parent, "COLLECTION_GROUP": self.everywhere}
        return [scope for scope, is_wanted in wanted.items() if is_wanted]

    def override(self) -> dict[str, object]:
        """Its entry of ``fieldOverrides`` in ``firestore.indexes.json``."""
        indexes = [{"order": "ASCENDING", "queryScope": scope} for scope in self.scopes]
        entry: dict[str, object] = {"collectionGroup": self.collection, "fieldPath": self.name, "indexes": indexes}
        return entry | ({"ttl": True} if self.name == TTL_FIELD else {})


def cold_fields(collection: str) -> list[Field]:
    """Fields of the cold queue; ``collection`` is ``cold.collection``."""
    messages = f"{collection}-messages"
    return [
        Field(messages, "place", under_parent=True),
        Field(messages, "by_age", under_parent=True, everywhere=True),
        Field(messages, "size", under_parent=True, everywhere=True),
        Field(messages, "untold_at", everywhere=True),
        *_plain(messages, "queued_at", "accepted_at", "keyed", "attempts", "checksum", "envelope", TTL_FIELD),
    ]


def online_fields(collection: str) -> list[Field]:
    """Fields of the online store; ``collection`` is ``online.collection``."""
    hot, ids = f"{collection}-hot", f"{collection}-ids"
    walked = ("busy", "live", "lease_at", "ephemeral_due", "idle_at")
    return [
        *(Field(collection, name, under_parent=True) for name in walked),
        *_plain(
            collection, "sequence", "hot", "hot_bytes", "cold", "cold_bytes", "pending", "cold_version", "cold_empty",
            "announced", "poked_at", "fetched", "move_owner", "move_until", "doubled_express", "doubled_normal",
            "hot_since", "ephemeral_at", "cut_at", "inbound_until", "offline_since",
            "connections",
        ),
        *(Field(hot, name, under_parent=True) for name in ("place", "queued_at", "durable", "ephemeral_at")),
        Field(hot, "size", under_parent=True, everywhere=True),
        *_plain(hot, "accepted_at", "keyed", "attempts", "checksum", "envelope"),
        *(Field(ids, name, under_parent=True) for name in ("forget", "owed")),
        *_plain(ids, "user", "lane", "sequence", "state", "keyed", "size", "until", "acked_at", TTL_FIELD),
    ]  # fmt: skip


def _plain(collection: str, *names: str) -> list[Field]:
    return [Field(collection, name) for name in names]


def document(fields: list[Field]) -> dict[str, object]:
    """The content of ``firestore.indexes.json``."""
    return {"indexes": [], "fieldOverrides": [field.override() for field in fields]}
