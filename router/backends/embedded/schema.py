"""Opening the database file: its place, its version, its settings, and what its errors mean."""

from __future__ import annotations

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
)
"""The n-th file takes a database from version n to n + 1; one that was released never changes."""
VERSION = len(_MIGRATIONS)
CHECKED_SECONDS = 1.0
CHECKED_BYTES = 256 * 1024 * 1024
"""A service that starts checks a file of up to this size, for up to this time; an old SQLite cannot be interrupted in
it."""

_WAIT_FOR_OTHERS = "PRAGMA busy_timeout = 10000"
_GIVES_BACK = "PRAGMA auto_vacuum = INCREMENTAL"
"""Free pages can be given back to the disk: a file has that from its making, or by ``VACUUM``."""
CONVERTED_BYTES = 64 * 1024 * 1024
"""A file of this size gets it at a start; for a larger one, `router doctor` says what it takes."""

_CONNECTION_SETTINGS = """
    PRAGMA busy_timeout = 0;
    PRAGMA cache_size = -32768;
    PRAGMA temp_store = MEMORY;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA secure_delete = FAST;
"""
# What is deleted is overwritten where that costs no write of its own. ON would write each page that becomes free once
# more, as zeroes: as much room in the log as is deleted, just when a full volume is to be emptied. ``Keeper`` gives the
# pages back.


# sqlite3 looks for an adapter of each value that is not a plain int, float, str or bytearray, in several places;
# finding one costs half of finding none.
for _kind in (bool, Lane, State):
    sqlite3.register_adapter(_kind, int)
sqlite3.register_adapter(bytes, bytes)


@dataclass(frozen=True, slots=True)
class Connections:
    """The connections of one process to the file."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    """Sees the last committed state, also while a group is being written."""
    folder: sqlite3.Connection
    """Checkpoints the log beside the writer."""

    def close(self) -> None:
        for connection in (self.folder, self.reader, self.writer):
            connection.close()


def connect(path: Path) -> Connections:
    """All connections to the file ``path``, which has the current version; raises ``DataDirError``."""
    return Connections(open_writer(path), open_reader(path), open_reader(path))


def check_made(data_dir: Path) -> None:
    """Raise ``DataDirError`` unless a router has made its database in ``data_dir``: whoever only looks makes none."""
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
    """Make ``data_dir`` (0700) and the database in it (0600) where missing; returns the file's path.

    Raises ``DataDirError`` where that cannot be, or where a newer version of the router wrote the file. A directory
    that cannot hold a database is left as it was.
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
    """A file of an earlier version keeps its free pages: make it anew, where that is soon done and nobody uses it."""
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
    """Whoever opens the file first after a crash is the only one who can see this: closing it folds the log."""
    try:
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(_WAIT_FOR_OTHERS)  # of several processes on the file, each writes now and then
        lost = wal.lost_commits(connection, path, page_size)
        connection.execute("PRAGMA busy_timeout = 0")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    if lost:
        told = "the log of the database ends in commits that are not whole: never promised, or damaged and lost"
        LOG.warning(told, file=f"{path}-wal", commits=lost)


def try_out(data_dir: Path) -> None:
    """Make ``data_dir`` where it is missing, and where it has no database, see whether one can work there.

    Raises ``DataDirError``, and has made nothing then.
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
    """Remove ``directory`` and those it is in, up to ``last``, as far as they are empty."""
    with suppress(OSError):  # not empty: somebody else has put something there
        directory.rmdir()
        if directory != last:
            _remove_empty(directory.parent, last)


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection that writes, on a file of the current version."""
    try:
        connection = _connect(path)
    except sqlite3.Error as error:
        raise translated(error, path) from error
    try:
        connection.execute(_WAIT_FOR_OTHERS)
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
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
    """Have changes go to a log beside the file. SQLite keeps the log's index in shared memory, which some file systems
    of networks and of virtual machines do not have (sqlite.org/wal.html)."""
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise DataDirError(
            f"the file system of {path.parent} has no shared memory, which the database needs; name a directory on a "
            "local disk with embedded.data_dir"
        )


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads; it waits out the rare moments in which a reader can be locked out."""
    try:
        connection = _connect(path)
        connection.executescript(f"{_CONNECTION_SETTINGS}{_WAIT_FOR_OTHERS};PRAGMA query_only = ON;")
    except sqlite3.Error as error:
        raise translated(error, path) from error
    return connection


def open_to_look(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing of the file, not even its log; raises ``sqlite3.Error``."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2)
    connection.text_factory = _text
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    # A connection is used by one thread at a time, but not always by the one that opened it.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    set_up(connection)
    return connection


def set_up(connection: sqlite3.Connection) -> None:
    """Have ``connection`` read damaged texts, and know the function that the statements use."""
    connection.text_factory = _text
    connection.create_function("is_whole", 4, _is_whole, deterministic=True)


def _is_whole(id_: str, user: str, envelope: object, stored: object) -> bool:
    """``is_whole`` for the columns of a row, of which the first two are known to be right."""
    return isinstance(envelope, bytes) and (stored is None or stored == checksum(id_, user, envelope))


def _text(stored: bytes) -> str:
    """A damaged text is read as well as it can be: it must not stand in the way of the rows behind it."""
    return stored.decode("utf-8", "replace")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    found = _version(connection)
    if found > VERSION:
        connection.execute("ROLLBACK")
        raise DataDirError(
            f"{path} was written by a newer version of the router (schema {found}, this one knows {VERSION}); "
            "run that version, or name another embedded.data_dir"
        )
    for statement in _steps(found):
        connection.execute(statement)
    connection.execute("COMMIT")


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
    """Raise ``DataDirError`` where SQLite finds the file ``path`` damaged, within a second: mail may be missing from a
    damaged index without a word. Services ask before they serve from it."""
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


def is_busy(error: sqlite3.Error) -> bool:
    """Another process holds the lock."""
    return (_primary(error)) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def may_lack_room(error: sqlite3.Error) -> bool:
    """Whether a full disk can be behind ``error``: the index of the log fails in another way than a file."""
    return _primary(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def translated(error: sqlite3.Error, path: Path, unusable: type[DataDirError] = DataDirError) -> RouterError:
    """The router's own error for one of SQLite's, with the original as its cause; ``unusable``: for what does not pass
    by itself."""
    primary = _primary(error)
    result: RouterError
    if primary == sqlite3.SQLITE_FULL:
        result = StorageFull(f"the disk of {path.parent} is full: free some space; what was accepted is safe")
    elif primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        result = unusable(f"cannot write {path}: make it writable, or name another embedded.data_dir")
    elif primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        result = unusable(
            f"{path} is not an intact database ({error}): `router doctor` says more; repair it or restore it "
            "(docs/operations.md#a-damaged-file), or name another embedded.data_dir"
        )
    elif primary == sqlite3.SQLITE_IOERR:
        result = Unavailable(f"the disk of {path} fails ({error}): check the system's log")
    else:
        result = Unavailable(f"the database {path} failed: {error}")
    result.__cause__ = error
    return result


def _primary(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF
