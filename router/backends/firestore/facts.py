"""The settings of a database, from Firestore's admin service, which an emulator lacks. For ``router doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from google.cloud.firestore_admin_v1 import types
from msgspec import Struct

from router.backends.firestore.admin import Admin
from router.config import Config
from router.config.roles import Role, kept_by

EXPIRY_FIELD = "expire_at"


class FirestoreFacts(Struct, frozen=True):
    """Settings of one database."""

    mode: str
    """``FIRESTORE_NATIVE`` or ``DATASTORE_MODE``."""
    location: str
    protected: bool
    """Delete protection is on."""
    expiry: dict[str, str]
    """Collection group -> the state of its TTL policy, in Firestore's words: ``ACTIVE``, ``CREATING``,
    ``NEEDS_REPAIR``, or ``STATE_UNSPECIFIED`` where it has none."""


def expiring(config: Config) -> list[str]:
    """The collection groups whose documents say when Firestore may delete them."""
    groups, roles = [], kept_by(config, "firestore")
    if Role.COLD in roles:
        groups.append(f"{config.cold.collection}-messages")
    if Role.ONLINE in roles:
        groups.append(f"{config.online.collection}-ids")
    return groups


async def gather(admin: Admin, groups: Sequence[str]) -> FirestoreFacts:
    """The facts of its database; raises ``Unavailable``, also if the account may not see them."""
    found = await admin.get_database()
    fields = await asyncio.gather(*(admin.get_field(group, EXPIRY_FIELD) for group in groups))
    return FirestoreFacts(
        mode=types.Database.DatabaseType(found.type_).name,
        location=found.location_id,
        protected=found.delete_protection_state == types.Database.DeleteProtectionState.DELETE_PROTECTION_ENABLED,
        expiry={group: _state(field) for group, field in zip(groups, fields, strict=True)},
    )


def _state(field: Any) -> str:
    state: str = types.Field.TtlConfig.State(field.ttl_config.state).name
    return state
