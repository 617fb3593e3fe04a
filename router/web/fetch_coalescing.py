"""Fetch coalescing: the devices of one user, all poked at once, share what each of them would read."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeAlias, TypeVar

P = TypeVar("P")
Fetch: TypeAlias = Callable[[str, int], Awaitable[P]]
FETCHES_AT_ONCE = 2
"""Of one user. A page may have 8 MiB, and no other task runs while it is built."""


class SharedFetch(Generic[P]):
    """One page of a user, from its fetch until all callers that share it have left. State: the number of these
    callers."""

    __slots__ = ("_over", "_sharing", "page", "ready")

    def __init__(self, over: Callable[[], None]) -> None:
        self.page: P
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over = over
        self._sharing = 1

    def share(self) -> None:
        self._sharing += 1

    def leave(self) -> None:
        """A caller that joined this fetch no longer needs its page."""
        self._sharing -= 1
        if not self._sharing:
            self._over()


class FetchCoalescer(Generic[P]):
    """Runs ``FETCHES_AT_ONCE`` fetches of each user at once; later callers share one that begins afterwards.

    So each request of a user waits for two fetches at most, however many requests there are, even if some clients have
    given up long ago. A fetch ends when its page is sent, which bounds the pages of one user in memory.
    """

    def __init__(self, fetch: Fetch[P]) -> None:
        """``fetch`` reads a page, given the user and the limit."""
        self._fetch = fetch
        self._going: dict[str, int] = {}
        self._waiting: dict[str, dict[int, SharedFetch[P]]] = {}
        """By user and limit: callers with the same limit share a page."""
        self._serving: set[asyncio.Task[None]] = set()

    def begins_at_once(self, user: str) -> bool:
        """Whether a fetch of ``user`` would begin at once, and be shared with nobody."""
        return self._going.get(user, 0) < FETCHES_AT_ONCE

    async def join(self, user: str, limit: int, fetch_alone: Fetch[P] | None = None) -> SharedFetch[P]:
        """The result of a fetch that began no earlier than this call; a caller that joins it also leaves it. Raises
        what the fetch raised. ``fetch_alone``: what fetches instead; given only where it ``begins_at_once``."""
        if self.begins_at_once(user):
            self._going[user] = self._going.get(user, 0) + 1
            # Not ``SharedFetch[P](…)``, which takes 2 µs more.
            fetch: SharedFetch[P] = SharedFetch(partial(self._begin_next, user))
            try:
                fetch.page = await (fetch_alone or self._fetch)(user, limit)
            except BaseException:
                fetch.leave()
                raise
            return fetch
        assert fetch_alone is None, "who waits shares a fetch of everybody's"
        groups = self._waiting.setdefault(user, {})
        if limit not in groups:
            groups[limit] = SharedFetch(partial(self._begin_next, user))
        fetch = groups[limit]
        fetch.share()
        try:
            await asyncio.shield(fetch.ready)
        except BaseException:
            fetch.leave()
            raise
        return fetch

    def _begin_next(self, user: str) -> None:
        """A fetch of ``user`` is over: begin the next one, for the callers that have waited longest."""
        groups = self._waiting.get(user)
        if groups:
            limit = next(iter(groups))
            # It belongs to none of the requests that share it, so nothing in it is logged or traced as if it did.
            serving = self._serve(user, limit, groups.pop(limit))
            task = asyncio.create_task(serving, context=contextvars.Context())
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            return
        self._waiting.pop(user, None)
        self._going[user] -= 1
        if not self._going[user]:
            del self._going[user]

    async def _serve(self, user: str, limit: int, fetch: SharedFetch[P]) -> None:
        try:
            fetch.page = await self._fetch(user, limit)
            fetch.ready.set_result(None)
        except Exception as error:  # noqa: BLE001 - each of those who wait raises it
            fetch.ready.set_exception(error)
        finally:
            fetch.ready.cancel()
            fetch.leave()
