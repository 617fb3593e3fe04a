"""The data directory: rights, room, the disk's promises, the database's version, and who else uses it."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from router.backends.embedded import integrity, library, space
from router.backends.embedded.keeper import free_pages, gives_back
from router.backends.embedded.schema import FILE_NAME, VERSION, open_to_look, try_database, try_nearest
from router.data_dir import IDEMPOTENCY_KEY, KEYS, SIGNING_KEY, chown, foreign, key_file, no_directory
from router.errors import RouterError
from router.findings import Finding, Severity, error, fine, note, warning

ROOM_WARNING = 1024**3
ROOM_ERROR = 100 * 1024**2
CHECK_SECONDS = 5.0
"""For each of the two checks of the database."""
RECOVER = "sqlite3 router.db .dump | sqlite3 repaired.db (docs/operations.md#a-damaged-file)"
INODES_WARNING = 1000
SLOW_SYNC_SECONDS = 0.1
SYNCS = 3
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs")
NO_STORE = "The first start creates it; until then it cannot be checked."
LOCKS = {"serve.lock": "`router serve`", "consumer.lock": "the pipeline"}


def data_dir(path: Path, reserve_bytes: int) -> Iterator[Finding]:
    """All that is to be said of the data directory ``path``. Makes nothing that stays."""
    try:
        found = path.stat()
    except OSError as problem:
        yield _not_there(path, problem)
        return
    yield _rights(path, found)
    yield from _owners(path)
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return
    yield _room(path, reserve_bytes)
    yield _file_system(path)
    yield _syncs(path)
    yield _works(path)
    if (path / FILE_NAME).exists():
        yield _database(path / FILE_NAME)
        yield from _free_pages(path / FILE_NAME)
        yield from _integrity(path / FILE_NAME)
    else:
        yield note("embedded.database", "it does not exist yet", NO_STORE, "router setup")
    yield _users(path)


def _owners(path: Path) -> Iterator[Finding]:
    keys = (key_file(path, name) for name in (SIGNING_KEY, IDEMPOTENCY_KEY))
    for file in (path, path / FILE_NAME, path / KEYS, *keys):
        if os.path.exists(file) and (said := foreign(file)) is not None:  # noqa: PTH110 - also what cannot be looked at
            why = "No service starts, since the owner could read and replace all mail and keys."
            yield error("embedded.owner", said, why, chown(path))


def sqlite_library() -> Finding:
    """Whether this Python's SQLite is new enough."""
    check, lack = "embedded.sqlite", library.missing()
    if lack is not None:
        return error(check, lack, "No service with the embedded backend starts without it.", library.ADVICE)
    return fine(check, f"version {sqlite3.sqlite_version}")


def _works(path: Path, trial: Callable[[Path], None] = try_database) -> Finding:
    """Whether the file system has what a database needs: a trial tells, whatever its kind is called."""
    check = "embedded.shared_memory"
    try:
        trial(path)
    except RouterError as problem:
        return error(
            check,
            str(problem),
            "The database keeps the index of its log in shared memory.",
            "name another embedded.data_dir",
        )
    return fine(check, "a database works here")


def _not_there(path: Path, problem: OSError) -> Finding:
    check, why, another = "embedded.data_dir", "All mail is stored there.", "name another embedded.data_dir"
    in_the_way = no_directory(path)
    if in_the_way is not None:
        found = f"{path} cannot be a directory: {in_the_way} is not one"
        return error(check, found, why, f"move {in_the_way} away, or {another}")
    if not isinstance(problem, FileNotFoundError):
        found = f"{path} cannot be read: {problem.strerror}"
        return error(check, found, why, f"run this as the user that runs the router, or {another}")
    try:
        _try_to_make(path)
    except OSError as refusal:
        found = f"{path} does not exist, and this user cannot create it: {refusal.strerror}"
        return error(check, found, why, f"create it as root and run chown {os.getuid()} {path}, or {another}")
    works = _works(path, try_nearest)
    if works.severity is Severity.ERROR:
        return works
    return note(check, f"{path} does not exist", NO_STORE, "router setup")


def _try_to_make(path: Path) -> None:
    """Whether ``path`` could be made; leaves nothing behind."""
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    with tempfile.TemporaryDirectory(dir=nearest, prefix=".doctor-"):
        pass


