"""What the file knows of one message, of one moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from typing import Any

from router.backends.embedded.database import Database
from router.backends.embedded.presence import SQL as PRESENCE
from router.backends.embedded.queries import load
from router.backends.embedded.rows import integer, lane_of, one
from router.backends.embedded.signals import Signals
from router.backends.routing_rules import StoreRules, holds_move, offline_since
from router.clock import Clock
from router.config.roles import Role
from router.interfaces import Place
from router.lifecycle import GONE, state_of
from router.message_trace import Attention, Copy, Facts, Letter, Record, Waiting
from router.messages import Connection

SQL = load("message_traces")


class EmbeddedMessageTraces:
    """``MessageTraces`` over SQLite, in the roles that the file keeps."""

    def __init__(
        self, database: Database, signals: Signals, rules: StoreRules, clock: Clock, roles: Collection[Role]
    ) -> None:
        self._database = database
        self._signals = signals
        self._rules = rules
        self._clock = clock
        self._roles = roles

    async def recipients(self, id_: str, looked: Callable[[int], None]) -> list[str]:
        del looked
        return self._database.read(lambda db: [user for (user,) in db.execute(SQL["recipients"], {"id": id_})])

    async def facts(self, user: str, id_: str, place: Place | None) -> Facts:
        now, dead = self._clock.now(), frozenset(self._signals.dead_nodes())

        def look(db: sqlite3.Connection) -> Facts:
            db.execute("BEGIN")  # so that all statements see one moment
            try:
                return self._look(db, user, id_, place, now, dead)
            finally:
                db.execute("COMMIT")

        return self._database.read(look)

    def _look(
        self, db: sqlite3.Connection, user: str, id_: str, place: Place | None, now: int, dead: frozenset[str]
    ) -> Facts:
        found: dict[str, Any] = {}
        if Role.ONLINE in self._roles:
            found |= self._in_online_store(db, user, id_, now, dead)
            record = found["record"]
            place = (record.lane, record.sequence) if record is not None and record.state not in GONE else None
        if Role.COLD in self._roles:
            found |= _in_cold_queue(db, user, id_, place)
        if Role.INGRESS in self._roles:
            waiting = one(db, SQL["waiting"], (user, id_))
            found["waiting"] = waiting and _waiting(*waiting)
            found["letters"] = [Letter(*row) for row in db.execute(SQL["letters"], (user, id_))]
            found["router_runs"] = self._signals.heard()
        if Role.PUSH in self._roles:
            (found["command_at"],) = one(db, SQL["command"], (user, id_))
        return Facts(**found)

    def _in_online_store(
        self, db: sqlite3.Connection, user: str, id_: str, now: int, dead: frozenset[str]
    ) -> dict[str, Any]:
        head = one(db, SQL["recipient"], (user,)) or (0, 1, 0, "", 0, 0, 0)
        row = one(db, SQL["record"], (id_, user))
        found: dict[str, Any] = {"record": None, "attention": self._attention(db, user, head, now, dead)}
        if row is None:
            return found
        lane, sequence, number, keyed, until = row
        state = state_of(number)
        left_at = until - self._rules.remember_until(0, keyed=bool(keyed)) if state in GONE and until else 0
        found["record"] = Record(state, lane_of(lane), bool(keyed), integer(sequence), left_at=left_at)
        if state not in GONE:
            place = (user, lane, sequence)
            hot = one(db, SQL["hot"], (*place, id_))
            found["hot"] = hot and _copy(*hot, announced=integer(sequence) <= head[5])
            (found["hot_ahead"],) = one(db, SQL["hot_ahead"], place)
            (found["pending_ahead"],) = one(db, SQL["pending_ahead"], place)
        return found

    def _attention(self, db: sqlite3.Connection, user: str, head: Any, now: int, dead: frozenset[str]) -> Attention:
        poked_at, fetched, cut_at, move_owner, move_until, _, noted = head
        held = [Connection(*row) for row in db.execute(PRESENCE["held"], (user,))]
        unended = [connection for connection in held if connection.lease_until > now]
        moves = holds_move(move_until, now)
        return Attention(
            connections=[connection for connection in unended if connection.node not in dead],
            offline_since=0 if unended else offline_since(noted, (one.lease_until for one in held)),
            poked_at=poked_at,
            fetched=bool(fetched),
            cut_at=cut_at,
            move_owner=move_owner if moves else "",
            move_until=move_until if moves else 0,
        )


def _in_cold_queue(db: sqlite3.Connection, user: str, id_: str, place: Place | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    row = one(db, SQL["cold"], (id_, user))
    if row is not None:
        *columns, unreported = row
        found["cold"] = copy = _copy(*columns, announced=True, unreported=bool(unreported))
        place = (copy.lane, copy.sequence)
    if place is not None:
        (found["cold_ahead"],) = one(db, SQL["cold_ahead"], (user, *place))
    return found


def _waiting(accepted_at: Any, lane: Any, keyed: Any, ephemeral: Any, size: int, attempts: Any, ahead: int) -> Waiting:
    return Waiting(
        accepted_at=integer(accepted_at),
        lane=lane_of(lane),
        keyed=bool(keyed),
        ephemeral=bool(ephemeral),
        bytes=size,
        attempts=integer(attempts),
        ahead=ahead,
    )


def _copy(
    lane: Any,
    sequence: Any,
    queued_at: Any,
    accepted_at: Any,
    keyed: Any,
    ephemeral: Any,
    size: int,
    attempts: Any,
    *,
    announced: bool,
    unreported: bool = False,
) -> Copy:
    return Copy(
        lane=lane_of(lane),
        sequence=integer(sequence),
        queued_at=integer(queued_at),
        accepted_at=integer(accepted_at),
        keyed=bool(keyed),
        ephemeral=bool(ephemeral),
        bytes=size,
        attempts=integer(attempts),
        announced=announced,
        unreported=unreported,
    )
