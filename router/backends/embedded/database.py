"""One SQLite file: a single writer that commits in groups, and reads beside it.

Statements run on the event loop, where they cost microseconds. Only what waits runs on a thread: a commit for its
fsync, the write lock for another process, a checkpoint for the disk. So the hot path switches threads once a
group, not once a statement.

There are two kinds of writes, since SQLite's log keeps commits in order and power loss cuts only its tail:

* ``write`` is on disk when it returns (``synchronous=FULL``).
* ``write_ordered`` may be undone by power loss, but only together with all that came after it. Routing is
  written so: where its result is lost, what it took from the ingress is there again.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from router.backends.embedded import schema
from router.backends.embedded.worker import Worker
from router.errors import DataDirLost

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""Runs inside a transaction, may be run again, and so changes nothing but the database."""

GROUP_SECONDS = 0.005
"""A group takes no further operation once it has held the event loop this long."""
LOCK_SECONDS = 10.0
"""How long to wait for another process's transaction before giving up."""
CHECKPOINT_CHANGES = 8_000
CHECKPOINT_BYTES = 64 * 1024 * 1024
"""The log is folded into the database file after this many changed rows, or when it is this long."""
RESTART_MILLISECONDS = 20
"""How long the writer pauses at most for those who still read the log."""


class _Write(Generic[T]):
    __slots__ = ("operation", "outcome", "result", "synced")

    def __init__(self, operation: Operation[T], outcome: asyncio.Future[T], *, synced: bool) -> None:
        self.operation = operation
        self.outcome = outcome
        self.synced = synced
        self.result: T

    def succeed(self) -> None:
        if not self.outcome.done():
            self.outcome.set_result(self.result)

    def fail(self, error: BaseException) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Database:
    """The file ``path``, opened as an async context manager; raises ``DataDirError`` and ``Unavailable``."""

    def __init__(
        self,
        path: Path,
        workers: Callable[[], Worker],
        *,
        relaxed: bool,
        connect: Callable[[Path], schema.Connections] = schema.connect,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """``relaxed``: all that the router stores is in this one file, so ordered writes need no fsync.

        ``make_room``: asked where the disk is full; whether it is worth another try then.
        """
        self._path = path
        self._make_room = make_room
        self._connect = connect
        self._log = path.with_name(path.name + "-wal")
        self._committer = workers()
        self._checkpointer = workers()
        self._relaxed = relaxed
        self._queue: deque[_Write[Any]] = deque()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._level = ""
        self._folded_at = 0
        self._folding = False
        self._restart = False
        self._empties = False
        self._folds: list[asyncio.Future[None]] = []
        self._folded_for_room = False
        self._writes = True

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._connections = self._connect(self._path)
        self._writer = self._connections.writer
        self._reader = self._connections.reader
        await self._committer.start()
        await self._checkpointer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._idle.wait()
        await self._checkpointer.stop()
        await self._committer.stop()
        self._connections.close()

    def read(self, operation: Operation[T]) -> T:
        """Run ``operation`` on the last committed state, at once."""
        try:
            return operation(self._reader)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    async def write(self, operation: Operation[T]) -> T:
        """Run ``operation`` in a group and return its result when the group is on disk."""
        return await self._enqueue(operation, synced=True)

    async def write_ordered(self, operation: Operation[T]) -> T:
        """Like ``write``, but on disk no later than the next ``write`` is."""
        return await self._enqueue(operation, synced=not self._relaxed)

    async def probe(self) -> None:
        """Raise ``Unavailable`` unless reads work, and writes do or did the last time; for readiness."""
        self.read(lambda db: db.execute("SELECT 1").fetchone())
        if not self._writes:
            await self.write(_write_nothing)

    async def fold(self, *, empties: bool = True) -> None:
        """Fold the log into the file, and empty it: from then on nothing in it outlives what was deleted. Readers may
        hold that up; then it is left as it is."""
        if self._log_bytes() == 0:
            return
        self._empties |= empties
        folded: asyncio.Future[None] = self._loop.create_future()
        self._folds.append(folded)
        if not self._folding:
            self._begin_fold()
        await folded

    def _enqueue(self, operation: Operation[T], *, synced: bool) -> asyncio.Future[T]:
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._queue.append(_Write(operation, outcome, synced=synced))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._begin)
        return outcome

    # One group at a time: begin, run, commit, resolve; each step starts the next, through the loop or a worker.

    def _begin(self) -> None:
        # Ordered writes at the head go without the synced ones behind them: a poke waits for its routing, and need not
        # wait for somebody else's fsync too. A synced one takes all that waits with it.
        try:
            self._set_level("FULL" if self._queue[0].synced else "NORMAL")
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if schema.is_busy(error):
                self._committer.submit(self._wait_for_lock, self._begun)
            else:
                self._begun(error)
        else:
            self._run()

    def _set_level(self, level: str) -> None:
        if level != self._level:
            self._writer.execute(f"PRAGMA synchronous={level}")
            self._level = level

    def _wait_for_lock(self) -> None:
        # SQLite's own busy handler backs off to 100 ms, far longer than another process holds the lock.
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not schema.is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.0002)
            else:
                return

    def _begun(self, error: BaseException | None) -> None:
        if error is None:
            self._run()
            return
        group = list(self._queue)
        self._queue.clear()
        self._resolve(group, error)

    def _run(self) -> None:
        group: list[_Write[Any]] = []
        synced = self._level == "FULL"
        deadline = self._loop.time() + GROUP_SECONDS
        while self._queue and (not group or self._loop.time() < deadline):
            write = self._queue[0]
            if write.synced and not synced:
                break
            self._queue.popleft()
            if write.outcome.cancelled():
                continue
            try:
                write.result = write.operation(self._writer)
            except Exception as error:  # noqa: BLE001 - what an operation raises belongs to its caller
                self._run_without(write, error, group)
                return
            group.append(write)
        if synced:
            self._committer.submit(self._commit, lambda error: self._resolve(group, error))
        else:
            self._resolve(group, self._commit_inline())

    def _run_without(self, failed: _Write[Any], error: Exception, group: list[_Write[Any]]) -> None:
        """One operation failed: it alone gets the error, the others of its group run again."""
        self._queue.extendleft(reversed(group))
        self._resolve([failed], error)

    def _commit(self) -> None:
        self._writer.execute("COMMIT")

    def _commit_inline(self) -> sqlite3.Error | None:
        try:
            self._commit()
        except sqlite3.Error as error:
            return error
        return None

    def _resolve(self, group: list[_Write[Any]], error: BaseException | None) -> None:
        if error is None:
            self._writes, self._folded_for_room = True, False
            for write in group:
                write.succeed()
        elif isinstance(error, sqlite3.Error) and schema.may_lack_room(error) and self._finds_room():
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._queue.extendleft(reversed(group))
        else:
            # What an operation raises of its own says nothing of the disk.
            self._writes &= not isinstance(error, sqlite3.Error)
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            for write in group:
                write.fail(self._translated(error))
        self._next()

    def _finds_room(self) -> bool:
        """Whether a group that found the disk full is worth another try: there is room now, or the log begins anew, in
        the room that it has."""
        if self._make_room():
            return True
        if self._folded_for_room or self._log_bytes() == 0:
            return False
        self._folded_for_room = self._restart = True
        return True

    def _translated(self, error: BaseException) -> BaseException:
        if not isinstance(error, sqlite3.Error):
            return error
        return schema.translated(error, self._path, DataDirLost)

    def _next(self) -> None:
        if self._restart:
            self._restart = False
            self._committer.submit(self._restart_log, self._restarted)
            return
        if not self._folding and self._log_is_long():
            self._begin_fold()
        self._continue()

    def _continue(self) -> None:
        if self._queue:
            # Through the loop, so that a stream of writes never keeps the loop from its sockets.
            self._loop.call_soon(self._begin)
        else:
            self._busy = False
            self._idle.set()

    # A checkpoint beside the writer does nearly all the work; the writer then pauses for the short rest, without
    # which the log would never start anew under steady load. Where a reader elsewhere holds it up, the next
    # one finishes it.

    def _log_is_long(self) -> bool:
        changed = self._writer.total_changes - self._folded_at
        return changed > CHECKPOINT_CHANGES or self._log_bytes() > CHECKPOINT_BYTES

    def _log_bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def _begin_fold(self) -> None:
        self._folding = True
        self._checkpointer.submit(self._fold_log, self._folded)

    def _fold_log(self) -> None:
        # The second round takes what was written during the first, so that little is left for the writer's pause.
        for _ in range(2):
            self._connections.folder.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _folded(self, error: BaseException | None) -> None:
        self._folded_at = self._writer.total_changes
        self._folding = False
        if error is not None:
            self._end_folds()
            return
        self._restart = True
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._next)

    def _restart_log(self) -> None:
        empties = self._empties or self._log_bytes() > CHECKPOINT_BYTES
        # Other processes read for moments only, so this waits for them; writes wait meanwhile.
        self._writer.execute(f"PRAGMA busy_timeout = {RESTART_MILLISECONDS}")
        try:
            self._writer.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if empties else 'RESTART'})").fetchall()
        finally:
            self._writer.execute("PRAGMA busy_timeout = 0")

    def _restarted(self, _: BaseException | None) -> None:
        # What held it up is gone the next time.
        self._end_folds()
        self._continue()

    def _end_folds(self) -> None:
        self._empties = False
        folds, self._folds = self._folds, []
        for folded in folds:
            if not folded.done():
                folded.set_result(None)


def _write_nothing(db: sqlite3.Connection) -> None:
    """A write that changes nothing and yet takes its place in the log."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.execute(f"PRAGMA user_version = {version:d}")
