"""What Redis knows of one message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.backends.redis.keys import pack_id, unpack_connections, unpack_header
from router.backends.redis.state import RedisState
from router.backends.routing_rules import offline_since
from router.interfaces import Place
from router.lifecycle import GONE, IN_HOT, state_of
from router.message_trace import Attention, Copy, Facts, Record
from router.messages import Lane

PAGE = 5000
"""Keys that one step of a scan looks at: about a millisecond of the server."""


class RedisMessageTraces:
    """``MessageTraces`` over Redis."""

    def __init__(self, state: RedisState) -> None:
        self._state = state

    async def recipients(self, id_: str, looked: Callable[[int], None]) -> list[str]:
        """No key has the ids of all users, since it would have to be in the slot of each: so look at all users."""
        found: list[str] = []
        async for keys in self._state.client.scan(self._state.keys.ids_of_all(), PAGE):
            users = [self._state.keys.user_of(key) for key in keys]
            asked = await self._state.client.run(
                [("HEXISTS", self._state.keys.of(user)[2], pack_id(id_)) for user in users], refusals="skip"
            )
            found += [user for user, known in zip(users, asked, strict=True) if known]
            looked(len(users))
        return list(dict.fromkeys(found))  # a scan may return a key twice

    async def facts(self, user: str, id_: str, place: Place | None) -> Facts:
        del place
        now = self._state.clock.now()
        trace = self._state.call("trace", user, pack_id(id_), now=now)
        told, held = await self._state.client.run([trace, ("HGETALL", self._state.keys.of(user)[1])])
        record, header, size, ahead, pending, poked_at, fetched, cut_at, owner, until, announced, noted = told
        connections = unpack_connections(user, held)
        live = [connection for connection in connections if connection.lease_until > now]
        attention = Attention(
            connections=live,
            offline_since=0 if live else offline_since(noted, (one.lease_until for one in connections)),
            poked_at=poked_at,
            fetched=bool(fetched),
            cut_at=cut_at,
            move_owner=owner.decode(),
            move_until=until,
        )
        if not record:
            return Facts(attention=attention)
        known = self._record(*record)
        return Facts(
            record=known,
            hot=_copy(known, header, size, announced) if known.state in IN_HOT else None,
            hot_ahead=ahead,
            pending_ahead=pending,
            attention=attention,
        )

    def _record(self, number: int, lane: int, keyed: int, ephemeral: int, place: int) -> Record:
        """``place``: the sequence, or when the tombstone ends."""
        state = state_of(number)
        gone = state in GONE
        return Record(
            state=state,
            lane=Lane(lane),
            keyed=bool(keyed),
            sequence=0 if gone else place,
            ephemeral=bool(ephemeral),
            left_at=place - self._state.rules.remember_until(0, keyed=bool(keyed)) if gone else 0,
        )


def _copy(record: Record, header: Any, size: int, announced: int) -> Copy | None:
    read = unpack_header(header)
    if read is None:
        return None
    queued_at, accepted_at, attempts = read
    return Copy(
        lane=record.lane,
        sequence=record.sequence,
        queued_at=queued_at,
        accepted_at=accepted_at,
        keyed=record.keyed,
        ephemeral=bool(record.ephemeral),
        bytes=size,
        attempts=attempts,
        announced=record.sequence <= announced,
    )
