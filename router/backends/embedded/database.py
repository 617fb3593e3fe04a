"""One SQLite file, with one writer that commits operations in groups, and readers beside it.

Statements and commits run on the event loop, where they take microseconds. A thread runs only what waits: a sync of the
log for the disk, its turn to write where other processes write too, a checkpoint.

SQLite's log keeps commits in order, and power loss cuts off only its end. So there are two kinds of writes:

* ``write`` is on disk when it returns: the log was synced after its commit.
* Power loss may undo a ``write_ordered``, but only together with all later writes. Routing uses it: if the result of a
  routing is lost, so is the removal of the message from the ingress.

Readers see a commit before it is on disk. Nobody was promised what power loss may still take back.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from router.backends.embedded import schema
from router.backends.embedded.turns import FileTurns, Turns
from router.backends.embedded.worker import Done, InlineWorker, Job, Worker
from router.errors import DataDirLost, Unavailable

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
"""Runs inside a transaction, perhaps more than once, and so changes nothing but the database."""

GROUP_SECONDS = 0.005
"""A group that has held the event loop this long takes no further operations."""
PATIENCE_SECONDS = 0.002
"""How long a patient write waits for others, to share a transaction and a sync with them. At 500 messages a second two
of three acknowledgements find one in this time."""
STARVING_SECONDS = 0.02
"""A process that has waited this long for its turn is next, whatever else runs."""
LOCK_SECONDS = 10.0
"""How long to wait for another process's transaction before giving up."""
CHECKPOINT_CHANGES = 8_000
CHECKPOINT_BYTES = 64 * 1024 * 1024
"""A checkpoint copies the log into the file after this many changed rows, or when the log has this size."""
LOOK_CHANGES = 200
"""The size is asked for after this many more: the call lets other threads run, and was 3 % of a single send."""
RESTART_MILLISECONDS = 20
"""How long the writer waits at most for readers of the log, so that the log can start from its beginning."""


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
        turns: Callable[[Path], Turns] = FileTurns,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """``relaxed``: the router stores everything in this file, so ordered writes need no fsync.

        ``make_room``: called when the disk is full; returns whether to try again.
        """
        self._path = path
        self._make_room = make_room
        self._connect = connect
        self._new_turns = turns
        self._waiter = workers()
        self._syncer = workers()
        self._checkpointer = workers()
        self._relaxed = relaxed
        self._queue: deque[_Write[Any]] = deque()
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._unsynced: list[_Write[Any]] = []
        """Committed, and promised once the log is synced."""
        self._company: asyncio.TimerHandle | None = None
        """Ends the wait of patient writes for others."""
        self._syncing = False
        self._doubtful = False
        """A sync has failed: nobody knows what of the log is on disk."""
        self._folded_at = self._looked_at = 0
        self._folding = False
        self._restart = False
        self._empties = False
        self._folds: list[asyncio.Future[None]] = []
        self._folded_for_room = False
        self._writes = True
        self._waits_since: float | None = None
        """When the group that waits for its turn found another process writing."""
        self._kept_waiting = False
        """Another process has not ended its turn for ``LOCK_SECONDS``."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._connections = self._connect(self._path)
        self._writer = self._connections.writer
        self._reader = self._connections.reader
        self._log = self._connections.log
        self._turns = self._new_turns(self._path)
        for worker in (self._waiter, self._syncer, self._checkpointer):
            await worker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stay_alone()
        await self._idle.wait()
        for worker in (self._checkpointer, self._syncer):
            await worker.stop()
        if self._kept_waiting:
            self._patience.cancel()
            self._waiter.abandon(self._turns.close)
        else:
            await self._waiter.stop()
            self._turns.close()
        self._connections.close()

    def read(self, operation: Operation[T]) -> T:
        """Run ``operation`` now, on the last committed state."""
        try:
            return operation(self._reader)
        except sqlite3.Error as error:
            raise self._translated(error) from error

    async def survey(self, operation: Operation[T]) -> T:
        """Like ``read``, for what looks at all messages: on a connection and a thread of its own, so that nobody waits
        for it. A simulation has one connection and no thread."""
        if isinstance(self._waiter, InlineWorker):
            return self.read(operation)
        reader = schema.open_reader(self._path)

        def look() -> T:
            with closing(reader):
                return operation(reader)

        try:
            return await asyncio.to_thread(look)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except asyncio.CancelledError:
            with suppress(sqlite3.ProgrammingError):  # it has ended just now
                reader.interrupt()  # or the process would wait for it before it ends
            raise

    async def write(self, operation: Operation[T], *, patient: bool = False) -> T:
        """Run ``operation`` in a group; return its result when the group is on disk.

        ``patient``: nobody waits for it but its caller, so it waits up to ``PATIENCE_SECONDS`` for others.
        """
        return await self._enqueue(operation, synced=True, patient=patient)

    async def write_ordered(self, operation: Operation[T]) -> T:
        """Like ``write``, but it may return before it is on disk; the next ``write`` takes it there."""
        return await self._enqueue(operation, synced=not self._relaxed)

    async def probe(self) -> None:
        """Raise ``Unavailable`` unless a read works now and the last write worked; for readiness."""
        self.read(lambda db: db.execute("SELECT 1").fetchone())
        if not self._writes:
            await self.write(_write_nothing)

    async def fold(self, *, empties: bool = True) -> None:
        """Copy the log into the file and empty it, so that deleted mail is gone from it too. If a reader holds this up,
        the log stays as it is."""
        if self._log.size() == 0:
            return
        self._empties |= empties
        folded: asyncio.Future[None] = self._loop.create_future()
        self._folds.append(folded)
        if not self._folding:
            self._begin_fold()
        await folded

    def _enqueue(self, operation: Operation[T], *, synced: bool, patient: bool = False) -> asyncio.Future[T]:
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._queue.append(_Write(operation, outcome, synced=synced))
        self._idle.clear()
        # During a sync, writes that need the next one wait for it together: one transaction for all of them. The first
        # that needs no sync takes along those that wait.
        if not self._busy and not (synced and self._syncing):
            if not patient:
                self._start()
            elif self._company is None:
                self._company = self._loop.call_later(PATIENCE_SECONDS, self._stay_alone)
        return outcome

    def _stay_alone(self) -> None:
        if self._queue and not self._busy and not self._syncing:
            self._start()

    def _start(self) -> None:
        self._busy = True
        if self._company is not None:
            self._company.cancel()
            self._company = None
        # Through the loop, so that a stream of writes never starves its sockets, and what comes in this turn joins.
        self._loop.call_soon(self._begin)

    # One group at a time: begin, run, commit. Then its ordered writes are done; the others are when the log is synced,
    # for which the next group does not wait.

    def _begin(self) -> None:
        if self._doubtful:
            self._submit_in_turn(self._renew_log, self._renewed)
            return
        if not self._turns.take():
            self._sync_soon()
            self._await_turn()
            return
        self._waits_since = None
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if schema.is_busy(error):
                self._sync_soon()
                self._submit_in_turn(self._wait_for_lock, self._begun)
            else:
                self._begun(error)
        else:
            self._run()

    def _await_turn(self) -> None:
        now = self._loop.time()
        if self._waits_since is None:
            self._waits_since = now
        if now - self._waits_since < STARVING_SECONDS:
            self._submit_waiting(self._turns.wait_until_free, self._free)
        else:
            self._waits_since = None
            self._submit_in_turn(self._wait_for_lock, self._begun)

    def _free(self, error: BaseException | None) -> None:
        if error is None:
            self._begin()
        else:
            self._begun(error)

    def _submit_in_turn(self, job: Job, done: Done) -> None:
        """Run ``job`` on the thread when this process has the turn."""

        def in_turn() -> None:
            self._turns.wait()
            job()

        self._submit_waiting(in_turn, done)

    def _submit_waiting(self, job: Job, done: Done) -> None:
        """Run ``job``, which waits for other processes, on the thread; writes that wait for ``LOCK_SECONDS`` fail."""
        self._patience = self._loop.call_later(LOCK_SECONDS, self._give_up)

        def ended(error: BaseException | None) -> None:
            self._patience.cancel()
            if self._kept_waiting:
                self._kept_waiting = False
                self._idle.clear()
            done(error)

        self._waiter.submit(job, ended)

    def _give_up(self) -> None:
        """Fail all writes that wait; the thread goes on waiting, for later ones."""
        self._patience = self._loop.call_later(LOCK_SECONDS, self._give_up)
        self._kept_waiting = True
        group = list(self._queue)
        self._queue.clear()
        self._writes &= not group
        self._fail(group, Unavailable(f"the database {self._path} is locked by another process"))
        if not self._syncing:
            self._idle.set()

    def _wait_for_lock(self) -> None:
        # Somebody has the lock without the turn: a process that opens or closes the file, or no router. SQLite's own
        # busy handler would wait up to 100 ms, far longer than they do.
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
        if error is None and self._doubtful:
            # Since this group began to wait for the lock.
            self._writer.execute("ROLLBACK")
            self._begin()
            return
        if error is None:
            self._run()
            return
        group = list(self._queue)
        self._queue.clear()
        self._resolve(group, error)

    def _run(self) -> None:
        group: list[_Write[Any]] = []
        deadline = self._loop.time() + GROUP_SECONDS
        while self._queue and (not group or self._loop.time() < deadline):
            write = self._queue.popleft()
            if write.outcome.cancelled():
                continue
            try:
                write.result = write.operation(self._writer)
            except Exception as error:  # noqa: BLE001 - what an operation raises belongs to its caller
                self._run_without(write, error, group)
                return
            group.append(write)
        self._resolve(group, self._commit_error())

    def _run_without(self, failed: _Write[Any], error: Exception, group: list[_Write[Any]]) -> None:
        """Fail one operation with its error, and run the others of its group again."""
        self._queue.extendleft(reversed(group))
        self._resolve([failed], error)

    def _commit_error(self) -> sqlite3.Error | None:
        try:
            self._commit()
        except sqlite3.Error as error:
            return error
        return None

    def _commit(self) -> None:
        self._writer.execute("COMMIT")
        self._turns.leave()

    def _resolve(self, group: list[_Write[Any]], error: BaseException | None) -> None:
        if error is None:
            self._writes, self._folded_for_room = True, False
            for write in group:
                if write.synced:
                    self._unsynced.append(write)
                else:
                    write.succeed()
        elif isinstance(error, sqlite3.Error) and schema.may_lack_room(error) and self._finds_room():
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._queue.extendleft(reversed(group))
        else:
            # An error of the operation itself says nothing about the disk.
            self._writes &= not isinstance(error, sqlite3.Error)
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._fail(group, error)
        self._turns.leave()
        self._sync_soon()
        self._next()

    def _fail(self, group: list[_Write[Any]], error: BaseException) -> None:
        for write in group:
            write.fail(self._translated(error))

    # The log is synced beside the writer, by a descriptor of its own: SQLite would hold the lock, and the writer, for
    # as long as the disk takes.

    def _sync_soon(self) -> None:
        if self._unsynced and not self._syncing:
            self._syncing = True
            group, self._unsynced = self._unsynced, []
            self._syncer.submit(self._sync, lambda error: self._synced(group, error))

    def _sync(self) -> None:
        try:
            self._log.sync()
        except OSError as error:
            raise schema.unsynced(error, self._path) from error

    def _synced(self, group: list[_Write[Any]], error: BaseException | None) -> None:
        self._syncing = False
        if error is None:
            for write in group:
                write.succeed()
        else:
            self._writes, self._doubtful = False, True
            group, self._unsynced = group + self._unsynced, []
            self._fail(group, error)
        if self._busy or not self._queue:
            self._sync_soon()
        if not self._busy:
            self._continue()

    def _renew_log(self) -> None:
        """Linux tries to write a page once: the next sync would succeed without what the failed one left out. So the
        file takes over what is in the log, and the log begins again."""
        if not self._begin_log_again(empties=True):
            raise Unavailable(f"the log of {self._path} was not synced, and another process reads it; try again")

    def _renewed(self, error: BaseException | None) -> None:
        if error is None:
            self._doubtful = False
            self._begin()
        else:
            self._begun(error)

    def _finds_room(self) -> bool:
        """Whether to retry a group that found the disk full: there is room now, or the log has started from its
        beginning and has room in itself."""
        if self._make_room():
            return True
        if self._folded_for_room or self._log.size() == 0:
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
            self._checkpointer.submit(self._copy_log, self._copied)
            return
        if not self._folding and self._log_is_long():
            self._begin_fold()
        self._continue()

    def _continue(self) -> None:
        self._busy = False
        if self._queue:
            self._start()
        elif not self._syncing:
            self._idle.set()

    # A checkpoint runs beside the writer and copies nearly all of the log. The writer then pauses for the short rest:
    # under steady load the log would otherwise never start from its beginning. The rest is copied before this process
    # takes its turn, so that other processes write meanwhile: they waited 8 to 16 ms, now 1 to 7 ms (medians; a
    # migration beside a service on a busy disk). If a reader of another process holds a checkpoint up, the next one
    # finishes it.

    def _log_is_long(self) -> bool:
        changes = self._writer.total_changes
        if changes - self._folded_at > CHECKPOINT_CHANGES:
            return True
        if changes - self._looked_at < LOOK_CHANGES:
            return False
        self._looked_at = changes
        return self._log.size() > CHECKPOINT_BYTES

    def _begin_fold(self) -> None:
        self._folding = True
        self._checkpointer.submit(self._fold_log, self._folded)

    def _fold_log(self) -> None:
        # The second round copies what was written during the first, so that the writer's pause is short.
        for _ in range(2):
            self._copy_log()

    def _copy_log(self) -> None:
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

    def _copied(self, _: BaseException | None) -> None:
        self._submit_in_turn(self._restart_log, self._restarted)

    def _restart_log(self) -> None:
        try:
            self._begin_log_again(empties=self._empties or self._log.size() > CHECKPOINT_BYTES)
        finally:
            self._turns.leave()

    def _begin_log_again(self, *, empties: bool) -> bool:
        """Returns whether no reader of another process held it up. Writes wait meanwhile; readers read only briefly."""
        self._writer.execute(f"PRAGMA busy_timeout = {RESTART_MILLISECONDS}")
        try:
            (busy, *_), *_ = self._writer.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if empties else 'RESTART'})")
        finally:
            self._writer.execute("PRAGMA busy_timeout = 0")
        if not busy and not empties:
            # The first commit syncs the header of the log: not on the event loop.
            with suppress(sqlite3.OperationalError):
                self._writer.execute("BEGIN IMMEDIATE")
                _write_nothing(self._writer)
                self._writer.execute("COMMIT")
        return not busy

    def _restarted(self, _: BaseException | None) -> None:
        # If a reader held it up, the next checkpoint does it.
        self._end_folds()
        self._continue()

    def _end_folds(self) -> None:
        self._empties = False
        folds, self._folds = self._folds, []
        for folded in folds:
            if not folded.done():
                folded.set_result(None)


def _write_nothing(db: sqlite3.Connection) -> None:
    """A write that changes nothing, but has its place in the log."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.execute(f"PRAGMA user_version = {version:d}")
