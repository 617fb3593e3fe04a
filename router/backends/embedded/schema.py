"""Opens the database file: creates it, brings it to the current version, and translates SQLite's errors."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from router import logs
from router.backends.embedded import integrity, library, wal
from router.checksum import checksum
from router.data_dir import claim, first_missing, make_data_dir, unusable
from router.errors import DataDirError, RouterError, StorageFull, Unavailable
from router.lifecycle import State
from router.messages import Lane

LOG = logs.logger(__name__)
FILE_NAME = "router.db"
_MIGRATIONS: Sequence[str] = (
    "0001_schema.sql",
    "0002_untold.sql",
    "0003_cold_id.sql",
    "0004_checksum.sql",
    "0005_cut.sql",
    "0006_outbox.sql",
    "0007_ids.sql",
    "0008_bytes.sql",
    "0009_inbound.sql",
    "0010_clock.sql",
    "0011_letters.sql",
    "0012_direct.sql",
    "0013_traces.sql",
    "0014_offline.sql",
    "0015_books.sql",
)
"""The file with index n takes a database from version n to n + 1. A released file never changes."""
VERSION = len(_MIGRATIONS)
CHECKED_SECONDS = 1.0
CHECKED_BYTES = 256 * 1024 * 1024
"""When a service starts, it checks a file of up to this size for up to this time. The size matters since an old SQLite
cannot be interrupted in its check."""

_WAIT_FOR_OTHERS = "PRAGMA busy_timeout = 10000"
_GIVES_BACK = "PRAGMA auto_vacuum = INCREMENTAL"
"""Lets the file give free pages back to the disk; takes effect when the file is created, or by ``VACUUM``."""
_PAGE_SIZE = "PRAGMA page_size = 2048"
"""Of a new file; one that is there keeps its own. The log takes whole pages, and a message changes some twelve, most of
them by a few bytes: one message at a time, 33 KB were written for 1 KiB instead of 58. With 1024 it would be 27 KB, but
such an envelope no longer fits into a page, and a message takes half as many writes again."""
CONVERTED_BYTES = 64 * 1024 * 1024
"""A service that starts converts a file of up to this size; for a larger one, `router doctor` says what to do."""

_CONNECTION_SETTINGS = """
    PRAGMA busy_timeout = 0;
    PRAGMA cache_size = -32768;
    PRAGMA temp_store = MEMORY;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA secure_delete = FAST;
