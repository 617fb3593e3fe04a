"""The indexes and TTL policies that ``router setup`` makes, and the commands that do the same."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol

import msgspec
from google.cloud.firestore_admin_v1 import types
from msgspec import Struct

from router.backends.firestore.admin import Admin, NoDatabase
from router.backends.firestore.admin import Field as Settings
from router.backends.firestore.indexes import TTL_FIELD, Field, cold_fields, online_fields
from router.backends.google.channels import project
from router.config import Config
from router.config.roles import Role, kept_by
from router.errors import Forbidden
from router.needs import MISSING, NOT_IN_EMULATOR, THERE, Need

Index: Any = types.Index.pb()
DEFAULT = "(default)"
ROLE = "roles/datastore.indexAdmin"
INDEXES = "indexes"
ASCENDING = 1
SCOPES = {"COLLECTION": 1, "COLLECTION_GROUP": 2}
"""The scopes of an index, by name -> the number of ``Index.QueryScope``."""
HAS_POLICY = (1, 2)
"""``Field.TtlConfig.State``: being made, and active."""


def wanted(config: Config) -> list[Field]:
    """The fields of the collections that this configuration uses."""
    roles = kept_by(config, "firestore")
    cold = cold_fields(config.cold.collection) if Role.COLD in roles else []
    return cold + (online_fields(config.online.collection) if Role.ONLINE in roles else [])


def needs(admin: Admin | None, config: Config) -> list[Need]:
    """For each collection its indexes and, where its documents expire, its TTL policy. Without ``admin``, the database
    is an emulator's, which has neither."""
    made: list[Need] = []
    for group, own in groupby(wanted(config), key=lambda field: field.collection):
        fields = list(own)
        indexed = [field for field in fields if field.name != TTL_FIELD]
        commands = tuple(_index_command(config, field) for field in indexed)
        made.append(_need(_Indexes(group, indexed), INDEXES, _path(config, group), commands, admin, config))
        for field in fields:
            if field.name == TTL_FIELD:
                path = f"{_path(config, group)}/fields/{TTL_FIELD}"
                commands = (_index_command(config, field), policy_command(config, group))
                made.append(_need(_Policy(field), "TTL policy", path, commands, admin, config))
    return made


class _Setting(Protocol):
    async def is_there(self, admin: Admin) -> bool: ...

    async def make(self, admin: Admin) -> None: ...


def _need(
    setting: _Setting, what: str, where: str, commands: tuple[str, ...], admin: Admin | None, config: Config
) -> Need:
    async def look() -> str:
        if admin is None:
            return NOT_IN_EMULATOR
        try:
            return THERE if await setting.is_there(admin) else MISSING
        except Forbidden:
            return f"cannot be looked at: give this account {ROLE}, or run the commands"
        except NoDatabase:
            create = f"gcloud firestore databases create --location=LOCATION --type=firestore-native {named(config)}"
            return f"needs the database first: {create}"

    async def make() -> None:
        if admin is not None:
            try:
                await setting.make(admin)
            except Forbidden as error:
                raise Forbidden(f"cannot be made: give this account {ROLE}, or run the commands") from error

    return Need(what, where, look, make, commands)


class _Indexes(Struct, frozen=True):
    """The indexes of one collection group."""

    group: str
    fields: Sequence[Field]

    async def is_there(self, admin: Admin) -> bool:
        return not await self._lacking(admin)

    async def make(self, admin: Admin) -> None:
        for name, indexes in await self._lacking(admin):
            field = Settings(name=admin.field(self.group, name), index_config={"indexes": indexes})
            await admin.update(field, "index_config")

    async def _lacking(self, admin: Admin) -> list[tuple[str, list[Any]]]:
        """(field, all indexes that it is to have) of the fields that lack one, or that have needless ones."""
        found = await admin.overridden(self.group)
        goals = [(field.name, indexes_of(field, found.get(field.name))) for field in self.fields]
        return [(name, indexes) for name, indexes in goals if indexes is not None]


def indexes_of(field: Field, found: Any) -> list[Any] | None:
    """All indexes that ``field`` is to have, or ``None`` where it is well as it was ``found``.

    A field without settings of its own has those of the database, which indexes everything. Settings of its own stay,
    and what is missing is added: another application may have made them.
    """
    parts = [{"field_path": field.name, "order": ASCENDING}]
    goal = {scope: Index(query_scope=scope, fields=parts) for scope in map(SCOPES.__getitem__, field.scopes)}
    if found is None or found.index_config.uses_ancestor_config:
        return list(goal.values())
    present = [Index(query_scope=each.query_scope, fields=each.fields) for each in found.index_config.indexes]
    ascending = {each.query_scope for each in present if [part.order for part in each.fields] == [ASCENDING]}
    missing = [index for scope, index in goal.items() if scope not in ascending]
    return [*present, *missing] if missing else None


class _Policy(Struct, frozen=True):
    """The TTL policy on a field, and the indexes of that field: Firestore makes one change of a field at a time."""

    field: Field

    async def is_there(self, admin: Admin) -> bool:
        return not await self._lacking(admin)

    async def make(self, admin: Admin) -> None:
        settings = await self._lacking(admin)
        path = admin.field(self.field.collection, self.field.name)
        await admin.update(Settings(name=path, **settings), *settings)

    async def _lacking(self, admin: Admin) -> dict[str, Any]:
        """What it is to have and has not, by the names of the settings."""
        found = (await admin.overridden(self.field.collection)).get(self.field.name)
        lacking: dict[str, Any] = {}
        if (indexes := indexes_of(self.field, found)) is not None:
            lacking["index_config"] = {"indexes": indexes}
        if found is None or found.ttl_config.state not in HAS_POLICY:
            lacking["ttl_config"] = {}
        return lacking


def named(config: Config) -> str:
    """The options of ``gcloud firestore`` that name the database."""
    database, own = config.google.firestore_database, f"--project={project(config)}"
    return shlex.join([own] if database == DEFAULT else [f"--database={database}", own])


def _path(config: Config, group: str) -> str:
    return f"projects/{project(config)}/databases/{config.google.firestore_database}/collectionGroups/{group}"


def policy_command(config: Config, group: str) -> str:
    """The command that makes the TTL policy of a collection."""
    return f"gcloud firestore fields ttls update {TTL_FIELD} --collection-group={group} --enable-ttl {named(config)}"


def _index_command(config: Config, field: Field) -> str:
    if field.everywhere:  # which gcloud has no option for
        indexes = [
            {"queryScope": scope, "fields": [{"fieldPath": field.name, "order": "ASCENDING"}]} for scope in field.scopes
        ]
        url = f"https://firestore.googleapis.com/v1/{_path(config, field.collection)}/fields/{field.name}"
        body = msgspec.json.encode({"indexConfig": {"indexes": indexes}}).decode()
        return (
            'curl --fail --request PATCH --header "Authorization: Bearer $(gcloud auth print-access-token)" '
            f"--header 'Content-Type: application/json' --data {shlex.quote(body)} "
            f"{shlex.quote(url + '?updateMask=indexConfig')}"
        )
    option = "--index=order=ascending" if field.under_parent else "--disable-indexes"
    update = f"gcloud firestore indexes fields update {field.name} --collection-group={field.collection}"
    return f"{update} {option} {named(config)}"
