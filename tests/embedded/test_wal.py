"""The log of the file, read beside other processes that write and empty it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from router.backends.embedded import wal

PAGE = 4096


def log_of(path: Path, commits: int) -> sqlite3.Connection:
    """A database with so many commits in its log, which nothing has folded into the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {PAGE}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("CREATE TABLE t (x)")
    for number in range(commits):
        connection.execute("INSERT INTO t VALUES (?)", (number,))
    return connection


def test_a_log_that_is_emptied_while_it_is_read_ends_there(tmp_path: Path) -> None:
    """A service started while another one emptied the log, and ended as by a bug of its own."""
    path = tmp_path / "router.db"
    with closing(log_of(path, 3)), (tmp_path / "router.db-wal").open("r+b", buffering=0) as log:
        log.seek(32)
        frames = wal._frames(log, PAGE)
        next(frames)
        log.truncate(0)
        assert list(frames) == []


def test_an_index_that_is_still_empty_says_nothing_of_the_log(tmp_path: Path) -> None:
    path, copy = tmp_path / "router.db", tmp_path / "copy.db"
    with closing(log_of(path, 3)) as connection:
        (tmp_path / "copy.db-wal").write_bytes((tmp_path / "router.db-wal").read_bytes())
        (tmp_path / "copy.db-shm").write_bytes(b"")
        assert wal.lost_commits(connection, copy, PAGE) == 0
