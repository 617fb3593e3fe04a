"""Walks over the documents of all users along an index by time, which is spread over shards (``names.sharded``)."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Sequence

from msgspec import Struct

from router.backends.firestore.client import Client
from router.backends.firestore.names import SHARDS, in_shard, time_of
from router.backends.firestore.wire import Document, Query
from router.clock import Clock


class Walk:
    """Limits how often an index is read that is rarely filled, since each look costs one read for each shard."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._looked_at: float | None = None

    def due(self) -> bool:
        """Whether the last look found something, or is ``seconds`` ago."""
        return self._looked_at is None or self._clock.monotonic() - self._looked_at >= self._seconds

    def saw(self, count: int) -> None:
        """Record that a look found ``count`` documents."""
        self._looked_at = None if count else self._clock.monotonic()


class Index(Struct, frozen=True):
    """An index on a field that ``names.sharded`` made; of one collection, or of all with that name (``everywhere``)."""

    parent: str
    collection: str
    field: str
    everywhere: bool = False

    def query(self, shard: int, limit: int, *, above: int | None, until: int | None, select: Sequence[str]) -> Query:
        """The query for one shard: behind the number ``above``, up to the time ``until``."""
        return Query(
            self.collection,
            self.field,
            limit,
            above=above,
            least=in_shard(shard, 0),
            most=in_shard(shard + 1, 0) - 1 if until is None else in_shard(shard, max(0, until)),
            everywhere=self.everywhere,
            select=(self.field, *select) if select else (),
        )


async def until(client: Client, index: Index, time: int, limit: int, *, select: Sequence[str] = ()) -> list[Document]:
    """Up to ``limit`` documents of all shards whose time is ``time`` or earlier; at least one if there is any."""
    share = -(-limit // SHARDS)
    queries = [index.query(shard, share, above=None, until=time, select=select) for shard in range(SHARDS)]
    found = await asyncio.gather(*(client.find(index.parent, query) for query in queries))
    return [document for documents in found for document in documents][:limit]


async def beyond(client: Client, index: Index, time: int, limit: int, *, select: Sequence[str] = ()) -> list[Document]:
    """Up to ``limit`` documents of all shards whose time is later than ``time``."""
    queries = [index.query(s, limit, above=in_shard(s, time), until=None, select=select) for s in range(SHARDS)]
    found = await asyncio.gather(*(client.find(index.parent, query) for query in queries))
    return [document for documents in found for document in documents][:limit]


async def oldest_first(client: Client, index: Index, page: int) -> AsyncGenerator[Document, None]:
    """All documents in the order of their times, with the indexed field only; reads ``page`` of them at a time."""
    streams = [_shard(client, index, shard, page) for shard in range(SHARDS)]
    heads = await asyncio.gather(*(anext(stream, None) for stream in streams))
    heap = [_head(index, shard, document) for shard, document in enumerate(heads) if document is not None]
    heapq.heapify(heap)
    while heap:
        _, shard, document = heap[0]
        yield document
        follower = await anext(streams[shard], None)
        if follower is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, _head(index, shard, follower))


def _head(index: Index, shard: int, document: Document) -> tuple[int, int, Document]:
    return time_of(document.fields[index.field].integer_value), shard, document


async def _shard(client: Client, index: Index, shard: int, page: int) -> AsyncGenerator[Document, None]:
    above: int | None = None
    while True:
        query = index.query(shard, page, above=above, until=None, select=(index.field,))
        found = await client.find(index.parent, query)
        for document in found:
            yield document
        if len(found) < page:
            return
        above = found[-1].fields[index.field].integer_value
