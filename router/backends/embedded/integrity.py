"""Checks the database file: SQLite's own check of pages, rows and indexes, and the checksum of each message."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from router.backends.embedded.rows import message_of
from router.checksum import is_whole

MOST_FAULTS = 10
STEPS = 10_000
"""SQLite steps between two checks of the time; they take some milliseconds."""
_MESSAGES = {
    "ingress": "SELECT id, recipient, envelope, lane, ephemeral, accepted_at, keyed, checksum FROM ingress",
    "hot": "SELECT id, user, envelope, lane, ephemeral, accepted_at, keyed, checksum FROM hot",
    "cold": "SELECT id, user, envelope, lane, 0, accepted_at, keyed, checksum FROM cold",
}


class Checked(Struct, frozen=True):
    """What a check found before its time was over."""

    faults: list[str]
    """One sentence for each fault, without data; only the first ones if there are many."""
    finished: bool
    """The check has looked at everything."""


def check_file(db: sqlite3.Connection, seconds: float) -> Checked:
    """Run SQLite's check for at most ``seconds``; others may use the file meanwhile. Raises ``sqlite3.Error``."""
    faults: list[str] = []
    with _until(db, time.monotonic() + seconds) as ended:
        for (line,) in db.execute(f"PRAGMA integrity_check({MOST_FAULTS})"):
            faults += [] if line == "ok" else line.splitlines()
    return Checked(faults, not ended())


def check_messages(db: sqlite3.Connection, seconds: float) -> Checked:
    """Check the checksums of all messages, for at most ``seconds``. Raises ``sqlite3.Error``."""
    faults: list[str] = []
    with _until(db, time.monotonic() + seconds) as ended:
        for table, statement in _MESSAGES.items():
            damaged = sum(not is_whole(message_of(*row)) for row in db.execute(statement))
            faults += [f"{damaged} messages in {table} do not match their checksums"] if damaged else []
    return Checked(faults, not ended())


@contextmanager
def _until(db: sqlite3.Connection, end: float) -> Iterator[Callable[[], bool]]:
    """Interrupt a statement that runs beyond ``end``, and leave the block. Yields a function that returns whether that
    happened."""
    ended = False

    def late() -> bool:
        nonlocal ended
        ended = time.monotonic() > end
        return ended

    db.set_progress_handler(late, STEPS)
    try:
        yield lambda: ended
    except sqlite3.OperationalError:
        if not ended:
            raise
    finally:
        db.set_progress_handler(None, 0)
