"""The embedded presence cache: the leases of connections, in the same file as the queues."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from itertools import groupby

from router.backends.embedded.queries import load
from router.backends.embedded.rows import json_list
from router.backends.embedded.state import EmbeddedState
from router.backends.routing_rules import next_cut
from router.errors import TooManyConnections
from router.messages import Connection, QueueTotals

SQL = load("presence")
PAGE = 500


class EmbeddedPresence:
    """``PresenceCache`` over SQLite. Its writes need no fsync of their own, since power loss ends every connection."""

    def __init__(self, state: EmbeddedState) -> None:
        self._state = state

    async def connect(self, connection: Connection, limit: int, replacing: Sequence[Connection] = ()) -> bool:
        try:
            return await self._register(connection, limit, replacing)
        except TooManyConnections:
            if not await self._end_dead():
                raise
        return await self._register(connection, limit, replacing)

    async def _register(self, connection: Connection, limit: int, replacing: Sequence[Connection]) -> bool:
        now = self._state.clock.now()

        def register(db: sqlite3.Connection) -> bool:
            if replacing:
                db.executemany(SQL["replace"], [(other.user, other.id, other.lease_until) for other in replacing])
            (others,) = db.execute(SQL["others"], (connection.user, connection.id, now)).fetchone()
            if others >= limit:
                raise TooManyConnections(f"{others} connections are open, and the limit is {limit}; close one first")
            lease = self._state.rules.lease_until(now)
            db.execute(SQL["connect"], (connection.user, connection.id, connection.node, connection.since, lease))
            welcome = {"user": connection.user, "fresh_cold_empty": self._state.rules.fresh_cold_empty, "now": now}
            waiting, cut_at = db.execute(SQL["welcome"], welcome).fetchone()
            if waiting:
                db.execute(SQL["greeted"], (now, next_cut(cut_at, now), connection.user))
            return bool(waiting)

        return await self._state.database.write_ordered(register)

    async def renew(self, connections: Sequence[Connection]) -> list[Connection]:
        now = self._state.clock.now()
        lease = self._state.rules.lease_until(now)

        def extend(db: sqlite3.Connection) -> list[Connection]:
            return [
                connection
                for connection in connections
                if db.execute(SQL["renew"], (lease, connection.user, connection.id, now)).rowcount == 0
            ]

        return await self._state.database.write_ordered(extend)

    async def disconnect(self, connections: Sequence[Connection]) -> list[str]:
        now = self._state.clock.now()

        def remove(db: sqlite3.Connection) -> list[str]:
            left = {
                connection.user: now
                for connection in connections
                if db.execute(SQL["disconnect"], (connection.user, connection.id)).rowcount
            }
            return _offline(db, left, now)

        return await self._state.database.write_ordered(remove)

    async def _end_dead(self) -> bool:
        """End the leases of nodes that were killed; returns whether there were any."""
        if self._state.nodes is None or not (dead := self._state.nodes.dead_nodes()):
            return False
        await self._state.database.write_ordered(
            lambda db: db.executemany(SQL["end_node"], [(node,) for node in dead]).rowcount
        )
        for node in dead:
            self._state.nodes.forget_node(node)
        return True

    async def expire(self, limit: int) -> list[str]:
        await self._end_dead()
        now = self._state.clock.now()
        implausible = self._state.rules.implausible_lease(now)
        if self._state.database.read(lambda db: db.execute(SQL["implausible"], (implausible,)).fetchone()):
            lease = self._state.rules.lease_until(now)
            await self._state.database.write_ordered(
                lambda db: db.execute(SQL["begin_now"], (lease, implausible)).rowcount
            )
        if not self._state.database.read(lambda db: db.execute(SQL["expired"], (now, 1)).fetchone()):
            return []

        def remove(db: sqlite3.Connection) -> list[str]:
            left: dict[str, int] = {}
            for connection in _connections(db, "expired", (now, limit)):
                db.execute(SQL["disconnect"], (connection.user, connection.id))
                left[connection.user] = max(left.get(connection.user, 0), connection.lease_until)
            return _offline(db, left, now)

        return await self._state.database.write_ordered(remove)

    async def connections(self, user: str) -> list[Connection]:
        now = self._state.clock.now()
        return self._state.database.read(lambda db: _connections(db, "live", (user, now)))

    async def everyone(self) -> AsyncIterator[list[Connection]]:
        after = ""
        while page := self._page(after):
            for user, own in groupby(page, lambda connection: connection.user):
                yield list(own)
                after = user

    def _page(self, after: str) -> list[Connection]:
        wanted = {"now": self._state.clock.now(), "after": after, "limit": PAGE}
        return self._state.database.read(lambda db: _connections(db, "live_of_all", wanted))

    async def online(self) -> QueueTotals:
        now = self._state.clock.now()
        count, users = await self._state.database.survey(lambda db: db.execute(SQL["online"], (now,)).fetchone())
        return QueueTotals(messages=count, users=users)


def _connections(
    db: sqlite3.Connection, query: str, parameters: tuple[object, ...] | Mapping[str, object]
) -> list[Connection]:
    return [Connection(*row) for row in db.execute(SQL[query], parameters)]


def is_connected(db: sqlite3.Connection, user: str) -> bool:
    """Whether ``user`` has a connection, even one whose lease has run out."""
    return db.execute(SQL["connected"], (user,)).fetchone() is not None


def nodes_of(db: sqlite3.Connection, users: Collection[str], now: int) -> dict[str, list[str]]:
    """By user: the nodes that hold live connections; users without any are missing.

    Also removes connections whose leases ran out. A lease that ran out by the clock of one process has ended for all:
    the connection registers again, and is poked for mail that went to cold meanwhile.
    """
    nodes: dict[str, list[str]] = {}
    ended: set[str] = set()
    # A message has one recipient: without a list to read, this takes half of the time.
    if len(users) == 1:
        found = db.execute(SQL["nodes_of_one"], (now, *users))
    else:
        found = db.execute(SQL["nodes"], (now, json_list(users)))
    for user, node, lasts in found:
        if lasts:
            nodes.setdefault(user, []).append(node)
        else:
            ended.add(user)
    if ended:
        db.executemany(SQL["note_offline"], [(now, user) for user in ended - nodes.keys()])
        db.execute(SQL["end_leases"], (json_list(users), now))
        _leave_behind(db, ended & nodes.keys(), now)
    return nodes


def _offline(db: sqlite3.Connection, left: Mapping[str, int], now: int) -> list[str]:
    """Those of the users ``left``, who have lost a connection at these times, who have no live one left."""
    nodes = nodes_of(db, left, now)
    _leave_behind(db, nodes, now)
    gone = [user for user in left if user not in nodes]
    db.executemany(SQL["went_offline"], [(left[user], user) for user in gone])
    return gone


def _leave_behind(db: sqlite3.Connection, users: Iterable[str], now: int) -> None:
    """For users who have lost a connection and have others left: if cold may have mail, which the lost one may have
    fetched without acknowledging it, mark the page as cut short, so that a sweeper pokes the others."""
    db.executemany(SQL["left_behind"], [(now, user) for user in users])
