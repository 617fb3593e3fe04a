"""Purges a user for an operator: deletes all that the router keeps of somebody who leaves, beside running services.

Pipelines and migrators may hold some of it in their memory. So nothing is taken from under them:

1. The user's connections are closed.
2. Mail is acknowledged, as if its recipient had saved it. A pipeline or migrator finds that out, as after any
   acknowledgement, and deletes its copy.
3. That is repeated until nothing has come for ``quiet_seconds``: what was under way is there by then.
4. Records and tombstones are deleted, which the store refuses while somebody still works on the mail.
5. Steps 3 and 4 are repeated until they find nothing. If that takes longer than ``PATIENCE_SECONDS``, somebody still
   sends to the user, or a client of theirs connects again and again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from router.checksum import is_whole
from router.clock import Clock
from router.core.dead_letter_discard import discard
from router.core.disconnection import disconnect
from router.core.settler import Settler
from router.interfaces import BEFORE_ALL, ColdQueue, DeadLetterQueue, OnlineStore, PokeBus
from router.messages import Queued

QUIET_SECONDS = 3.0
STEP_SECONDS = 0.25
"""Between two looks for what has come."""
PATIENCE_SECONDS = 120.0
"""More than a migration lease lasts."""
MESSAGES_PER_SECOND = 50
"""The slowest store deletes more; the time for those that are queued at the beginning is added."""
PAGE = 200
PAGE_BYTES = 8 * 1024 * 1024
RECORDS = 2000
"""Deleted in one step."""

Withdraw = Callable[[str], Awaitable[int]]
"""Deletes what waits for a user in one place; returns how much."""


class Purged(Struct):
    """What was deleted of one user."""

    complete: bool = False
    """Nothing was left for long enough; otherwise something keeps coming, or somebody still works on it."""
    ingress: int = 0
    """Messages that waited to be routed."""
    hot: int = 0
    cold: int = 0
    commands: int = 0
    """Push commands, beside those that went with their messages."""
    dead_letters: int = 0
    records: int = 0
    """Of ids, tombstones among them; mail that was acknowledged here has left one."""
    connections: int = 0
    """Closed, or left by a process that died."""


class Purge:
    """Purges users. State: none but that of ``purge``."""

    def __init__(
        self,
        online: OnlineStore,
        cold: ColdQueue,
        letters: DeadLetterQueue,
        pokes: PokeBus,
        *,
        withdraw: Withdraw,
        withdraw_commands: Withdraw,
        quiet_seconds: float,
        clock: Clock,
    ) -> None:
        """``withdraw``: from the ingress; ``withdraw_commands``: from the outbox."""
        self._online = online
        self._cold = cold
        self._settler = Settler(online, cold)
        self._letters = letters
        self._pokes = pokes
        self._withdraw = withdraw
        self._withdraw_commands = withdraw_commands
        self._quiet = quiet_seconds
        self._clock = clock

    async def purge(self, user: str, progress: Callable[[int], None] | None = None) -> Purged:
        """Delete all that is kept of ``user``; raises ``RouterError``, and may then be repeated."""
        done = Purged()
        done.connections += len((await disconnect(user, self._online, self._pokes, self._clock)).closed)
        quiet_since = self._clock.monotonic()
        end = quiet_since + PATIENCE_SECONDS + await self._queued(user) / MESSAGES_PER_SECOND
        while self._clock.monotonic() < end:
            found = await self._clear(user, done)
            if not found and self._clock.monotonic() - quiet_since >= self._quiet:
                found = await self._clear_letters(user, done)
                forgotten = await self._forget(user, done)
                if forgotten == 0 and not found:
                    done.complete = True
                    return done
                found += forgotten or 1
            if found:
                quiet_since = self._clock.monotonic()
                if progress:
                    progress(found)
            else:
                await self._clock.sleep(STEP_SECONDS)
        return done

    async def _queued(self, user: str) -> int:
        hot, cold = await self._online.totals(user), await self._cold.totals(user)
        return hot.messages + cold.messages

    async def _clear(self, user: str, done: Purged) -> int:
        """Delete what waits to be routed, a page of each tier, and the push commands; returns how much that was."""
        waiting = await self._withdraw(user)
        hot = await self._acknowledge(user, await self._online.inspect(user, PAGE))
        page = await self._cold.read(user, PAGE, PAGE_BYTES, BEFORE_ALL)
        cold = await self._acknowledge(user, page.messages, in_cold=True)
        commands = await self._withdraw_commands(user)
        done.ingress += waiting
        done.hot += hot
        done.cold += cold
        done.commands += commands
        return waiting + hot + cold + commands

    async def _acknowledge(self, user: str, batch: Sequence[Queued], *, in_cold: bool = False) -> int:
        """Take ``batch``, as one tier has given it, out of both; returns how many messages that are."""
        ids = [queued.message.id for queued in batch if is_whole(queued.message)]
        damaged = [queued for queued in batch if not is_whole(queued.message)]
        owed = await self._online.ack(user, ids) if ids else []
        if damaged:
            owed += await self._online.discard(user, damaged)
        if in_cold:
            owed = list(dict.fromkeys([*owed, *(queued.message.id for queued in batch)]))
            await self._settler.remember(user, owed)
        await self._settler.delete_copies(user, owed)
        return len(batch)

    async def _clear_letters(self, user: str, done: Purged) -> int:
        found = await discard(self._letters, lambda letter: letter.recipient == user, dry_run=False)
        done.dead_letters += found.discarded
        return found.discarded

    async def _forget(self, user: str, done: Purged) -> int | None:
        """Delete the records, and then all else; returns how much there was, or ``None`` if somebody works on it."""
        found = 0
        while True:
            forgotten = await self._online.forget_user(user, RECORDS)
            done.records += forgotten.records
            done.connections += forgotten.connections
            found += forgotten.records + forgotten.connections
            if forgotten.in_use:
                return None
            if not forgotten.more:
                return found
