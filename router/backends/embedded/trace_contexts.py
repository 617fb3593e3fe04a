"""The traces of messages in the embedded database, in a table of their own."""

from __future__ import annotations

from collections.abc import Sequence

from router.backends.embedded.database import Database
from router.backends.embedded.queries import load
from router.backends.embedded.rows import json_list, one
from router.clock import MICROSECONDS, Clock
from router.messages import Message
from router.trace_context import TRACE_SECONDS

SQL = load("trace_contexts")


class EmbeddedTraceContexts:
    """``TraceContexts`` over SQLite."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def keep(self, messages: Sequence[Message]) -> None:
        until = self._clock.now() + TRACE_SECONDS * MICROSECONDS
        rows = [(message.recipient, message.id, message.trace, until) for message in messages]
        await self._database.write_ordered(lambda db: db.executemany(SQL["keep"], rows).rowcount)

    async def find(self, user: str, ids: Sequence[str]) -> dict[str, str]:
        return dict(self._database.read(lambda db: db.execute(SQL["find"], (user, json_list(ids))).fetchall()))

    async def take(self, user: str, ids: Sequence[str]) -> dict[str, str]:
        if not await self.find(user, ids):
            return {}
        return dict(
            await self._database.write_ordered(lambda db: db.execute(SQL["take"], (user, json_list(ids))).fetchall())
        )


async def forget(database: Database, at: int, limit: int) -> None:
    """Forget the traces whose time is over at ``at`` (µs since 1970), also where nobody asks for traces any more."""
    while database.read(lambda db: one(db, SQL["any"], (at,))):
        await database.write_ordered(lambda db: db.execute(SQL["forget"], (at, limit)).rowcount)
