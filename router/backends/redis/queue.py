"""One user's hot queue: reading it and acknowledging from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router.backends.redis.keys import is_acked, owes_nothing, pack_id, unpack_id, unpack_page, unpack_pending
from router.backends.redis.scripts import Command
from router.backends.redis.state import RedisState
from router.messages import HotPage, Lane, Queued

_LANES = tuple(frozenset(lanes) for lanes in ((), (Lane.EXPRESS,), (Lane.NORMAL,), Lane))
"""The lanes of ``HotPage.more``, by the number that a script returns: 1 for express plus 2 for normal mail."""


class RedisQueue:
    """``UserQueue`` over Redis."""

    def __init__(self, state: RedisState) -> None:
        self._state = state

    async def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
        (result,) = await self._state.client.run([self._reading(user, limit, max_bytes, again=again)])
        return _page(user, result)

    async def note_end(self, user: str, cut_at: int) -> None:
        await self._state.one("note_end", user, cut_at)

    async def note_cut(self, user: str) -> None:
        await self._state.client.run([self._state.call("note_cut", user)], self._state.list_busy([user]))

    async def acked(self, user: str, ids: Sequence[str], under_way: Sequence[str] = ()) -> set[str]:
        ids = [*ids, *under_way]
        if not ids:
            return set()
        packed = [pack_id(id_) for id_ in ids]
        (records,) = await self._state.client.run([("HMGET", self._state.keys.of(user)[2], *packed)])
        # The caller has found them in cold, so acknowledged ones have a copy there.
        unowed = [id_ for id_, record in zip(packed, records, strict=True) if owes_nothing(record)]
        if unowed:
            at = self._state.keeper.deleting_at()
            await self._state.client.run(
                [self._state.call("make_orphans", user, at, *unowed)],
                self._state.list_due({user: self._state.orphans_at}),
            )
        return {id_ for id_, record in zip(ids, records, strict=True) if is_acked(record)}

    async def ack(self, user: str, ids: Sequence[str]) -> list[str]:
        (owed,) = await self._state.client.run([self._acking(user, ids)])
        return await self._list_orphans(user, owed)

    async def ack_and_read(
        self, user: str, ids: Sequence[str], limit: int, max_bytes: int
    ) -> tuple[list[str], HotPage]:
        acking, reading = self._acking(user, ids), self._reading(user, limit, max_bytes, again=False)
        owed, result = await self._state.client.run([acking], [reading])
        return await self._list_orphans(user, owed), _page(user, result)

    async def discard(self, user: str, damaged: Sequence[Queued]) -> list[str]:
        return await self.ack(user, [queued.message.id for queued in damaged])

    async def note_cold_empty(self, user: str, version: int) -> None:
        await self._state.one("note_cold_empty", user, version)

    def _reading(self, user: str, limit: int, max_bytes: int, *, again: bool) -> Command:
        now = self._state.clock.now()
        cutoff = now - self._state.ephemeral_span
        return self._state.call("read", user, limit, max_bytes, cutoff, int(not again), now=now)

    def _acking(self, user: str, ids: Sequence[str]) -> Command:
        now, at = self._state.clock.now(), self._state.keeper.deleting_at()
        return self._state.call("ack", user, *self._state.remember_until(), at, *map(pack_id, ids), now=now)

    async def _list_orphans(self, user: str, owed: Sequence[bytes]) -> list[str]:
        """The ids that are packed in ``owed``; a sweeper looks whether cold still has copies of them."""
        if owed:
            await self._state.client.run(self._state.list_due({user: self._state.orphans_at}))
        return [unpack_id(packed) for packed in owed]


def _page(user: str, result: Any) -> HotPage:
    """What the script ``read`` returned."""
    more, cold_empty, cold_version, announced, online, cut_at, found, pending = result
    messages, under_way = unpack_page(user, found, announced), list(unpack_pending(pending))
    return HotPage(messages, _LANES[more], under_way, bool(cold_empty), cold_version, bool(online), cut_at)
