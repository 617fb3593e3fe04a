"""Reads hot queues: pages for clients, and what sweepers and operators look at."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from router.backends.firestore.client import Client
from router.backends.firestore.documents import queued_message
from router.backends.firestore.names import BEFORE_NORMAL, FIRST
from router.backends.firestore.recipient import Recipient
from router.backends.firestore.transactions import STEP_MESSAGES, OnlineLayout
from router.backends.firestore.wire import Document, Query
from router.messages import HotPage, HotUser, Queued, QueueTotals
from router.pages import Head, Page

NEVER = 1 << 62
"""Later than any message was accepted (µs)."""
QUIET_MICROSECONDS = 5_000_000
"""A user whose oldest hot message is younger than this has nothing due, so its exact time need not be read."""
USERS = 300


class Reader:
    """Queries on hot queues. Their results are a snapshot if the step in which they are made commits afterwards (see
    ``transactions``)."""

    def __init__(self, client: Client, layout: OnlineLayout) -> None:
        self._client = client
        self._layout = layout

    async def heads(self, user: str, limit: int, max_bytes: int, announced: int, since: int) -> Head:
        """The heads of both lanes of one hot queue, without ephemeral messages accepted at or before ``since``."""

        async def attempt(seconds: float) -> Head:
            head = Head(limit, max_bytes)
            await self._fill(head, user, announced, since, seconds)
            if head.lacks_normal:
                head.begin_normal()
                await self._fill(head, user, announced, since, seconds, BEFORE_NORMAL)
            return head

        return await self._client.call(attempt)

    async def page(self, user: str, limit: int, max_bytes: int, announced: int, *, ephemeral: bool = True) -> Page:
        """The first messages of one hot queue, with or without ephemeral ones."""

        async def attempt(seconds: float) -> Page:
            page = Page(limit, max_bytes)
            await self._fill(page, user, announced, -1 if ephemeral else NEVER, seconds)
            return page

        return await self._client.call(attempt)

    async def _fill(
        self, page: Page, user: str, announced: int, since: int, seconds: float, above: int = FIRST
    ) -> None:
        async with aclosing(self._messages(user, page, announced, seconds, above)) as messages:
            async for queued in messages:
                expired = queued.message.ephemeral and queued.message.accepted_at <= since
                if not expired and not page.add(queued):
                    return

    async def _messages(
        self, user: str, page: Page, announced: int, seconds: float, above: int
    ) -> AsyncGenerator[Queued, None]:
        """As many messages as fit into ``page``, and one more; reads only as far as the caller does."""
        while True:
            query = Query(self._layout.hot, "place", page.places + 1, above=above)
            found = 0
            async with aclosing(self._client.query(self._layout.user(user), query, seconds)) as documents:
                async for document in documents:
                    found += 1
                    above = document.fields["place"].integer_value
                    yield queued_message(user, document, announced)
            if found < query.limit:
                return

    async def ephemeral(self, user: str, until: int | None = None) -> list[Document]:
        """The ephemeral messages accepted at or before ``until``, oldest first; as many as one step may drop."""
        query = Query(self._layout.hot, "ephemeral_at", STEP_MESSAGES, most=until)
        return await self._client.find(self._layout.user(user), query)

    async def next_ephemeral(self, user: str, after: int) -> int:
        """When the first ephemeral message after ``after`` was accepted; 0 if there is none."""
        return await self._first(user, Query(self._layout.hot, "ephemeral_at", 1, above=after), "ephemeral_at")

    async def oldest(self, user: str) -> int:
        """When the oldest hot message was queued; 0 if there is none."""
        return await self._first(user, Query(self._layout.hot, "queued_at", 1), "queued_at")

    async def unannounced_at(self, user: str, announced: int) -> int:
        query = Query(self._layout.hot, "durable", 1, above=announced)
        return await self._first(user, query, "queued_at")

    async def _first(self, user: str, query: Query, field: str) -> int:
        bare = msgspec.structs.replace(query, select=(query.order, field))
        found = await self._client.find(self._layout.user(user), bare)
        return found[0].fields[field].integer_value if found else 0

    async def unannounced(self, recipient: Recipient, before: int, limit: int) -> list[Queued]:
        query = Query(self._layout.hot, "durable", limit, above=recipient.announced)
        found = await self._client.find(self._layout.user(recipient.user), query)
        messages = [queued_message(recipient.user, document, recipient.announced) for document in found]
        # ``mark_announced`` covers all messages up to a sequence, so take all in front of the last one that is due.
        while messages and messages[-1].queued_at > before:
            messages.pop()
        return messages

    async def busy(self, after: str, limit: int) -> list[Document]:
        """The states of users behind ``after`` with hot mail, an unanswered poke or a page that was cut short."""
        query = Query(self._layout.collection, "busy", limit, above=after)
        return await self._client.find(self._layout.documents, query)

    async def hot_user(self, recipient: Recipient, now: int) -> HotUser:
        oldest = unannounced = recipient.hot_since
        if recipient.hot and now - recipient.hot_since >= QUIET_MICROSECONDS:
            oldest = await self.oldest(recipient.user)
            unannounced = await self.unannounced_at(recipient.user, recipient.announced)
        return HotUser(
            user=recipient.user,
            live=len(recipient.live(now)),
            hot=recipient.hot,
            oldest_at=oldest,
            unannounced_at=unannounced,
            poked_at=recipient.poked_at,
            fetched=recipient.fetched,
            cut_at=recipient.cut_at,
        )

    async def totals_of(self, user: str) -> QueueTotals:
        count, size = await self._client.count(self._layout.user(user), self._layout.hot, "size")
        return QueueTotals(count, size, int(count > 0), await self.oldest(user))

    async def totals(self, since: dict[str, int]) -> QueueTotals:
        """Totals of all users; ``since``: ``hot_since`` of each user with hot mail."""
        count, size = await self._client.count(self._layout.documents, self._layout.hot, "size", everywhere=True)
        oldest = 0
        for user, bound in sorted(since.items(), key=lambda item: item[1]):
            if oldest and oldest <= bound:
                break
            found = await self.oldest(user)
            oldest = min(oldest or found, found or oldest)
        return QueueTotals(count, size, len(since), oldest)


def hot_page(page: Page, recipient: Recipient, cut_at: int) -> HotPage:
    """The result of a read: ``page``, and the state that was read after it, or together with it."""
    return HotPage(
        messages=page.messages,
        more=page.more,
        pending=list(recipient.pending.values()),
        cold_empty=recipient.cold_empty and not recipient.pending,
        cold_version=recipient.cold_version,
        online=bool(recipient.connections),
        cut_at=cut_at,
    )