"""
# FAST overwrites deleted content where that costs no extra write. ON would also write each page that becomes free once
# more, as zeroes: that takes as much space in the log as is deleted, just when a full volume has to be emptied.
# ``Keeper`` gives these pages back instead.


# sqlite3 searches in several places for an adapter of each value that is not a plain int, float, str or bytearray. The
# search takes half the time if there is one.
for _kind in (bool, Lane, State):
    sqlite3.register_adapter(_kind, int)
sqlite3.register_adapter(bytes, bytes)


@dataclass(frozen=True, slots=True)
class Connections:
    """The connections of one process to the file."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    """Sees the last committed state, even while a group is being written."""
    folder: sqlite3.Connection
    """Makes checkpoints while the writer writes."""
    log: wal.Log

    def close(self) -> None:
        self.log.close()
        for connection in (self.folder, self.reader, self.writer):
            connection.close()


def connect(path: Path) -> Connections:
    """Open all connections to the file ``path``, which has the current version; raises ``DataDirError``."""
    writer = open_writer(path)
    # Its commits do not sync the log: ``Database`` does, for many at once.
    writer.execute("PRAGMA synchronous = NORMAL")
    return Connections(writer, open_reader(path), open_reader(path), wal.Log(path))


def check_made(data_dir: Path) -> None:
    """Raise ``DataDirError`` unless ``data_dir`` has a database; for commands that only look and must not make one."""
    try:
        (data_dir / FILE_NAME).stat()
    except FileNotFoundError as error:
        raise DataDirError(
            f"there is no {FILE_NAME} in {data_dir}, so no router has run there: "
            "set embedded.data_dir to the data directory of your router, or run this as its user"
        ) from error
    except OSError as error:
        raise unusable(data_dir, error) from error


def prepare(data_dir: Path) -> Path:
    """Make ``data_dir`` (0700) and the database in it (0600) if they are missing; returns the file's path.

    Raises ``DataDirError`` if that is impossible, or if a newer version of the router wrote the file. A directory that
    cannot hold a database stays as it was.
    """
    library.check()
    path = data_dir / FILE_NAME
    try_out(data_dir)
    try:
        claim(data_dir)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        claim(path)
    except OSError as error:
        raise unusable(data_dir, error) from error
    with closing(open_writer(path)) as connection:
        _tell_lost_commits(connection, path)
        _have_give_back(connection, path)
    return path


def _have_give_back(connection: sqlite3.Connection, path: Path) -> None:
    """Convert a file of an earlier version, which keeps its free pages, if it is small and no other process uses it."""
    try:
        size = path.stat().st_size
        if connection.execute("PRAGMA auto_vacuum").fetchone() != (0,) or size > CONVERTED_BYTES:
            return
        if shutil.disk_usage(path.parent).free > 3 * size:
            connection.execute(_GIVES_BACK)
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        if not is_busy(error):
            raise translated(error, path) from error


def _tell_lost_commits(connection: sqlite3.Connection, path: Path) -> None:
    """Report commits that SQLite passes over in a damaged log. Only the first process that opens the file after a crash
    can see them, since closing the file empties the log."""
    try:
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(_WAIT_FOR_OTHERS)  # other processes on the file may be writing
        lost = wal.lost_commits(connection, path, page_size)
        connection.execute("PRAGMA busy_timeout = 0")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    if lost:
        told = "the log of the database ends in commits that are not whole: never promised, or damaged and lost"
        LOG.warning(told, file=f"{path}-wal", commits=lost)


def try_out(data_dir: Path) -> None:
    """Make ``data_dir`` if it is missing. If it has no database, check that one can work there.

    Raises ``DataDirError``, and then leaves nothing behind.
    """
    try:
        if (data_dir / FILE_NAME).exists():
            return
        made = first_missing(data_dir)
    except OSError as error:
        raise unusable(data_dir, error) from error
    make_data_dir(data_dir)
    try:
        try_database(data_dir)
    except BaseException:
        if made is not None:
            _remove_empty(data_dir, made)
        raise


def try_nearest(data_dir: Path) -> None:
    """Like ``try_database``, in the nearest directory that exists, and only where this user may write to it."""
    nearest = next(part for part in (data_dir.absolute(), *data_dir.absolute().parents) if part.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        try_database(nearest)


def try_database(data_dir: Path) -> None:
    """Raise ``DataDirError`` unless a database can work in the directory ``data_dir``; leaves nothing behind."""
    try:
        with (
            tempfile.TemporaryDirectory(dir=data_dir, prefix=".try-") as trial,
            closing(_connect(Path(trial) / FILE_NAME)) as connection,
        ):
            _begin_log(connection, data_dir / FILE_NAME)
    except OSError as error:
        raise unusable(data_dir, error) from error
    except sqlite3.Error as error:
        raise translated(error, data_dir / FILE_NAME) from error


def _remove_empty(directory: Path, last: Path) -> None:
    """Remove ``directory`` and its parents up to ``last``, as far as they are empty."""
    with suppress(OSError):  # not empty: somebody else has put something there
        directory.rmdir()
        if directory != last:
            _remove_empty(directory.parent, last)


def open_writer(path: Path) -> sqlite3.Connection:
    """Open a connection that writes to a file of the current version."""
    try:
        connection = _connect(path)
    except sqlite3.Error as error:
        raise translated(error, path) from error
    try:
        connection.execute(_WAIT_FOR_OTHERS)
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute(_PAGE_SIZE)
            connection.execute(_GIVES_BACK)
        _begin_log(connection, path)
        _migrate(connection, path)
        connection.executescript(_CONNECTION_SETTINGS)
    except sqlite3.Error as error:
        connection.close()
        raise translated(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _begin_log(connection: sqlite3.Connection, path: Path) -> None:
    """Switch to a log beside the file. SQLite keeps the log's index in shared memory, which some file systems of
    networks and of virtual machines lack (sqlite.org/wal.html)."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise DataDirError(
            f"the file system of {path.parent} has no shared memory, which the database needs; name a directory on a "
            "local disk with embedded.data_dir"
        )


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that only reads; it waits in the rare moments in which SQLite locks a reader out."""
    try:
        connection = _connect(path)
        connection.executescript(f"{_CONNECTION_SETTINGS}{_WAIT_FOR_OTHERS};PRAGMA query_only = ON;")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    return connection


def open_to_look(path: Path) -> sqlite3.Connection:
    """Open a connection that changes nothing in the file, not even its log; raises ``sqlite3.Error``."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2)
    connection.text_factory = _text
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    # One thread at a time uses a connection, but not always the one that opened it.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    set_up(connection)
    return connection


