"""What go-routing-service left in Firestore, and the ids that are imported, which are noted beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Self

from msgspec import Struct

from router.backends.firestore.client import Client
from router.backends.firestore.names import document_id
from router.backends.firestore.wire import deletion, new_write
from router.backends.firestore.write_batches import Writer, check
from router.backends.google.calls import Patience
from router.backends.google.channels import FIRESTORE, open_channels, project
from router.config import Config
from router.go_import.stored import Unreadable, Waiting, body

MESSAGES = "messages"
"""The collection of one user's messages, in each of the collections of users."""
IMPORTED = "router-imported"
"""Our collection of users, each with the ids that are imported, as documents without fields."""
IDS = "ids"


class Collections(Struct, frozen=True):
    """The names of its collections of users, by the settings of go-routing-service."""

    cold: str = "cold-queue"
    hot: str = "hot-queue-main"
    pending: str = "hot-queue-pending"

    @property
    def all(self) -> list[str]:
        """Mail that was fetched and not acknowledged, express mail, other hot mail, and cold mail."""
        return [self.pending, f"{self.hot}_high", self.hot, self.cold]


class GoFirestore:
    """One database; read only, but for the ids that are noted, and ``delete``."""

    def __init__(self, client: Client, writer: Writer, database: str, collections: Collections) -> None:
        self._client = client
        self._writer = writer
        self._root = f"{database}/documents"
        self._collections = collections

    @classmethod
    @asynccontextmanager
    async def open(cls, config: Config, collections: Collections) -> AsyncIterator[Self]:
        """The database of ``google`` in ``config``; raises ``ConfigError``."""
        database = f"projects/{project(config)}/databases/{config.google.firestore_database}"
        async with open_channels(FIRESTORE, config) as channels:
            client = Client(channels, database, Random(), Patience())  # noqa: S311 - jitter, no secret
            writer = Writer(client)
            try:
                yield cls(client, writer, database, collections)
            finally:
                await writer.aclose()

    async def users(self) -> AsyncIterator[str]:
        """Everybody who may have mail, some more than once."""
        for collection in self._collections.all:
            # Their own documents do not exist: only what is below them.
            async for found in self._client.list(self._root, collection, missing=True):
                yield _name(found.name)

    async def places(self, user: str) -> list[list[Waiting]]:
        """The messages of ``user``, without their envelopes: a list for each collection, in its order."""
        places = []
        for collection in self._collections.all:
            parent = f"{self._root}/{collection}/{user}"
            found = [document async for document in self._client.list(parent, MESSAGES, ["queued_at"])]
            waiting = [Waiting(_name(each.name), each.name, _queued_at(each)) for each in found]
            places.append(sorted(waiting, key=lambda each: (each.queued_at, each.id)))
        return places

    async def bodies(self, waiting: Iterable[Waiting]) -> dict[str, bytes | Unreadable]:
        """The envelopes of these, by their paths, or why they cannot be read; what is gone is missing."""
        paths = [each.place for each in waiting]
        found = await self._client.call(lambda seconds: self._client.get(paths, seconds))
        return {path: _body(document.fields) for path, document in found.items()}

    async def imported(self, user: str) -> set[str]:
        """The ids of ``user`` that are noted as imported."""
        return {_name(found.name) async for found in self._client.list(self._of(user), IDS)}

    async def note(self, user: str, ids: Iterable[str]) -> None:
        """Note ``ids`` as imported; durable on return."""
        paths = (f"{self._of(user)}/{IDS}/{id_}" for id_ in ids)
        check(await self._writer.write([new_write(update={"name": path}) for path in paths]))

    async def delete(self, paths: Sequence[str]) -> None:
        """Delete these messages."""
        check(await self._writer.write([deletion(path) for path in paths]))

    async def forget(self, user: str, ids: Iterable[str]) -> None:
        """Delete what ``note`` wrote."""
        await self.delete([f"{self._of(user)}/{IDS}/{id_}" for id_ in ids])

    def _of(self, user: str) -> str:
        return f"{self._root}/{IMPORTED}/{document_id(user)}"


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _queued_at(document: object) -> float:
    fields = document.fields  # type: ignore[attr-defined]  # the library makes its classes at import
    if "queued_at" in fields and fields["queued_at"].WhichOneof("value_type") == "timestamp_value":
        return float(fields["queued_at"].timestamp_value.ToMicroseconds())
    return float(document.create_time.ToMicroseconds())  # type: ignore[attr-defined]  # the same


def _body(fields: object) -> bytes | Unreadable:
    try:
        return body(fields)
    except Unreadable as error:
        return error
