"""Who fetches for whom: the devices of one user, all poked at once, share what each of them would read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

P = TypeVar("P")
FETCHES_AT_ONCE = 2
"""Of one user. A page may have 8 MiB, and nobody has a turn while it is put together."""


class Turns(Generic[P]):
    """Runs ``FETCHES_AT_ONCE`` fetches of one user; whoever comes meanwhile shares one that begins afterwards.

    So a user's requests wait for two fetches at most, however many there are, and also where the clients of some have
    given up long ago.
    """

    def __init__(self, fetch: Callable[[str, int], Awaitable[P]]) -> None:
        """``fetch``: the page of a user with a limit."""
        self._fetch = fetch
        self._going: dict[str, int] = {}
        self._waiting: dict[str, dict[int, asyncio.Future[P]]] = {}
        """By user and limit: those who ask for the same get the same."""
        self._serving: set[asyncio.Task[None]] = set()

    async def take(self, user: str, limit: int) -> P:
        """What a fetch found that began no earlier than this call. Raises what it raised."""
        going = self._going.get(user, 0)
        if going < FETCHES_AT_ONCE:
            self._going[user] = going + 1
            try:
                return await self._fetch(user, limit)
            finally:
                self._pass_on(user)
        groups = self._waiting.setdefault(user, {})
        if limit not in groups:
            groups[limit] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(groups[limit])

    def _pass_on(self, user: str) -> None:
        """A turn of ``user`` has ended: it goes to those who wait longest."""
        groups = self._waiting.get(user)
        if groups:
            limit = next(iter(groups))
            task = asyncio.create_task(self._serve(user, limit, groups.pop(limit)))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
            return
        self._waiting.pop(user, None)
        self._going[user] -= 1
        if not self._going[user]:
            del self._going[user]

    async def _serve(self, user: str, limit: int, group: asyncio.Future[P]) -> None:
        try:
            group.set_result(await self._fetch(user, limit))
        except Exception as error:  # noqa: BLE001 - each of those who wait raises it
            group.set_exception(error)
        finally:
            group.cancel()
            self._pass_on(user)
