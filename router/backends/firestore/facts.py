"""The settings of a database, from Firestore's admin service, which an emulator lacks. For ``router doctor``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import grpc
from google.cloud.firestore_admin_v1 import types
from msgspec import Struct

from router.backends.google.calls import call
from router.config import Config
from router.config.roles import Role, kept_by

EXPIRY_FIELD = "expire_at"
_ADMIN = "/google.firestore.admin.v1.FirestoreAdmin/"


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


async def gather(
    channel: grpc.aio.Channel, database: str, groups: Sequence[str], chance: random.Random
) -> FirestoreFacts:
    """The facts of ``database``, ``projects/…/databases/…``; raises ``Unavailable``, also if the account may not see
    them."""
    found = await _get(channel, "GetDatabase", types.GetDatabaseRequest, types.Database, database, chance)
    names = [f"{database}/collectionGroups/{group}/fields/{EXPIRY_FIELD}" for group in groups]
    fields = await asyncio.gather(
        *(_get(channel, "GetField", types.GetFieldRequest, types.Field, name, chance) for name in names)
    )
    return FirestoreFacts(
        mode=types.Database.DatabaseType(found.type_).name,
        location=found.location_id,
        protected=found.delete_protection_state == types.Database.DeleteProtectionState.DELETE_PROTECTION_ENABLED,
        expiry={group: _state(field) for group, field in zip(groups, fields, strict=True)},
    )


def _state(field: Any) -> str:
    state: str = types.Field.TtlConfig.State(field.ttl_config.state).name
    return state


async def _get(
    channel: grpc.aio.Channel, method: str, request: Any, response: Any, name: str, chance: random.Random
) -> Any:
    ask = channel.unary_unary(
        _ADMIN + method,
        request_serializer=request.pb().SerializeToString,
        response_deserializer=response.pb().FromString,
    )
    metadata = (("x-goog-request-params", f"name={name}"),)
    asked = request.pb()(name=name)
    return await call("Firestore", lambda seconds: ask(asked, timeout=seconds, metadata=metadata), chance)
