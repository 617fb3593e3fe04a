"""Firestore's admin service for one database, over gRPC: the emulator has none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.cloud.firestore_admin_v1 import types

DATABASE = "projects/p/databases/(default)"
ACTIVE = int(types.Field.TtlConfig.State.ACTIVE)


class FirestoreAdmin(grpc.GenericRpcHandler):
    """State: the fields with settings of their own, by full name. A change is complete at once."""

    METHODS: tuple[tuple[str, Any], ...] = (
        ("GetDatabase", types.GetDatabaseRequest),
        ("GetField", types.GetFieldRequest),
        ("ListFields", types.ListFieldsRequest),
        ("UpdateField", types.UpdateFieldRequest),
    )

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.refused: dict[str, grpc.StatusCode] = {}
        """Method -> how it is refused."""
        self.asked: list[tuple[str, str]] = []
        self.page_size = 1000

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]

        async def answer(request: Any, context: Any) -> Any:
            if (code := self.refused.get(method)) is not None:
                await context.abort(code, "no")
            return getattr(self, method)(request)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=dict(self.METHODS)[method].pb().FromString,
            response_serializer=lambda found: found if isinstance(found, bytes) else found.SerializeToString(),
        )

    def GetDatabase(self, request: Any) -> Any:  # noqa: N802 - the method's name
        self.asked.append(("GetDatabase", request.name))
        return types.Database.pb()(name=request.name, type_=1, location_id="eur3", delete_protection_state=2)

    def GetField(self, request: Any) -> Any:  # noqa: N802
        self.asked.append(("GetField", request.name))
        return self.fields.get(request.name) or types.Field.pb()(name=request.name)

    def ListFields(self, request: Any) -> Any:  # noqa: N802
        assert request.filter == "indexConfig.usesAncestorConfig:false OR ttlConfig:*"
        own = [field for name, field in sorted(self.fields.items()) if name.startswith(f"{request.parent}/fields/")]
        start = int(request.page_token or 0)
        following = start + self.page_size
        token = str(following) if following < len(own) else ""
        return types.ListFieldsResponse.pb()(fields=own[start:following], next_page_token=token)

    def UpdateField(self, request: Any) -> Any:  # noqa: N802
        self.asked.append(("UpdateField", request.field.name))
        field = self.fields.setdefault(request.field.name, types.Field.pb()(name=request.field.name))
        for setting in request.update_mask.paths:
            if setting == "index_config":
                field.index_config.CopyFrom(request.field.index_config)
            else:
                assert setting == "ttl_config"
                assert request.field.HasField("ttl_config")
                if not field.HasField("index_config"):
                    field.index_config.uses_ancestor_config = True
                field.ttl_config.state = ACTIVE
        return b""

    def updated(self) -> list[str]:
        """The last parts of the names of the fields that were changed since the last call, in order."""
        found = [name.partition("/collectionGroups/")[2] for method, name in self.asked if method == "UpdateField"]
        self.asked.clear()
        return [name.replace("/fields/", ".") for name in found]

    def indexes(self, group: str) -> set[tuple[str, str]]:
        """(field, scope) of the ascending indexes of the fields of ``group`` that have settings of their own."""
        return {
            (name.rpartition("/")[2], types.Index.QueryScope(index.query_scope).name)
            for name, field in self.fields.items()
            if f"/{group}/" in name
            for index in field.index_config.indexes
            if [(part.field_path, part.order) for part in index.fields] == [(name.rpartition("/")[2], 1)]
        }


@asynccontextmanager
async def serving(admin: FirestoreAdmin) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to ``admin``, which serves it until the block is left."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([admin])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)
