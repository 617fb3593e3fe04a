"""What the file needs beside the work: its log emptied, its free pages given back, its room watched."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress

from router.backends.embedded.database import Database
from router.backends.embedded.space import Space
from router.clock import Clock
from router.errors import RouterError
from router.timekeeping import Timekeeper

LOOK_SECONDS = 2.0
FOLD_SECONDS = 20.0
"""How often the log is emptied: what was deleted from the file stands in it until then. Readers may hold it up, so that
it takes two rounds or three."""
STEP_PAGES = 256
STEP_SECONDS = 0.005
"""So much is given back in one transaction at most; most pages take microseconds, those that are moved longer."""
NOTE_SECONDS = 3600.0
NOTE = "UPDATE clock SET at = ?1 WHERE at < ?1 OR ?2"
STEPS = 64
"""In one round; 64 MiB in all."""


class Keeper:
    """Looks every ``LOOK_SECONDS``, in each process on a data directory: a second one finds nothing left to do."""

    def __init__(self, database: Database, space: Space, clock: Clock, timekeeper: Timekeeper) -> None:
        self._database = database
        self._space = space
        self._clock = clock
        self._timekeeper = timekeeper
        self._folded_at = clock.monotonic()
        self._noted_at: float | None = None

    async def run(self) -> None:
        """Until cancelled; what fails is done in the next round."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            with suppress(RouterError, OSError):  # a disk that fails is told of where it is written to
                await self.look()

    async def look(self) -> None:
        """One round."""
        short = self._space.look()
        if short or self._clock.monotonic() - self._folded_at >= FOLD_SECONDS:
            self._folded_at = self._clock.monotonic()
            await self.tidy()
            self._space.look()
        await asyncio.to_thread(self._space.keep_file)
        await self._note_time()

    async def _note_time(self) -> None:
        """Keep the time, once it is sure: the next process may start with a clock that is behind."""
        now = self._clock.monotonic()
        if self._timekeeper.deleting_at() and (self._noted_at is None or now - self._noted_at >= NOTE_SECONDS):
            note = self._timekeeper.dating_at(), self._timekeeper.is_long_sure
            await self._database.write_ordered(lambda db: db.execute(NOTE, note).rowcount)
            self._noted_at = now

    async def end(self) -> None:
        """What was deleted last does not wait in the file for the next start."""
        with suppress(RouterError):
            await self.tidy()

    async def tidy(self) -> None:
        """Give free pages back, which hold what was deleted, and empty the log, which does too."""
        try:
            for _ in range(STEPS):
                if not await self._give_back():
                    break
        finally:
            # The log of a full volume keeps its room, which somebody else would take.
            await self._database.fold(empties=not self._space.full)

    async def _give_back(self) -> bool:
        """A step of that; whether it did anything. Where the file was made without it, there is nothing to do."""
        if not self._database.read(free_pages) or not self._database.read(gives_back):
            return False
        await self._database.write_ordered(self._vacuum)
        return True

    def _vacuum(self, db: sqlite3.Connection) -> None:
        end = self._clock.monotonic() + STEP_SECONDS
        for _ in range(STEP_PAGES):
            # One after another: Python takes a single step of a statement that has no columns.
            db.execute("PRAGMA incremental_vacuum(1)")
            if self._clock.monotonic() > end:
                return


def free_pages(db: sqlite3.Connection) -> int:
    """How many pages of the file are free."""
    return int(db.execute("PRAGMA freelist_count").fetchone()[0])


def gives_back(db: sqlite3.Connection) -> bool:
    """Whether the file can shrink: a database has that from its making, or by ``VACUUM``."""
    return bool(db.execute("PRAGMA auto_vacuum").fetchone()[0])
