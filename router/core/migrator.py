"""Moves a user's hot mail to cold. A crash at any point leaves at most a second copy, and loses no message.

The migrator marks a batch as moving, writes it to cold, and then deletes it from hot. If the user acknowledges a
message in between, the online store remembers that, and the migrator deletes the copy in cold when the batch ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from router.clock import Clock
from router.core.damage import Damage, checked
from router.core.dead_letters import Refuser
from router.core.settler import Settler
from router.dead_reasons import DeadReason
from router.errors import Refused, RouterError, Unavailable
from router.interfaces import ColdQueue, OnlineStore, PushNotifier
from router.messages import MigrationResult, MoveRefused, Queued
from router.metrics import Metrics
from router.retry import backoff
from router.timekeeping import Timekeeper

BATCH_MESSAGES = 250
BATCH_BYTES = 2 * 1024 * 1024
PUT_TRIES = 5
UNFINISHED = 10_000
"""Failed migrations that continue under their lease when they are retried. Beyond this, a retry waits until the lease
expires."""


class Migrated(Struct, frozen=True):
    """What one migration did."""

    moved: int
    dropped: int
    """How many ephemeral messages were dropped, since these never go to cold."""
    result: MigrationResult


class Statistics(Struct, frozen=True):
    """What a ``Migrator`` has done, and has still to do, at one moment."""

    begun: int
    """Migrations so far, apart from those that continued one that had failed."""
    unfinished: int
    """Users whose migration failed, and still holds the lease."""


class Migrator:
    """Moves hot mail to cold. Several migrators, on any node, may work on one user at any time."""

    def __init__(
        self,
        online: OnlineStore,
        cold: ColdQueue,
        push: PushNotifier,
        refuser: Refuser,
        damage: Damage,
        *,
        owner: str,
        clock: Clock,
        keeper: Timekeeper,
        chance: random.Random,
        metrics: Metrics,
    ) -> None:
        """``owner`` names this migrator in migration leases; no other migrator may have the same name."""
        self._online = online
        self._cold = cold
        self._settler = Settler(online, cold)
        self._push = push
        self._refuser = refuser
        self.damage = damage
        self._owner = owner
        self._count = 0
        self._unfinished: dict[str, str] = {}
        """By user: the owner name under which a failed migration still holds the lease."""
        self._clock = clock
        self._keeper = keeper
        self._chance = chance
        self._metrics = metrics

    def statistics(self) -> Statistics:
        return Statistics(begun=self._count, unfinished=len(self._unfinished))

    def __repr__(self) -> str:
        return f"<Migrator {self._owner}: {self.statistics()}>"

    async def migrate(
        self, user: str, *, online_too: bool = False, progress: Callable[[int], None] | None = None
    ) -> Migrated:
        """Move all hot mail of ``user``, in bounded batches; it can be resumed at any point.

        Publishes the push command of each message that has none yet, once the message is in cold. Raises
        ``Unavailable``; the rest is then still hot, and a sweeper moves it.
        """
        owner = self._unfinished.pop(user, None) or self._new_owner()
        try:
            migrated = await self._move_all(user, owner, online_too=online_too, progress=progress)
        except BaseException:
            # Cold may have copies of the batch, or get them when a write that timed out still arrives. While the lease
            # lasts, the store keeps an acknowledged message of the batch as an orphan, even if its copy was reported as
            # deleted. The next attempt of this migrator continues under the lease; others wait until it expires.
            if len(self._unfinished) < UNFINISHED:
                self._unfinished[user] = owner
            raise
        await self._release(user, owner)
        self._metrics.migration(migrated.result)
        return migrated

    def _new_owner(self) -> str:
        self._count += 1
        return f"{self._owner}.{self._count}"

    async def _release(self, user: str, owner: str) -> None:
        # The mail is moved, and a lease that is not released expires by itself.
        with suppress(RouterError):
            await self._online.release_move(user, owner)

    async def _move_all(
        self, user: str, owner: str, *, online_too: bool, progress: Callable[[int], None] | None
    ) -> Migrated:
        moved = dropped = 0
        while True:
            move = await self._online.begin_move(user, owner, BATCH_MESSAGES, BATCH_BYTES, online_too=online_too)
            if isinstance(move, MoveRefused):
                return Migrated(moved, dropped, MigrationResult(move.value))
            if move.dropped:
                # Counted now: they stay dropped even if the move then fails.
                self._metrics.dropped("ephemeral-migrated", move.dropped)
                dropped += move.dropped
            self._metrics.pushed(sum(not queued.announced for queued in move.moved))
            moved += self._count_moved(len(move.moved), progress)
            messages = checked(move.messages)
            whole = [queued for queued in messages if not queued.damaged]
            if whole:
                await self._move(user, owner, whole)
                moved += self._count_moved(len(whole), progress)
            left = await self._remove(user, owner, [queued for queued in messages if queued.damaged])
            if left is not None and not ((whole or move.moved) and move.more):
                raise left
            if not move.more:
                return Migrated(moved, dropped, MigrationResult.DONE)

    def _count_moved(self, count: int, progress: Callable[[int], None] | None) -> int:
        if count:
            self._metrics.migrated(count)
            if progress is not None:
                progress(count)
        return count

    async def _remove(self, user: str, owner: str, damaged: Sequence[Queued]) -> RouterError | None:
        """Take ``damaged`` out of hot. One that has a whole copy in cold is served from there; the others become dead
        letters. Returns the error if some cannot be removed now; the messages behind them move anyway."""
        try:
            for queued in damaged:
                copy = await self.damage.copy_in_cold(user, queued)
                if copy is None:
                    await self.damage.bury(user, queued, in_cold=False)
                else:
                    # Announce it again: a sweeper marks a damaged message as announced without a push command.
                    # Hot knows it by the sequence that it has here; cold may have it at a lower one.
                    await self._leave_hot(user, owner, [replace(copy, sequence=queued.sequence, announced=False)])
        except RouterError as error:
            return error
        return None

    async def _move(self, user: str, owner: str, messages: Sequence[Queued]) -> None:
        try:
            await self._put(messages)
        except Refused:
            messages = [queued for queued in messages if await self._stored(queued)]
        await self._leave_hot(user, owner, messages)

    async def _leave_hot(self, user: str, owner: str, messages: Sequence[Queued]) -> None:
        """Take ``messages``, which are in cold, out of hot. Announce them first: after a crash in between they are
        announced twice, in the other order they might never be."""
        unannounced = [queued.message for queued in messages if not queued.announced]
        if unannounced:
            await self._push.publish(unannounced)
            self._metrics.pushed(len(unannounced))
        acked = await self._online.end_move(user, owner, messages)
        await self._settler.delete_copies(user, acked)

    async def _put(self, messages: Sequence[Queued]) -> None:
        attempt = 1
        messages = [self._keeper.dated(queued) for queued in messages]
        while messages := await self._cold.put(messages):
            if attempt == PUT_TRIES:
                raise Unavailable(f"the cold queue refused {len(messages)} messages of a migration")
            await self._clock.sleep(backoff(attempt, self._chance))
            attempt += 1

    async def _stored(self, queued: Queued) -> bool:
        """Write one message, and return whether cold has it. If cold can never hold it, it becomes a dead letter, so
        that those behind it can move."""
        try:
            await self._put([queued])
        except Refused as error:
            await self._refuser.refuse(queued, DeadReason.UNSTORABLE, str(error))
            await self._settler.forget(*queued.message.name)
            return False
        return True