def set_up(connection: sqlite3.Connection) -> None:
    """Let ``connection`` read damaged texts, and give it the function ``is_whole`` that the statements use."""
    connection.text_factory = _text
    connection.create_function("is_whole", 4, _is_whole, deterministic=True)


def _is_whole(id_: str, user: str, envelope: object, stored: object) -> bool:
    """``is_whole`` for the columns of a row; ``id_`` and ``user`` are known to be right."""
    return isinstance(envelope, bytes) and (stored is None or stored == checksum(id_, user, envelope))


def _text(stored: bytes) -> str:
    """``stored`` as text; a damaged one is read as far as possible, so that the rows behind it can be read."""
    return stored.decode("utf-8", "replace")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        refuse_newer(connection, path)
    except DataDirError:
        connection.execute("ROLLBACK")
        raise
    for statement in _steps(_version(connection)):
        connection.execute(statement)
    connection.execute("COMMIT")


def refuse_newer(connection: sqlite3.Connection, path: Path) -> None:
    """Raise ``DataDirError`` if a newer version of the router wrote the file ``path``."""
    found = _version(connection)
    if found > VERSION:
        raise DataDirError(
            f"{path} was written by a newer version of the router (schema {found}, this one knows {VERSION}); "
            "run that version, or name another embedded.data_dir"
        )


def create(connection: sqlite3.Connection) -> None:
    """Make the current version's tables in an empty database."""
    for statement in _steps(0):
        connection.execute(statement)


def _steps(found: int) -> list[str]:
    """The statements that lead from version ``found`` to the current one."""
    scripts = [files(__package__).joinpath("sql", name).read_text("utf-8") for name in _MIGRATIONS[found:]]
    steps = [statement for script in scripts for statement in _statements(script)]
    return [*steps, f"PRAGMA user_version = {VERSION}"]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    # executescript would commit the transaction that makes a migration all or nothing.
    found, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found


def refuse_damaged(path: Path) -> None:
    """Raise ``DataDirError`` if SQLite finds, within a second, that the file ``path`` is damaged. Services call it
    before they serve from the file, since mail may be missing from a damaged index without an error."""
    if path.stat().st_size > CHECKED_BYTES:
        return
    try:
        with closing(open_to_look(path)) as connection:
            checked = integrity.check_file(connection, CHECKED_SECONDS)
    except sqlite3.Error as error:
        raise translated(error, path) from error
    if checked.faults:
        raise DataDirError(
            f"{path} is damaged ({'; '.join(checked.faults[:3])}): `router doctor` says more; repair it or restore it "
            "(docs/operations.md#a-damaged-file), or name another embedded.data_dir"
        )


_FULL = "the disk of {} is full: free some space; what was accepted is safe"
_FAILS = "the disk of {} fails ({}): check the system's log"


def is_busy(error: sqlite3.Error) -> bool:
    """Another process holds the lock."""
    return (_primary(error)) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def may_lack_room(error: sqlite3.Error) -> bool:
    """Whether a full disk may have caused ``error``; the index of the log reports it in another way than a file."""
    return _primary(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def translated(error: sqlite3.Error, path: Path, unusable: type[DataDirError] = DataDirError) -> RouterError:
    """The router's own error for an error of SQLite, with that as its cause; ``unusable``: the class for faults that do
    not pass by themselves."""
    primary = _primary(error)
    result: RouterError
    if primary == sqlite3.SQLITE_FULL:
        result = StorageFull(_FULL.format(path.parent))
    elif primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        result = unusable(f"cannot write {path}: make it writable, or name another embedded.data_dir")
    elif primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        result = unusable(
            f"{path} is not an intact database ({error}): `router doctor` says more; repair it or restore it "
            "(docs/operations.md#a-damaged-file), or name another embedded.data_dir"
        )
    elif primary == sqlite3.SQLITE_IOERR:
        result = Unavailable(_FAILS.format(path, error))
    else:
        result = Unavailable(f"the database {path} failed: {error}")
    result.__cause__ = error
    return result


def unsynced(error: OSError, path: Path) -> RouterError:
    """The router's own error where the log of ``path`` could not be synced."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(_FULL.format(path.parent))
    return Unavailable(_FAILS.format(path, error.strerror))


def _primary(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF
