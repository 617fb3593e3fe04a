"""The calls to Firestore that the queues use."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import grpc
from msgspec import Struct

from router.backends.firestore import wire
from router.backends.firestore.wire import Document, Query, Write
from router.backends.google.calls import TRANSIENT, Patience, call
from router.backends.google.channels import FIRESTORE, metadata

T = TypeVar("T")
_SERVICE = "/google.firestore.v1.Firestore/"
LIST_DOCUMENTS = 300
"""Documents of a page of ``Client.list``: the service's maximum."""


class Statistics(Struct):
    """How many calls were made, with retries."""

    batch_writes: int = 0
    commits: int = 0
    gets: int = 0
    queries: int = 0
    documents_written: int = 0
    documents_read: int = 0


class Client:
    """One database, over several channels in turn."""

    def __init__(
        self, channels: Sequence[grpc.aio.Channel], database: str, chance: random.Random, patience: Patience
    ) -> None:
        self.patience = patience
        self.chance = chance
        self.statistics = Statistics()
        self._database = database
        self._metadata = (
            *metadata(FIRESTORE),
            ("google-cloud-resource-prefix", database),
            ("x-goog-request-params", f"database={quote(database, safe='')}"),
        )
        self._batch_write = _unary(channels, "BatchWrite", wire.BatchWriteRequest, wire.BatchWriteResponse)
        self._commit = _unary(channels, "Commit", wire.CommitRequest, wire.CommitResponse)
        self._get = _stream(
            channels, "BatchGetDocuments", wire.BatchGetDocumentsRequest, wire.BatchGetDocumentsResponse
        )
        self._query = _stream(channels, "RunQuery", wire.RunQueryRequest, wire.RunQueryResponse)
        self._list = _unary(channels, "ListDocuments", wire.ListDocumentsRequest, wire.ListDocumentsResponse)
        self._aggregate = _stream(
            channels, "RunAggregationQuery", wire.RunAggregationQueryRequest, wire.RunAggregationQueryResponse
        )

    async def call(
        self, attempt: Callable[[float], Awaitable[T]], *, repeated: Collection[grpc.StatusCode] = TRANSIENT
    ) -> T:
        """Run ``attempt``, which gets its time-out in seconds, and repeat it where that can help.

        Raises ``Refused`` and ``Unavailable``. The methods below that take ``seconds`` raise the library's own errors.
        """
        patience = self.patience
        return await call(
            FIRESTORE.name, attempt, self.chance, repeated=repeated, seconds=patience.call, budget=patience.budget
        )

    async def batch_write(self, writes: Sequence[Write], seconds: float) -> list[tuple[int, str]]:
        """Carry out each of ``writes`` by itself, in any order; returns (status code, message) of each."""
        self.statistics.batch_writes += 1
        self.statistics.documents_written += len(writes)
        request = wire.BatchWriteRequest(database=self._database, writes=writes)
        response = await next(self._batch_write)(request, timeout=seconds, metadata=self._metadata)
        return [(status.code, status.message) for status in response.status]

    async def commit(self, writes: Sequence[Write], seconds: float) -> list[Any]:
        """Carry out all of ``writes`` or none; returns the update time of each document."""
        self.statistics.commits += 1
        self.statistics.documents_written += len(writes)
        request = wire.CommitRequest(database=self._database, writes=writes)
        response = await next(self._commit)(request, timeout=seconds, metadata=self._metadata)
        return [result.update_time for result in response.write_results]

    async def get(self, paths: Iterable[str], seconds: float, select: Sequence[str] = ()) -> dict[str, Document]:
        """The existing documents of ``paths``, by path; with the fields ``select``, or with all if it is empty."""
        request = wire.BatchGetDocumentsRequest(database=self._database, documents=paths)
        if select:  # an empty mask asks for no field
            request.mask.field_paths.extend(select)
        if not request.documents:
            return {}
        self.statistics.gets += 1
        stream = next(self._get)(request, timeout=seconds, metadata=self._metadata)
        found = {answer.found.name: answer.found async for answer in stream if answer.HasField("found")}
        self.statistics.documents_read += len(found)
        return found

    async def query(self, parent: str, query: Query, seconds: float) -> AsyncGenerator[Document, None]:
        """The documents that ``query`` finds under ``parent``. A caller that stops early must close this."""
        self.statistics.queries += 1
        request = wire.RunQueryRequest(parent=parent, structured_query=query.structured())
        stream = next(self._query)(request, timeout=seconds, metadata=self._metadata)
        try:
            async for answer in stream:
                if answer.HasField("document"):
                    self.statistics.documents_read += 1
                    yield answer.document
        finally:
            stream.cancel()

    async def find(self, parent: str, query: Query) -> list[Document]:
        """All documents that ``query`` finds; raises ``Unavailable``."""

        async def attempt(seconds: float) -> list[Document]:
            return [document async for document in self.query(parent, query, seconds)]

        return await self.call(attempt)

    async def list(
        self, parent: str, collection: str, select: Sequence[str] = (), *, missing: bool = False
    ) -> AsyncGenerator[Document, None]:
        """All documents of a collection, in the order of their names; with the fields ``select``, or with all if it is
        empty. ``missing``: also names that only have documents below them. Raises ``Unavailable``."""
        request = wire.ListDocumentsRequest(
            parent=parent, collection_id=collection, page_size=LIST_DOCUMENTS, show_missing=missing
        )
        request.mask.field_paths.extend(select)
        while True:
            self.statistics.queries += 1
            page = await self.call(lambda seconds: next(self._list)(request, timeout=seconds, metadata=self._metadata))
            self.statistics.documents_read += len(page.documents)
            for document in page.documents:
                yield document
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def count(
        self, parent: str, collection: str, total: str, *, everywhere: bool = False, positive: bool = False
    ) -> tuple[int, int]:
        """How many documents a collection has, and the sum of their fields ``total``.

        ``everywhere``: of all collections of this name, under any parent. ``positive``: only of documents in which that
        field exists and is more than 0. Raises ``Unavailable``.
        """

        async def attempt(seconds: float) -> tuple[int, int]:
            self.statistics.queries += 1
            request = wire.RunAggregationQueryRequest(parent=parent)
            wanted = request.structured_aggregation_query
            wanted.structured_query.from_.add(collection_id=collection, all_descendants=everywhere)
            if positive:
                wire.bound(wanted.structured_query, total, wire.GREATER, 0)
            wanted.aggregations.add(alias="sum").sum.field.field_path = total
            wanted.aggregations.add(alias="count").count.SetInParent()
            stream = next(self._aggregate)(request, timeout=seconds, metadata=self._metadata)
            (fields,) = [answer.result.aggregate_fields async for answer in stream if answer.HasField("result")]
            return fields["count"].integer_value, fields["sum"].integer_value

        return await self.call(attempt)

    async def count_within(self, parent: str, collection: str, field: str, least: int, most: int) -> int:
        """How many documents a collection has whose ``field`` is from ``least`` to ``most``. There is no sum of others,
        which would need an index of both. Raises ``Unavailable``."""

        async def attempt(seconds: float) -> int:
            self.statistics.queries += 1
            request = wire.RunAggregationQueryRequest(parent=parent)
            wanted = request.structured_aggregation_query
            wanted.structured_query.from_.add(collection_id=collection)
            wire.bound(wanted.structured_query, field, wire.GREATER_OR_EQUAL, least)
            wire.bound(wanted.structured_query, field, wire.LESS_OR_EQUAL, most)
            wanted.aggregations.add(alias="count").count.SetInParent()
            stream = next(self._aggregate)(request, timeout=seconds, metadata=self._metadata)
            (fields,) = [answer.result.aggregate_fields async for answer in stream if answer.HasField("result")]
            return int(fields["count"].integer_value)

        return await self.call(attempt)

    async def time(self, path: str) -> int:
        """Firestore's clock (µs since 1970); costs one read. Raises ``Unavailable``."""
        request = wire.BatchGetDocumentsRequest(database=self._database, documents=[path])

        async def attempt(seconds: float) -> int:
            self.statistics.gets += 1
            stream = next(self._get)(request, timeout=seconds, metadata=self._metadata)
            (time,) = [answer.read_time.ToMicroseconds() async for answer in stream]
            return int(time)

        return await self.call(attempt)

    async def probe(self, path: str) -> None:
        """Raise ``Unavailable`` unless a read works now."""
        await self.call(lambda seconds: self.get([path], seconds))


def _unary(channels: Sequence[grpc.aio.Channel], name: str, request: Any, response: Any) -> itertools.cycle[Any]:
    return itertools.cycle(
        [
            channel.unary_unary(
                _SERVICE + name,
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            for channel in channels
        ]
    )


def _stream(channels: Sequence[grpc.aio.Channel], name: str, request: Any, response: Any) -> itertools.cycle[Any]:
    return itertools.cycle(
        [
            channel.unary_stream(
                _SERVICE + name,
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            for channel in channels
        ]
    )
