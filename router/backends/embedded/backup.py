"""Backups of the database file: made beside running services, checked, and put in the place of the file.

A backup is an SQLite database with the tables of the router and one more, ``backup``, which says when it was made, by
which version, and the SHA-256 of all its rows. It holds no key: those are apart from the database, and so from backups.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from router import __version__
from router.backends.embedded import integrity, library, schema
from router.backups import Backup, Progress
from router.data_dir import alone, claim, make_data_dir, sync_directory
from router.errors import DataDirError, InvalidInput

FORMAT = 1
MIB = 1024 * 1024
DRAFT = ".restore-"
_SEAL = "CREATE TABLE backup (format INTEGER, router TEXT, made_at INTEGER, digest BLOB) STRICT"
_COUNTED = ("ingress", "hot", "cold", "outbox", "dead_letter")
"""The tables that the last fields of ``Backup`` count."""
LOCK_SECONDS = 5.0
"""How long to wait for a process that only looks."""
_LOGS = ("-wal", "-journal")
"""What SQLite would apply to whatever stands in the place of the file."""

Advance = Callable[[int], None] | None


def make(path: Path, target: Path, at: int, progress: Progress) -> Backup:
    """Write a backup (0600) of the database ``path`` to ``target``, where it appears whole or not at all.

    ``at``: now, in µs since 1970. It has all that was committed before. Services may write meanwhile; until it is made,
    SQLite keeps what they write in its log. Raises ``DataDirError``, ``Unavailable`` and ``OSError``.
    """
    draft = target.with_name(f".{target.name}-{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        _copy(path, draft, progress)
        with _written(draft) as db:
            db.execute(_SEAL)
            row = (FORMAT, __version__, at, _digest(db, None))
            db.execute("INSERT INTO backup VALUES (?, ?, ?, ?)", row)
        _sync(draft)
        made = check(draft, progress)
        draft.rename(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)
    return made


def check(file: Path, progress: Progress) -> Backup:
    """What the backup ``file`` holds, once all of it has been read and found intact.

    Raises ``InvalidInput`` unless it is whole and this version can read it, and ``OSError``.
    """
    with _reading(file) as db:
        digest, found = _header(db, file)
        with progress("checking", "MiB", _mib(found.bytes)) as advance:
            faults = integrity.check_file(db, float("inf")).faults
            if faults or _digest(db, advance) != digest:
                raise InvalidInput(_damaged(file, faults[0] if faults else "its checksum does not match"))
        return found


def restore(file: Path, data_dir: Path, progress: Progress, *, overwrite: bool) -> Backup:
    """Put the backup ``file`` in the place of the database in ``data_dir``, in one step; a crash leaves the one or the
    other.

    Raises ``InvalidInput`` like ``check``, and ``DataDirError`` if a process uses the directory, or if it has a
    database and not ``overwrite``. Then the directory stays as it was.
    """
    library.check()
    with _reading(file) as db:
        _header(db, file)  # what is refused at once makes no directory
    make_data_dir(data_dir)
    path = data_dir / schema.FILE_NAME
    with alone(data_dir):
        if path.exists() and not overwrite:
            raise DataDirError(
                f"{data_dir} has a database, whose mail a restore would delete; back it up and use --overwrite, or "
                "name another embedded.data_dir"
            )
        for left in data_dir.glob(f"{DRAFT}*"):  # of a restore that was killed
            left.unlink()
        draft = data_dir / f"{DRAFT}{secrets.token_hex(8)}"
        try:
            _write(file, draft, progress)
            restored = check(draft, progress)
            with _written(draft) as db:
                db.execute("DROP TABLE backup")
            _sync(draft)
            _end_log(path)
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_directory(data_dir)
        claim(path)
    return restored


def _copy(path: Path, draft: Path, progress: Progress) -> None:
    """Copy the last committed state. Pages that are free, and so may hold what was deleted, are left out."""
    with closing(schema.open_to_look(path)) as db:
        try:
            schema.refuse_newer(db, path)
            (used,) = db.execute(
                "SELECT (page_count - freelist_count) * page_size "
                "FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
            ).fetchone()
            with progress("copying", "MiB", _mib(used)) as advance, _watched(db, draft, advance):
                db.execute("VACUUM INTO ?", (str(draft),))
        except sqlite3.Error as error:
            _end_if_interrupted(error)
            raise schema.translated(error, path) from error


@contextmanager
def _watched(db: sqlite3.Connection, draft: Path, advance: Advance) -> Iterator[None]:
    """Tell how ``draft`` grows."""
    told = 0

    def look() -> None:
        nonlocal told
        grown = _mib(draft.stat().st_size)
        if advance:
            advance(grown - told)
        told = grown

    db.set_progress_handler(look, integrity.STEPS)
    try:
        yield
    finally:
        db.set_progress_handler(None, 0)


def _end_if_interrupted(error: sqlite3.Error) -> None:
    """Of a Ctrl-C in a progress handler, SQLite says no more than that somebody has interrupted it."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
        raise KeyboardInterrupt from error


