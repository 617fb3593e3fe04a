"""Presence in Firestore. A user's state document holds their connections, each with its lease."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import msgspec

from router.backends.firestore import recipient as recipients
from router.backends.firestore.due_index import Index, Walk, beyond, until
from router.backends.firestore.names import SHARDS, in_shard
from router.backends.firestore.state import FirestoreState
from router.backends.firestore.transactions import Work
from router.backends.firestore.wire import Query
from router.errors import TooManyConnections
from router.messages import Connection, QueueTotals

EXPIRY_SECONDS = 5.0
IMPLAUSIBLE_SECONDS = 60.0
PAGE = 500


class FirestorePresence:
    """``PresenceCache`` over Firestore."""

    def __init__(self, state: FirestoreState) -> None:
        self._state = state
        self._leases = Index(state.layout.documents, state.layout.collection, "lease_at")
        self._expiry = Walk(state.clock, EXPIRY_SECONDS)
        self._bounding = Walk(state.clock, IMPLAUSIBLE_SECONDS)

    async def connect(self, connection: Connection, limit: int, replacing: Sequence[Connection] = ()) -> bool:
        now = self._state.clock.now()
        replaced = {(other.id, other.lease_until) for other in replacing}
        leased = msgspec.structs.replace(connection, lease_until=self._state.rules.lease_until(now))

        def register(work: Work) -> bool:
            recipient = work.recipient
            others = [
                other
                for other in recipient.connections
                if other.id != connection.id and (other.id, other.lease_until) not in replaced
            ]
            live = sum(other.lease_until > now for other in others)
            if live >= limit:
                raise TooManyConnections(f"{live} connections are open, and the limit is {limit}; close one first")
            recipient.connections = [*others, leased]
            waiting = bool(recipient.hot or recipient.pending or not recipient.cold_empty)
            if waiting:  # the caller pokes this connection; earlier pokes stay unanswered until a fetch
                recipient.poked_at = now
                recipient.move_cut(now)
            else:
                recipient.stop_poking()  # the next message pokes all connections
            return waiting

        return await self._state.transactions.change(connection.user, [], register)

    async def renew(self, connections: Sequence[Connection]) -> list[Connection]:
        now = self._state.clock.now()
        lease = self._state.rules.lease_until(now)
        own = _by_user(connections)

        def extend(work: Work) -> set[str]:
            """Extend the live leases; returns the ids of these connections."""
            known = {connection.id for connection in work.recipient.live(now)} & own[work.recipient.user].keys()
            work.recipient.connections = [
                msgspec.structs.replace(connection, lease_until=lease) if connection.id in known else connection
                for connection in work.recipient.connections
            ]
            return known

        found = await self._state.transactions.change_all(own, extend)
        return [connection for connection in connections if connection.id not in found[connection.user]]

    async def disconnect(self, connections: Sequence[Connection]) -> list[str]:
        # If an answer is lost, the result may lack a user: a sweeper finds the hot mail that they leave.
        now, own = self._state.clock.now(), _by_user(connections)

        def remove(work: Work) -> bool:
            return _remove(work, set(own[work.recipient.user]), now)

        left = await self._state.transactions.change_all(own, remove)
        return [user for user, gone in left.items() if gone]

    async def _bound_leases(self, limit: int) -> None:
        """Let leases begin now that a wrong clock gave, which was set back since."""
        if not self._bounding.due():
            return
        now = self._state.clock.now()
        implausible, lease = self._state.rules.implausible_lease(now), self._state.rules.lease_until(now)
        found = await beyond(self._state.client, self._leases, implausible, limit, select=("lease_at",))

        def bound(work: Work) -> None:
            work.recipient.connections = [
                msgspec.structs.replace(one, lease_until=lease) if one.lease_until > implausible else one
                for one in work.recipient.connections
            ]

        await self._state.transactions.change_all([self._state.layout.user_of(one.name) for one in found], bound)
        self._bounding.saw(len(found))

    async def expire(self, limit: int) -> list[str]:
        await self._bound_leases(limit)
        if not self._expiry.due():
            return []
        now = self._state.clock.now()
        found = await until(self._state.client, self._leases, now, limit, select=("lease_at",))

        def remove(work: Work) -> bool:
            ended = {connection.id for connection in work.recipient.connections if connection.lease_until <= now}
            return _remove(work, ended, now)

        left = await self._state.transactions.change_all(
            [self._state.layout.user_of(one.name) for one in found], remove
        )
        self._expiry.saw(len(found))
        return [user for user, gone in left.items() if gone]

    async def connections(self, user: str) -> list[Connection]:
        state = await self._state.transactions.state(user)
        return _live(state.connections if state else [], self._state.clock.now())

    async def everyone(self) -> AsyncIterator[list[Connection]]:
        now = self._state.clock.now()
        for shard in range(SHARDS):
            async for held in self._leased(shard):
                if live := _live(held, now):
                    yield live

    async def _leased(self, shard: int) -> AsyncIterator[list[Connection]]:
        """The connections of each user of one shard, by the ends of their leases. A user who renews meanwhile is met
        again, and named once. Leases that were renewed together end together, so each page begins with the last end of
        the one before."""
        layout, named = self._state.layout, set[str]()
        least, last, limit = in_shard(shard, 0), in_shard(shard + 1, 0) - 1, PAGE
        while True:
            fields = (self._leases.field, "connections")
            query = Query(layout.collection, self._leases.field, limit, least=least, most=last, select=fields)
            found = await self._state.client.find(layout.documents, query)
            for document in found:
                user = layout.user_of(document.name)
                if user not in named:
                    named.add(user)
                    yield recipients.connections(user, document)
            if len(found) < limit:
                return
            end = found[-1].fields[self._leases.field].integer_value
            if end == least:
                limit *= 2  # all of the page end together
            least = end

    async def online(self) -> QueueTotals:
        users, connections = await self._state.client.count(
            self._state.layout.documents, self._state.layout.collection, "live", positive=True
        )
        return QueueTotals(messages=connections, users=users)


def _live(connections: Sequence[Connection], now: int) -> list[Connection]:
    live = [connection for connection in connections if connection.lease_until > now]
    return sorted(live, key=lambda connection: (connection.since, connection.id))


def _by_user(connections: Sequence[Connection]) -> dict[str, dict[str, Connection]]:
    own: defaultdict[str, dict[str, Connection]] = defaultdict(dict)
    for connection in connections:
        own[connection.user][connection.id] = connection
    return own


def _remove(work: Work, ids: set[str], now: int) -> bool:
    """Remove these connections; returns whether that left the user without a live one."""
    kept = [connection for connection in work.recipient.connections if connection.id not in ids]
    removed = len(kept) < len(work.recipient.connections)
    work.recipient.keep(kept, now)
    return removed and not work.recipient.live(now)