def _rights(path: Path, found: os.stat_result) -> Finding:
    check = "embedded.data_dir"
    if not stat.S_ISDIR(found.st_mode):
        return error(check, f"{path} is not a directory", "All mail is stored there.", "name another embedded.data_dir")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        why = "All mail is stored there."
        return error(check, f"{path} cannot be written by this user", why, f"chown -R {os.getuid()} {path}")
    held = [path / FILE_NAME, *(key_file(path, name) for name in (SIGNING_KEY, IDEMPOTENCY_KEY))]
    files = [str(file.relative_to(path)) for file in held if _is_open(file)]
    if found.st_mode & 0o077 and files:
        why = "These files hold sealed mail and the keys of this router."
        found_open, fix = f"others can read {', '.join(files)} in {path}", f"chmod -R go= {path}"
        if not any((path / name).stat().st_mode & 0o007 for name in files) and found.st_mode & stat.S_ISGID:
            # What a group may read on a volume of Kubernetes is opened to it again at each start.
            return note(
                check,
                f"{found_open}: the members of group {found.st_gid}",
                f"{why} fsGroup of Kubernetes gives the group access.",
                fix,
            )
        return warning(check, found_open, why, fix)
    if found.st_mode & 0o077:
        why = "Other users can see that there is a router, and may fill its disk or remove its files."
        return warning(check, f"others may enter {path} (mode {found.st_mode & 0o777:o})", why, f"chmod go= {path}")
    return fine(check, f"only this user has access to {path}")


def _is_open(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & 0o077)


def _room(path: Path, reserve_bytes: int) -> Finding:
    check = "embedded.room"
    volume, inodes = space.volume(path), os.statvfs(path).f_favail
    mark = space.mark_of(volume.total, reserve_bytes)
    found = f"{volume.free / 1024**3:.1f} GiB are free"
    why = f"Below {mark / 1024**2:.0f} MiB of free space (embedded.reserve_bytes), sends are refused with 503."
    fix = f"free space on the disk of {path}, or name an embedded.data_dir on a larger disk"
    if volume.free < max(mark, ROOM_ERROR):
        return error(check, found, why, fix)
    # Some file systems have no fixed number of inodes and report none.
    if volume.free < ROOM_WARNING or 0 < inodes < INODES_WARNING:
        return warning(check, found if volume.free < ROOM_WARNING else f"only {inodes} inodes are free", why, fix)
    return fine(check, found)


def _free_pages(path: Path) -> Iterator[Finding]:
    """A large file of an earlier version keeps what is deleted until its pages are used again."""
    check = "embedded.free_pages"
    try:
        with closing(open_to_look(path)) as db:
            if gives_back(db):
                return
            free, (size,) = free_pages(db), db.execute("PRAGMA page_size").fetchone()
    except sqlite3.Error:
        return  # said above
    found = f"{free * size / 1024**2:.0f} MiB of {path.name} are free, but not returned to the disk"
    why = "An earlier version created the file. Free pages hold sealed mail until they are used again."
    needed = 2 * (path.stat().st_size - free * size) / 1024**2
    vacuum = f"db=sqlite3.connect('{path}'); db.execute('PRAGMA auto_vacuum=2'); db.execute('VACUUM')"
    fix = f'with {needed:.0f} MiB free, stop the services; python3 -c "import sqlite3; {vacuum}"'
    yield warning(check, found, why, fix)


def _file_system(path: Path) -> Finding:
    check, kind = "embedded.file_system", _mounted_as(path)
    if kind is None:
        return note(check, "the kind of file system is unknown", "It must be a local one.")
    if kind in NETWORK_FILE_SYSTEMS:
        why = "The database uses shared memory of one machine; on a network file system the file gets corrupted."
        return error(check, f"{path} is on {kind}", why, "name an embedded.data_dir on a local disk")
    if kind in ("tmpfs", "ramfs"):
        why = "A power failure erases memory, but a 202 promises that the message survives it."
        return error(check, f"{path} is on {kind}", why, "name an embedded.data_dir on a disk")
    return fine(check, f"local ({kind})")