def _write(file: Path, draft: Path, progress: Progress) -> None:
    """Copy the bytes of ``file`` to the new file ``draft`` (0600)."""
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    size = file.stat().st_size
    with (
        file.open("rb") as source,
        os.fdopen(descriptor, "wb") as target,
        progress("copying", "MiB", _mib(size)) as advance,
    ):
        while part := source.read(MIB):
            target.write(part)
            if advance:
                advance(1)


@contextmanager
def _written(draft: Path) -> Iterator[sqlite3.Connection]:
    """A transaction on a draft, which only this process knows: a crash leaves no more of it than rubbish."""
    with closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")


def _end_log(path: Path) -> None:
    """Let the database ``path`` take in its log, so that renaming another file over it replaces all of it at once."""
    if path.exists():
        try:
            with closing(sqlite3.connect(path, isolation_level=None, timeout=LOCK_SECONDS)) as db:
                db.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            if schema.is_busy(error):
                raise DataDirError(f"another process uses {path}: stop it, and restore again") from error
            raise DataDirError(f"{path} is not an intact database ({error}): {_move_away(path)}") from error
    if left := [log for log in _LOGS if path.with_name(f"{path.name}{log}").exists()]:
        raise DataDirError(f"{path}{left[0]} belongs to a database that is not there: {_move_away(path)}")


def _move_away(path: Path) -> str:
    return f"move {path}* to another directory, and restore again"


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """The backup ``file``, which may be where nothing can be written; raises ``InvalidInput`` for errors of SQLite."""
    with file.open("rb"):  # or SQLite would only say that it cannot
        pass
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            yield db
    except sqlite3.Error as error:
        _end_if_interrupted(error)
        raise InvalidInput(_damaged(file, str(error))) from error


def _header(db: sqlite3.Connection, file: Path) -> tuple[bytes, Backup]:
    """The checksum of the backup ``file``, and what it says of itself."""
    try:
        format_, router, made_at, digest = db.execute("SELECT format, router, made_at, digest FROM backup").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except (sqlite3.OperationalError, TypeError) as error:
        raise InvalidInput(f"{file} is a database, but not a backup that `router backup` has made") from error
    if format_ > FORMAT or version > schema.VERSION:
        raise InvalidInput(
            f"{file} was made by a newer version of the router ({router}, with schema {version}; this one knows "
            f"{schema.VERSION}): install that version, and restore with it"
        )
    counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _COUNTED]  # noqa: S608 - ours
    return digest, Backup(router, version, made_at, file.stat().st_size, *counts)


def _digest(db: sqlite3.Connection, advance: Advance) -> bytes:
    """SHA-256 of the schema and of all rows, without those of ``backup``."""
    found = hashlib.sha256()
    db.text_factory = bytes  # a damaged text has a checksum too
    names = "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name <> 'backup' ORDER BY type, name"
    entries = db.execute(names).fetchall()
    found.update(msgspec.msgpack.encode([*entries, db.execute("PRAGMA user_version").fetchone()]))
    read = 0
    for kind, name, _ in entries:
        if kind != b"table":
            continue
        # NOT INDEXED: in the order of the table, and from it, whatever indexes there are.
        for row in db.execute(f'SELECT * FROM "{name.decode()}" NOT INDEXED'):  # noqa: S608 - only read
            encoded = msgspec.msgpack.encode(row)
            found.update(encoded)
            read += len(encoded)
            if advance and read > MIB:
                advance(read // MIB)
                read %= MIB
    return found.digest()


def _damaged(file: Path, how: str) -> str:
    return f"{file} is not an intact backup ({how}): restore another one"


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mib(size: int) -> int:
    return -(-size // MIB)
