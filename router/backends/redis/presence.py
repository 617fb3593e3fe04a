"""The presence cache: the leases of a user's connections, in one hash for each user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from router.backends.redis.index import Seen
from router.backends.redis.keys import live_connections, unpack_connection
from router.backends.redis.scripts import Command
from router.backends.redis.state import RedisState, by_user
from router.errors import TooManyConnections
from router.messages import Connection, QueueTotals

PAGE = 500
BEYOND_SECONDS = 60.0
GARBAGE_LEASES = 10
"""As a backstop, Redis expires a user's connections after this many leases."""
OFFLINE, POKE = 1, 2
"""Results of the scripts ``disconnect`` and ``expire``."""


class RedisPresence:
    """``PresenceCache`` over Redis."""

    def __init__(self, state: RedisState) -> None:
        self._state = state
        self._looked_at: float | None = None
        """When ``_beyond`` last came to its end (monotonic)."""
        self._looked_to = ""
        """The last user of its last part, until it comes to its end."""

    async def connect(self, connection: Connection, limit: int, replacing: Sequence[Connection] = ()) -> bool:
        now, user = self._state.clock.now(), connection.user
        lease = self._state.rules.lease_until(now)
        script = self._state.call(
            "connect",
            user,
            connection.id,
            lease,
            connection.since,
            connection.node,
            limit,
            self._garbage_after,
            *(part for replaced in replacing for part in (replaced.id, replaced.lease_until)),
            now=now,
        )
        result, _ = await self._state.client.run([script], self._state.live.listing({user: lease}))
        if result < 0:
            raise TooManyConnections(f"{-result} connections are open, and the limit is {limit}; close one first")
        if result:
            # List the user, so that a sweeper checks whether the poke is answered. Most users who connect have no mail,
            # so this second round trip is rare.
            await self._state.client.run(self._state.list_busy([user]))
        return bool(result)

    async def renew(self, connections: Sequence[Connection]) -> list[Connection]:
        now = self._state.clock.now()
        lease = self._state.rules.lease_until(now)
        users = by_user((connection.user, connection.id) for connection in connections)
        scripts = [
            self._state.call("renew", user, lease, self._garbage_after, *ids, now=now) for user, ids in users.items()
        ]
        results = await self._state.client.run(scripts, self._state.live.listing(dict.fromkeys(users, lease)))
        known: set[tuple[str, str]] = set()
        busy = []
        for (user, ids), (unanswered, *flags) in zip(users.items(), results, strict=False):
            known.update((user, id_) for id_, flag in zip(ids, flags, strict=True) if flag)
            if unanswered:
                busy.append(user)
        # List busy users again: in a cluster, the node of this index may have lost its last second of writes.
        await self._state.client.run(self._state.list_busy(busy))
        return [connection for connection in connections if (connection.user, connection.id) not in known]

    @property
    def _garbage_after(self) -> int:
        return int(GARBAGE_LEASES * self._state.rules.lease_seconds * 1000)

    async def disconnect(self, connections: Sequence[Connection]) -> list[str]:
        users = by_user((connection.user, connection.id) for connection in connections)
        now = self._state.clock.now()
        results = await self._state.client.run(
            [self._state.call("disconnect", user, *ids, now=now) for user, ids in users.items()]
        )
        await self._state.client.run(self._state.list_busy(_owed(POKE, users, results)))
        return _owed(OFFLINE, users, results)

    async def expire(self, limit: int) -> list[str]:
        now = self._state.clock.now()
        implausible = self._state.rules.implausible_lease(now)
        # Most who are due have gone by themselves, or have renewed their leases.
        while seen := await self._state.live.claim(now, limit) or await self._beyond(implausible, limit):
            if left := await self._end(seen, now, implausible):
                return left
        return []

    async def _end(self, users: Sequence[Seen], now: int, implausible: int) -> list[str]:
        """End the leases of these users that have run out; returns who has no live connection left because of it."""
        bounds = (implausible, self._state.rules.lease_until(now))
        scripts = [self._state.call("expire", user, *bounds, now=now) for user, _ in users]
        results = await self._state.client.run(scripts, refusals="skip")
        found = [(seen, *result) for seen, result in zip(users, results, strict=True) if result is not None]
        offline = {user: now for (user, _), _, last in found if not last}
        changes = [(seen, last or None) for seen, _, last in found]
        names, owed = [user for (user, _), *_ in found], [owed for _, owed, _ in found]
        lists = [*self._state.list_due(offline), *self._state.list_busy(_owed(POKE, names, owed))]
        await self._state.client.run(lists, self._state.live.relisting(changes))
        return _owed(OFFLINE, names, owed)

    async def _beyond(self, implausible: int, limit: int) -> list[Seen]:
        """Up to ``limit`` users with a lease that a wrong clock gave, which was set back since: part by part of all,
        and then again after ``BEYOND_SECONDS``."""
        if self._looked_at is not None and self._state.clock.monotonic() - self._looked_at < BEYOND_SECONDS:
            return []
        found: list[Seen] = await anext(self._state.live.pages(self._looked_to, limit, above=implausible), [])
        if len(found) == limit:
            self._looked_to = found[-1][0]
        else:
            self._looked_to, self._looked_at = "", self._state.clock.monotonic()
        return found

    async def connections(self, user: str) -> list[Connection]:
        now = self._state.clock.now()
        (found,) = await self._state.client.run([self._connections_of(user)])
        return live_connections(user, found, now)

    async def everyone(self) -> AsyncIterator[list[Connection]]:
        now = self._state.clock.now()
        async for page in self._state.live.pages("", PAGE, above=now):
            found = await self._state.client.run([self._connections_of(user) for user, _ in page])
            for (user, _), held in zip(page, found, strict=True):
                if live := live_connections(user, held, now):
                    yield live

    def _connections_of(self, user: str) -> Command:
        return ("HGETALL", self._state.keys.of(user)[1])

    async def online(self) -> QueueTotals:
        now = self._state.clock.now()
        users = connections = 0
        async for page in self._state.live.pages("", PAGE, above=now):
            for (user, _), found in zip(
                page, await self._state.client.run([self._connections_of(u) for u, _ in page]), strict=True
            ):
                leases = [unpack_connection(user, b"", value).lease_until for value in found[1::2]]
                live = sum(lease > now for lease in leases)
                users, connections = users + (live > 0), connections + live
        return QueueTotals(messages=connections, users=users)


def _owed(what: int, users: Iterable[str], owed: Iterable[int]) -> list[str]:
    return [user for user, one in zip(users, owed, strict=True) if one == what]
