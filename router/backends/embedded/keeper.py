"""Maintenance of the file: empties its log, gives free pages back to the disk, watches the free space."""

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
"""How often to empty the log, which holds deleted mail until then. Readers may hold it up for two or three rounds."""
STEP_PAGES = 512
STEP_SECONDS = 0.005
"""How long one transaction gives pages back: most take microseconds, but pages that have to move take longer."""
NOTE_SECONDS = 3600.0
NOTE = "UPDATE clock SET at = ?1 WHERE at < ?1 OR ?2"
STEPS = 64
"""Such transactions in one round; 64 MiB together."""


class Keeper:
    """Works every ``LOOK_SECONDS``, in each process on a data directory; one is enough, others find nothing to do."""

    def __init__(self, database: Database, space: Space, clock: Clock, timekeeper: Timekeeper) -> None:
        self._database = database
        self._space = space
        self._clock = clock
        self._timekeeper = timekeeper
        self._folded_at = clock.monotonic()
        self._noted_at: float | None = None

    async def run(self) -> None:
        """Work until cancelled; what fails in one round is done in the next."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            with suppress(RouterError, OSError):  # the database reports a disk that fails
                await self.look()

    async def look(self) -> None:
        """Do one round."""
        short = self._space.look()
        if short or self._clock.monotonic() - self._folded_at >= FOLD_SECONDS:
            self._folded_at = self._clock.monotonic()
            await self.tidy()
            self._space.look()
        await asyncio.to_thread(self._space.keep_file)
        await self._note_time()

    async def _note_time(self) -> None:
        """Store the time, once it is sure, since the next process may start with a clock that is behind."""
        now = self._clock.monotonic()
        if self._timekeeper.deleting_at() and (self._noted_at is None or now - self._noted_at >= NOTE_SECONDS):
            note = self._timekeeper.dating_at(), self._timekeeper.is_long_sure
            await self._database.write_ordered(lambda db: db.execute(NOTE, note).rowcount)
            self._noted_at = now

    async def end(self) -> None:
        """Tidy up once more, so that mail deleted last does not stay in the file until the next start."""
        with suppress(RouterError):
            await self.tidy()

    async def tidy(self) -> None:
        """Give free pages back to the disk and empty the log: both hold deleted mail."""
        try:
            for _ in range(STEPS):
                if not await self._give_back():
                    break
        finally:
            # On a full volume the log keeps its space: something else would take it.
            await self._database.fold(empties=not self._space.full)

    async def _give_back(self) -> bool:
        """Give some pages back; returns whether there were any. A file that was made without this has none."""
        if not self._database.read(free_pages) or not self._database.read(gives_back):
            return False
        await self._database.write_ordered(self._vacuum)
        return True

    def _vacuum(self, db: sqlite3.Connection) -> None:
        end = self._clock.monotonic() + STEP_SECONDS
        for _ in range(STEP_PAGES):
            # One page at a time: Python steps a statement without columns only once.
            db.execute("PRAGMA incremental_vacuum(1)")
            if self._clock.monotonic() > end:
                return


def free_pages(db: sqlite3.Connection) -> int:
    """The number of free pages of the file."""
    return int(db.execute("PRAGMA freelist_count").fetchone()[0])


def gives_back(db: sqlite3.Connection) -> bool:
    """Whether the file can give pages back, which is set when it is created, or by ``VACUUM``."""
    return bool(db.execute("PRAGMA auto_vacuum").fetchone()[0])