def _mounted_as(path: Path) -> str | None:
    """The type of the file system that holds ``path``; the last mount of the longest prefix wins."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    best: tuple[int, str] | None = None
    for line in lines:
        _, where, kind, *_ = line.split()
        mount = where.encode().decode("unicode_escape")
        if path.resolve().is_relative_to(mount) and (best is None or len(mount) >= best[0]):
            best = (len(mount), kind)
    return best[1] if best else None


def _syncs(path: Path) -> Finding:
    """Whether the disk takes an fsync, and how long that takes."""
    check = "embedded.sync"
    began = time.perf_counter()
    try:
        with tempfile.TemporaryFile(dir=path, prefix=".doctor-") as file:
            for _ in range(SYNCS):
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
    except OSError as problem:
        why = "A send is answered 202 only when the message is on disk, which needs fsync."
        fix = f"check the disk of {path}, or name another embedded.data_dir"
        return error(check, f"fsync fails: {problem.strerror}", why, fix)
    each = (time.perf_counter() - began) / SYNCS
    found = f"an fsync takes {each * 1000:.1f} ms"
    if each > SLOW_SYNC_SECONDS:
        why = "Each group of sends waits for one fsync."
        return warning(check, found, why, "use a faster or less busy disk")
    return fine(check, found)


def _database(path: Path) -> Finding:
    check = "embedded.database"
    try:
        with closing(open_to_look(path)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as problem:
        why = "It holds all mail that is not acknowledged yet."
        return error(check, f"{path} cannot be read: {problem}", why, "restore it from a backup")
    if version > VERSION:
        found = f"a newer version wrote it (schema {version}; this version knows {VERSION})"
        return error(check, found, "No service of this version starts with it.", "run the newer version")
    if version < VERSION:
        return note(check, f"schema {version}", f"The next start upgrades it to {VERSION}.", "router setup")
    return fine(check, f"schema {version}, {path.stat().st_size / 1024**2:.1f} MiB")


def _integrity(path: Path) -> Iterator[Finding]:
    """SQLite's check of the file, and ours of the messages in it."""
    try:
        with closing(open_to_look(path)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            yield _file(path, integrity.check_file(db, CHECK_SECONDS))
            if version == VERSION:
                yield _messages(integrity.check_messages(db, CHECK_SECONDS))
    except sqlite3.Error as problem:
        yield _file(path, integrity.Checked([str(problem)], finished=False))


def _file(path: Path, checked: integrity.Checked) -> Finding:
    check = "embedded.integrity"
    if checked.faults:
        why = "Mail on damaged pages cannot be read, and mail that is missing from a damaged index is not served."
        if all("index" in fault for fault in checked.faults):
            fix = f"stop the services; python3 -c \"import sqlite3; sqlite3.connect('{path}').execute('REINDEX')\""
        else:
            fix = f"stop the services; restore {path.parent} from a backup, or save what can be read: " + RECOVER
        return error(check, f"{path.name} is damaged: {'; '.join(checked.faults)}", why, fix)
    if not checked.finished:
        return note(check, f"no damage in what can be read in {CHECK_SECONDS:.0f} s", "The file is large.")
    return fine(check, "SQLite finds no damage")


def _messages(checked: integrity.Checked) -> Finding:
    check = "embedded.checksums"
    if checked.faults:
        why = "They are not served: each becomes a dead letter (`damaged`) when it is next read. Disk or memory is bad."
        return error(check, "; ".join(checked.faults), why, "check the disk, and look at `router dead-letters`")
    if not checked.finished:
        found = f"no damage in the messages that can be read in {CHECK_SECONDS:.0f} s"
        return note(check, found, "There are many messages.")
    return fine(check, "all messages match their checksums")


def _users(path: Path) -> Finding:
    """Who holds the locks. They are read, not tried: a service that starts just now must not find them taken."""
    check = "embedded.processes"
    holders = _lock_holders()
    if holders is None:
        return note(check, "it is unknown which processes use the directory")
    found = []
    for name, who in LOCKS.items():
        lock = path / name
        pids = holders.get(lock.stat().st_ino, []) if lock.exists() else []
        found += [f"{who} runs as process {pid}" for pid in pids]
    if not found:
        return note(check, "no service is running", "That is fine while the services are stopped.")
    return fine(check, "; ".join(found))


def _lock_holders() -> dict[int, list[int]] | None:
    """Inode -> the processes that hold a lock on it."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    holders: dict[int, list[int]] = {}
    for line in lines:
        fields = line.split()  # 1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF; one that waits has -> after the number
        if fields[1] == "FLOCK":
            holders.setdefault(int(fields[5].rpartition(":")[2]), []).append(int(fields[4]))
    return holders
