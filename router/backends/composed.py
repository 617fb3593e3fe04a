"""An online store that is made of its five parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from router.interfaces import Maintenance, Migration, PresenceCache, Routing, UserQueue
from router.messages import (
    Connection,
    Delivery,
    Forgotten,
    HotPage,
    HotUser,
    Move,
    MoveRefused,
    Queued,
    QueueTotals,
    Routed,
    Settled,
)

T = TypeVar("T")
Call = Coroutine[Any, Any, T]


class ComposedOnlineStore:
    """``OnlineStore``, each method by the part that it belongs to."""

    def __init__(
        self,
        presence: PresenceCache,
        routing: Routing,
        queue: UserQueue,
        migration: Migration,
        maintenance: Maintenance,
    ) -> None:
        self.presence = presence
        self.routing = routing
        self.queue = queue
        self.migration = migration
        self.maintenance = maintenance

    # Presence

    def connect(self, connection: Connection, limit: int, replacing: Sequence[Connection] = ()) -> Call[bool]:
        return self.presence.connect(connection, limit, replacing)

    def renew(self, connections: Sequence[Connection]) -> Call[list[Connection]]:
        return self.presence.renew(connections)

    def disconnect(self, connections: Sequence[Connection]) -> Call[list[str]]:
        return self.presence.disconnect(connections)

    def expire(self, limit: int) -> Call[list[str]]:
        return self.presence.expire(limit)

    def connections(self, user: str) -> Call[list[Connection]]:
        return self.presence.connections(user)

    def everyone(self) -> AsyncIterator[list[Connection]]:
        return self.presence.everyone()

    def online(self) -> Call[QueueTotals]:
        return self.presence.online()

    # Routing

    def route(self, deliveries: Sequence[Delivery]) -> Call[list[Routed]]:
        return self.routing.route(deliveries)

    def settle(self, messages: Sequence[Queued]) -> Call[Settled]:
        return self.routing.settle(messages)

    # One user's hot queue

    def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> Call[HotPage]:
        return self.queue.read(user, limit, max_bytes, again=again)

    def note_end(self, user: str, cut_at: int) -> Call[None]:
        return self.queue.note_end(user, cut_at)

    def note_cut(self, user: str) -> Call[None]:
        return self.queue.note_cut(user)

    def acked(self, user: str, ids: Sequence[str], under_way: Sequence[str] = ()) -> Call[set[str]]:
        return self.queue.acked(user, ids, under_way)

    def ack(self, user: str, ids: Sequence[str]) -> Call[list[str]]:
        return self.queue.ack(user, ids)

    def ack_and_read(
        self, user: str, ids: Sequence[str], limit: int, max_bytes: int
    ) -> Call[tuple[list[str], HotPage]]:
        return self.queue.ack_and_read(user, ids, limit, max_bytes)

    def discard(self, user: str, damaged: Sequence[Queued]) -> Call[list[str]]:
        return self.queue.discard(user, damaged)

    def note_cold_empty(self, user: str, version: int) -> Call[None]:
        return self.queue.note_cold_empty(user, version)

    # Migration

    def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Call[Move | MoveRefused]:
        return self.migration.begin_move(user, owner, limit, max_bytes, online_too=online_too)

    def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> Call[list[str]]:
        return self.migration.end_move(user, owner, moved)

    def release_move(self, user: str, owner: str) -> Call[None]:
        return self.migration.release_move(user, owner)

    # Maintenance

    def hot_users(self, after: str, limit: int) -> Call[list[HotUser]]:
        return self.maintenance.hot_users(after, limit)

    def poke(self, users: Sequence[str]) -> Call[None]:
        return self.maintenance.poke(users)

    def stop_poking(self, users: Sequence[str]) -> Call[None]:
        return self.maintenance.stop_poking(users)

    def unannounced(self, user: str, before: int, limit: int) -> Call[list[Queued]]:
        return self.maintenance.unannounced(user, before, limit)

    def mark_announced(self, messages: Sequence[Queued]) -> Call[None]:
        return self.maintenance.mark_announced(messages)

    def forget_cold(self, expired: Sequence[Queued]) -> Call[None]:
        return self.maintenance.forget_cold(expired)

    def orphans(self, limit: int) -> Call[list[tuple[str, str]]]:
        return self.maintenance.orphans(limit)

    def forget_orphans(self, user: str, ids: Sequence[str]) -> Call[None]:
        return self.maintenance.forget_orphans(user, ids)

    def purge(self, limit: int, at: int) -> Call[int]:
        return self.maintenance.purge(limit, at)

    def inspect(self, user: str, limit: int) -> Call[list[Queued]]:
        return self.maintenance.inspect(user, limit)

    def totals(self, user: str | None) -> Call[QueueTotals]:
        return self.maintenance.totals(user)

    def forget_user(self, user: str, limit: int) -> Call[Forgotten]:
        return self.maintenance.forget_user(user, limit)

    def lead(self, owner: str) -> Call[bool]:
        return self.maintenance.lead(owner)

    def probe(self) -> Call[None]:
        return self.maintenance.probe()

    def compare_clocks(self) -> Call[float]:
        return self.maintenance.compare_clocks()
