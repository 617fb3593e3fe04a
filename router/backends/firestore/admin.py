"""Calls to Firestore's admin service, which an emulator lacks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import grpc
from google.cloud.firestore_admin_v1 import types

from router.backends.google.calls import BUDGET_SECONDS, CALL_SECONDS, call
from router.errors import Forbidden, Unavailable

Field: Any = types.Field.pb()
_SERVICE = "/google.firestore.admin.v1.FirestoreAdmin/"
_METHODS: dict[str, tuple[Any, Any]] = {
    "GetDatabase": (types.GetDatabaseRequest.pb(), types.Database.pb().FromString),
    "GetField": (types.GetFieldRequest.pb(), Field.FromString),
    "ListFields": (types.ListFieldsRequest.pb(), types.ListFieldsResponse.pb().FromString),
    "UpdateField": (types.UpdateFieldRequest.pb(), bytes),  # an operation, for which nothing here waits
}
PAGE = 300
UPDATE_SECONDS = 20.0
UPDATE_BUDGET_SECONDS = 60.0
"""Changes are slow, and Firestore admits few at a time."""
OVERRIDDEN = "indexConfig.usesAncestorConfig:false OR ttlConfig:*"
"""The filter for all fields whose settings are not those of their database."""


class NoDatabase(Unavailable):
    """The database does not exist."""


class Admin:
    """The settings of one database, ``projects/…/databases/…``.

    All methods raise ``Unavailable``: ``Forbidden`` where a right is missing, ``NoDatabase``.
    """

    def __init__(self, channel: grpc.aio.Channel, database: str, chance: random.Random) -> None:
        self.database = database
        self._channel = channel
        self._chance = chance

    async def get_database(self) -> Any:
        return await self._ask("GetDatabase", {"name": self.database}, {"name": self.database})

    async def get_field(self, group: str, name: str) -> Any:
        """One field of a collection group, with the settings that it has or inherits."""
        path = self.field(group, name)
        return await self._ask("GetField", {"name": path}, {"name": path})

    async def overridden(self, group: str) -> dict[str, Any]:
        """The fields of a collection group that have settings of their own, by name."""
        parent = f"{self.database}/collectionGroups/{group}"
        found: dict[str, Any] = {}
        token = ""
        while True:
            request = {"parent": parent, "filter": OVERRIDDEN, "page_size": PAGE, "page_token": token}
            page = await self._ask("ListFields", request, {"parent": parent})
            found |= {field.name.rpartition("/")[2]: field for field in page.fields}
            if not (token := page.next_page_token):
                return found

    async def update(self, field: Any, *settings: str) -> None:
        """Give a field those ``settings`` of ``field``: ``index_config``, ``ttl_config``. Firestore works at them in
        the background: at indexes for minutes, at a TTL policy for hours."""
        request = {"field": field, "update_mask": {"paths": settings}}
        await self._ask(
            "UpdateField", request, {"field.name": field.name}, seconds=UPDATE_SECONDS, budget=UPDATE_BUDGET_SECONDS
        )

    def field(self, group: str, name: str) -> str:
        """The full name of a field."""
        return f"{self.database}/collectionGroups/{group}/fields/{name}"

    async def _ask(
        self,
        method: str,
        request: Mapping[str, Any],
        routing: Mapping[str, str],
        *,
        seconds: float = CALL_SECONDS,
        budget: float = BUDGET_SECONDS,
    ) -> Any:
        kind, read = _METHODS[method]
        ask = self._channel.unary_unary(
            _SERVICE + method, request_serializer=kind.SerializeToString, response_deserializer=read
        )
        metadata: Sequence[tuple[str, str]] = [
            ("x-goog-request-params", "&".join(f"{name}={quote(value, safe='')}" for name, value in routing.items()))
        ]
        asked = kind(**request)
        try:
            return await call(
                "Firestore",
                lambda timeout: ask(asked, timeout=timeout, metadata=metadata),
                self._chance,
                seconds=seconds,
                budget=budget,
            )
        except Unavailable as error:
            code = error.__cause__.code() if isinstance(error.__cause__, grpc.aio.AioRpcError) else None
            if code is grpc.StatusCode.PERMISSION_DENIED:
                raise Forbidden(str(error)) from error.__cause__
            if code is grpc.StatusCode.NOT_FOUND:
                raise NoDatabase(str(error)) from error.__cause__
            raise
