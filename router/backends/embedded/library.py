"""Whether Python's SQLite library has what the embedded backend needs."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from router.errors import DataDirError

OLDEST = (3, 37)
"""The first version with STRICT tables (sqlite.org/stricttables.html)."""
ADVICE = "use a Python with a newer SQLite, such as one from python.org or a current system"


def check() -> None:
    """Raise ``DataDirError`` if this Python's SQLite cannot hold the database."""
    if (lack := missing()) is not None:
        raise DataDirError(f"{lack}; {ADVICE}")


def missing() -> str | None:
    """What this Python's SQLite lacks, in words; ``None`` if it lacks nothing."""
    if sqlite3.sqlite_version_info < OLDEST:
        return f"SQLite {'.'.join(map(str, OLDEST))} or newer is needed, but this Python has {sqlite3.sqlite_version}"
    with closing(sqlite3.connect(":memory:")) as db:
        try:
            db.execute("SELECT value FROM json_each('[1]')").fetchone()
        except sqlite3.OperationalError:
            return f"SQLite's JSON functions are needed, but this Python's SQLite {sqlite3.sqlite_version} lacks them"
    return None
