"""Moves hot mail to cold."""

from __future__ import annotations

from collections.abc import Sequence

from router.backends.redis.keys import pack_id, unpack_id, unpack_page
from router.backends.redis.state import RedisState
from router.backends.routing_rules import MOVE_LEASE_SECONDS
from router.clock import MICROSECONDS
from router.messages import Move, MoveRefused, Queued


class RedisMigration:
    """``Migration`` over Redis."""

    def __init__(self, state: RedisState) -> None:
        self._state = state

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        now = self._state.clock.now()
        lease = now + MOVE_LEASE_SECONDS * MICROSECONDS
        bounds = (owner, lease, limit, max_bytes, int(online_too))
        result = await self._state.one("begin_move", user, *bounds, *self._state.remember_until(), now=now)
        if isinstance(result, bytes):
            return MoveRefused(result.decode())
        dropped, more, announced, found = result
        return Move(unpack_page(user, found, announced), dropped, bool(more))

    async def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> list[str]:
        del owner  # the state of each message says whether it still moves
        acked = await self._state.one("end_move", user, *(pack_id(queued.message.id) for queued in moved))
        return [unpack_id(packed) for packed in acked]

    async def release_move(self, user: str, owner: str) -> None:
        await self._state.one("release_move", user, owner)
