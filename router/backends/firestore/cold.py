"""The cold queue in Firestore: a document for each message, under its user.

``{cold.collection}/{user}/{cold.collection}-messages/{message id}``, with the fields of ``documents`` and

    by_age      shard of the user and ``queued_at`` in one number, for retention and ``oldest``
    untold_at   ``queued_at``, of an unreported message only
    expire_at   when Firestore's own TTL may delete it: later than retention, in case no sweeper runs
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from functools import partial

from router.backends.firestore.client import Client
from router.backends.firestore.documents import BARE, content_fields, message_write, queued_message
from router.backends.firestore.due_index import Index, Walk, oldest_first, until
from router.backends.firestore.names import (
    BEFORE_NORMAL,
    FIRST,
    Layout,
    document_id,
    place_number,
    possible,
    sharded,
    time_of,
)
from router.backends.firestore.wire import Document, Query, Write, deletion, integers, new_write, only_if
from router.backends.firestore.write_batches import Exists, Writer, check, worst
from router.backends.routing_rules import DAY_SECONDS, each_once
from router.checksum import is_whole
from router.clock import MICROSECONDS, Clock
from router.errors import RouterError
from router.interfaces import Place
from router.messages import ColdPage, Queued, QueueTotals
from router.pages import Head, Page

BACKSTOP_SECONDS = 7 * DAY_SECONDS
EXPIRY_SECONDS = 60.0
PLACE = ("place", "queued_at")
"""Fields to read of documents to change; with hundreds of envelopes, a call would exceed its time-out."""
CONTENT = ("checksum", "envelope", "size")
CONTENT_BYTES = 2 * 1024 * 1024
"""Bytes of envelopes that one call reads."""
OLDEST_PAGE = 50
RANKED_USERS = 100
"""Firestore cannot rank queues by their length: each of these is counted."""
OLDEST_MESSAGES = 5_000
"""``oldest`` looks at no more messages than this."""


class FirestoreColdQueue:
    """``ColdQueue`` over Firestore."""

    def __init__(self, client: Client, writer: Writer, layout: Layout, retention_days: float, clock: Clock) -> None:
        self._client = client
        self._writer = writer
        self._layout = layout
        self._messages = f"{layout.collection}-messages"
        self._retention = int(retention_days * DAY_SECONDS * MICROSECONDS)
        self._by_age = Index(layout.documents, self._messages, "by_age", everywhere=True)
        self._expiry = Walk(clock, EXPIRY_SECONDS)

    def _of(self, user: str) -> str:
        return f"{self._layout.user(user)}/{self._messages}"

    def _path(self, user: str, id_: str) -> str:
        return f"{self._of(user)}/{document_id(id_)}"

    def _path_of(self, queued: Queued) -> str:
        return self._path(queued.message.recipient, queued.message.id)

    async def put(self, messages: Sequence[Queued]) -> list[Queued]:
        results = await self._writer.write([only_if(self._written(queued), None) for queued in messages])
        there = {index for index, result in enumerate(results) if isinstance(result, Exists)}
        if there:
            corrected = await self._correct([messages[index] for index in sorted(there)])
            for index, result in zip(sorted(there), corrected, strict=True):
                results[index] = result
        error = worst(results)
        if error is not None:
            raise error
        return [queued for queued, result in zip(messages, results, strict=True) if result is not None]

    async def _correct(self, messages: Sequence[Queued]) -> list[RouterError | None]:
        """Correct the documents of ``messages``, which exist: take the lower sequence; replace a damaged envelope."""
        results: list[RouterError | None] = []
        for part in _parts(messages):
            paths = [self._path_of(queued) for queued in part]

            async def look(seconds: float, paths: Sequence[str] = paths) -> dict[str, Document]:
                return await self._client.get(paths, seconds, ("place", *CONTENT))

            found = await self._client.call(look)
            writes = [_correction(queued, found.get(path)) for queued, path in zip(part, paths, strict=True)]
            written = iter(await self._writer.write([write for write in writes if write is not None]))
            results += [None if write is None else next(written) for write in writes]
        return results

    def _written(self, queued: Queued) -> Write:
        user = queued.message.recipient
        write = message_write(self._of(user), queued)
        fields = write.update.fields
        fields["by_age"].integer_value = sharded(user, queued.queued_at)
        expire_at = queued.queued_at + self._retention + BACKSTOP_SECONDS * MICROSECONDS
        fields["expire_at"].timestamp_value.FromMicroseconds(expire_at)
        if queued.unreported:
            fields["untold_at"].integer_value = queued.queued_at
        return write

    async def read(self, user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
        async def heads(seconds: float) -> Page:
            head = Head(limit, max_bytes)
            await self._fill(head, user, FIRST, seconds)
            if head.lacks_normal:
                head.begin_normal()
                await self._fill(head, user, BEFORE_NORMAL, seconds)
            return head

        async def behind(place: Place, seconds: float) -> Page:
            page = Page(limit, max_bytes)
            await self._fill(page, user, place_number(*place), seconds)
            return page

        page = await self._client.call(heads if after is None else partial(behind, after))
        return ColdPage(page.messages, page.more)

    async def _fill(self, page: Page, user: str, last: int, seconds: float) -> None:
        async with aclosing(self._all(user, page, last, seconds)) as messages:
            async for queued in messages:
                if not page.add(queued):
                    return

    async def _all(self, user: str, page: Page, last: int, seconds: float) -> AsyncGenerator[Queued, None]:
        """All messages behind the place ``last``, in order; reads only as far as the caller does."""
        there: set[str] = set()
        """Names of documents that were found at the place ``last``. Others may have the same place, so the next query
        begins there again."""
        while True:
            above = last - 1 if there else last
            query = Query(self._messages, "place", len(there) + page.places + 1, above=above)
            found = 0
            async with aclosing(self._client.query(self._layout.user(user), query, seconds)) as documents:
                async for document in documents:
                    found += 1
                    if document.name in there:
                        continue
                    if (place := document.fields["place"].integer_value) != last:
                        last, there = place, set()
                    there.add(document.name)
                    yield queued_message(user, document, None)
            if found < query.limit:
                return

    async def find(self, user: str, ids: Sequence[str], *, envelopes: bool = False) -> list[Queued]:
        paths = [self._path(user, id_) for id_ in each_once(ids) if possible(id_)]
        select = () if envelopes else BARE
        found = await self._client.call(lambda seconds: self._client.get(paths, seconds, select))
        return [queued_message(user, document, None) for document in found.values()]

    async def repair(self, user: str, messages: Sequence[Queued]) -> None:
        paths = {self._path(user, queued.message.id): queued for queued in messages}
        found = await self._client.call(lambda seconds: self._client.get(list(paths), seconds, PLACE))
        check(await self._writer.write([_renewal(paths[path], there) for path, there in found.items()]))

    async def delete(self, user: str, ids: Sequence[str]) -> None:
        check(await self._writer.write([deletion(self._path(user, id_)) for id_ in ids if possible(id_)]))

    async def expired(self, before: int, limit: int) -> list[Queued]:
        if not self._expiry.due():
            return []
        found = await until(self._client, self._by_age, before, limit, select=BARE)
        self._expiry.saw(len(found))
        return [self._bare(document) for document in found]

    async def expire(self, expired: Sequence[Queued]) -> list[Queued]:
        results = await self._writer.write([deletion(self._path_of(queued)) for queued in expired])
        error = worst(results)
        if error is not None:
            raise error
        return [queued for queued, result in zip(expired, results, strict=True) if result is None]

    async def unreported(self, before: int, limit: int) -> list[Queued]:
        query = Query(self._messages, "untold_at", limit, most=before, everywhere=True, select=("untold_at", *BARE))
        return [self._bare(document) for document in await self._client.find(self._layout.documents, query)]

    async def update_places(self, messages: Sequence[Queued]) -> None:
        changes = {self._path_of(queued): queued for queued in messages}
        found = await self._client.call(lambda seconds: self._client.get(list(changes), seconds, PLACE))
        check(await self._writer.write([_place_update(changes[path], there) for path, there in found.items()]))

    def _bare(self, document: Document) -> Queued:
        return queued_message(self._layout.user_of(document.name), document, None)

    async def oldest(self, limit: int) -> list[tuple[str, QueueTotals]]:
        users: dict[str, None] = {}
        looked = 0
        async with aclosing(oldest_first(self._client, self._by_age, OLDEST_PAGE)) as documents:
            async for document in documents:
                looked += 1
                users[self._layout.user_of(document.name)] = None
                if len(users) == limit or looked == OLDEST_MESSAGES:
                    break
        totals = await asyncio.gather(*(self.totals(user) for user in users))
        return list(zip(users, totals, strict=True))

    async def longest(self, limit: int) -> list[tuple[str, QueueTotals]]:
        oldest = await self.oldest(max(limit, RANKED_USERS))
        return heapq.nlargest(limit, oldest, key=lambda one: one[1].messages)

    async def totals(self, user: str | None) -> QueueTotals:
        if user is None:
            parent = self._layout.documents
            count, size = await self._client.count(parent, self._messages, "size", everywhere=True)
            async with aclosing(oldest_first(self._client, self._by_age, 1)) as documents:
                oldest = await anext(documents, None)
            return QueueTotals(count, size, 0, _time(oldest))
        parent = self._layout.user(user)
        count, size = await self._client.count(parent, self._messages, "size")
        found = await self._client.find(parent, Query(self._messages, "by_age", 1, select=("by_age",)))
        return QueueTotals(count, size, int(count > 0), _time(found[0] if found else None))

    async def probe(self) -> None:
        await self._client.probe(f"{self._of('probe')}/probe")


def _parts(messages: Sequence[Queued]) -> Iterator[Sequence[Queued]]:
    """``messages`` in parts of ``CONTENT_BYTES``."""
    start = size = 0
    for index, queued in enumerate(messages):
        length = len(queued.message.envelope)
        if index > start and size + length > CONTENT_BYTES:
            yield messages[start:index]
            start, size = index, 0
        size += length
    yield messages[start:]


def _correction(queued: Queued, there: Document | None) -> Write | None:
    """The write that corrects the document ``there``, which was read whole, for ``queued``; ``None`` if it needs none.
    Its envelope stays unless it is damaged."""
    if there is None:
        return None
    place, own = there.fields["place"].integer_value, place_number(*queued.place)
    if not is_whole(queued_message(queued.message.recipient, there, None).message):
        write = _renewal(queued, there)
    elif own < place:
        write = _change_of(there)
    else:
        return None
    write.update_mask.field_paths.append("place")
    integers(write.update.fields, [("place", min(place, own))])
    return write


def _renewal(queued: Queued, there: Document) -> Write:
    """Replace the envelope of the document ``there``, and nothing else of it."""
    write = _change_of(there)
    write.update_mask.field_paths.extend(CONTENT)
    content_fields(write.update.fields, queued.message)
    return write


def _change_of(there: Document) -> Write:
    """A change of the document ``there``; the caller adds the fields."""
    write = new_write()
    write.update.name = there.name
    return only_if(write, there.update_time)


def _place_update(change: Queued, there: Document) -> Write:
    """Change place and ``untold_at`` of the document ``there``, which was read with ``PLACE``."""
    place, queued_at = (there.fields[name].integer_value for name in PLACE)
    write = _change_of(there)
    write.update_mask.field_paths.extend(("place", "untold_at"))
    integers(write.update.fields, [("place", min(place, place_number(*change.place)))])
    if change.unreported:
        integers(write.update.fields, [("untold_at", queued_at)])
    return write


def _time(oldest: Document | None) -> int:
    return 0 if oldest is None else time_of(oldest.fields["by_age"].integer_value)
