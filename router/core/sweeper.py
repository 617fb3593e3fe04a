"""Does what time makes due: ends expired leases, repeats pokes, deletes old mail, finishes the work of dead processes.

``due`` decides, as a pure function; ``Sweeper`` reads and acts. Any number of sweepers may run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from router import logs
from router.checksum import is_whole
from router.clock import MICROSECONDS, Clock
from router.core.dependencies import Reports
from router.core.migrator import Migrator
from router.core.settler import Settler
from router.errors import RouterError, Unavailable
from router.interfaces import ColdQueue, OnlineStore, PushNotifier
from router.messages import HotUser
from router.metrics import Metrics
from router.timekeeping import Timekeeper, may_delete

LOG = logs.logger(__name__)
PAGE_USERS = 200
PAGE_MESSAGES = 500
TICK_SECONDS = 1.0
CUT_SECONDS = 2.0
"""A client that reads on after a page that was cut short has fetched or acknowledged again by then."""
IMPLAUSIBLE_SECONDS = 300
"""The clocks of two nodes never differ by this much. A time that is further ahead came from a wrong clock."""
HELD_SECONDS = 60.0
"""How often to look again while retention waits for the clock."""
UNREPORTED_SECONDS = 60
"""A pipeline settles what it wrote without the online store within this time, unless it is cut off or dead."""
OUTAGE_FAILURES = 10
"""After this many failures in one round, its other moves and orphans wait for the next round."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds after which something is due (``online`` section of the configuration)."""

    repoke_seconds: float
    push_after_seconds: float
    sweep_after_seconds: float


@dataclass(frozen=True, slots=True)
class Due:
    """What to do for one user."""

    migrate: bool = False
    announce: bool = False
    poke: bool = False
    stop_poking: bool = False


def due(user: HotUser, now: int, rules: Rules, *, cold_works: bool = True) -> Due:
    """What to do for ``user`` at ``now`` (µs since 1970).

    * Hot mail of a user without a live connection moves at once: the process that should have moved it has died.
    * A poke that is due is sent even if the mail moves to cold too, and repeated until the user fetches, since each
      earlier one may have been lost.
    * Fetches fail while cold does not work (``cold_works``). So a poke for a page that was cut short then waits as long
      as any other.
    """
    if not user.live:
        return Due(migrate=user.hot > 0, stop_poking=True)
    poke = _waits(user, now, rules, CUT_SECONDS if cold_works else rules.repoke_seconds)
    if _older(user.oldest_at, now, rules.sweep_after_seconds):
        return Due(migrate=True, poke=poke)
    return Due(announce=_older(user.unannounced_at, now, rules.push_after_seconds), poke=poke)


def _waits(user: HotUser, now: int, rules: Rules, cut_seconds: float) -> bool:
    """Whether a poke is due. There are three cases:

    1. The last page was cut short: if the client has not read on within ``cut_seconds``.
    2. Hot mail, or a poke, waits for a fetch: if ``repoke_seconds`` have passed since the last poke and the oldest
       message.
    3. The user has fetched everything: no.
    """
    if user.fetched and user.cut_at:
        return abs(now - user.cut_at) >= cut_seconds * MICROSECONDS  # the node that fetched may have been ahead
    if user.hot or not user.fetched:
        return _older(max(user.poked_at, user.oldest_at), now, rules.repoke_seconds)
    return False


def _older(since: int, now: int, seconds: float) -> bool:
    """Whether ``since`` is at least ``seconds`` ago; or so far ahead that a clock wrote it that was set back since."""
    if since > now + IMPLAUSIBLE_SECONDS * MICROSECONDS:
        return True
    return since > 0 and now - since >= seconds * MICROSECONDS


class Statistics(Struct, frozen=True):
    """What a ``Sweeper`` has come to at one moment."""

    rounds: int
    """Those that have ended."""
    failures: int
    """Of the round that is under way, or of the last one."""
    retention_waits: bool
    """The clock cannot be believed, and mail past its retention stays."""


class Sweeper:
    """Does what is due, in a round every ``TICK_SECONDS``."""

    def __init__(
        self,
        online: OnlineStore,
        cold: ColdQueue,
        push: PushNotifier,
        migrator: Migrator,
        *,
        rules: Rules,
        retention_seconds: float,
        cold_works: Callable[[], bool],
        clock: Clock,
        keeper: Timekeeper,
        metrics: Metrics,
        reports: Reports,
    ) -> None:
        """``cold_works``: whether the last calls of this process to ``cold`` were answered."""
        self._online = online
        self._cold = cold
        self._settler = Settler(online, cold)
        self._push = push
        self._migrator = migrator
        self._rules = rules
        self._cold_works = cold_works
        self._clock = clock
        self._keeper = keeper
        self._retention = int(retention_seconds * MICROSECONDS)
        self._held_at: float | None = None
        """While retention waits: when it last looked (monotonic). Else ``None``."""
        self._metrics = metrics
        self._reports = reports
        self._rounds = 0
        self._failures: list[RouterError] = []
        self._looked_at: float | None = None
        """When the last search of cold for unreported messages came to its end (monotonic)."""

    def statistics(self) -> Statistics:
        return Statistics(self._rounds, len(self._failures), self._held_at is not None)

    def __repr__(self) -> str:
        return f"<Sweeper: {self.statistics()}>"

    async def run(self) -> None:
        """Sweep until cancelled; what fails in one round is done in the next."""
        while True:
            await self._clock.sleep(TICK_SECONDS)
            with suppress(RouterError):
                await self.sweep()

    async def sweep(self) -> None:
        """Do one round. A failure holds up nothing else; the first one is raised at the end."""
        self._failures.clear()
        for part in (
            self._expire_leases,
            self._check_users,
            self._expire_messages,
            self._delete_orphans,
            self._settle_unreported,
        ):
            with self._apart():
                await part()
        self._rounds += 1
        if self._failures:
            raise self._failures[0]

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Keep a failure in this block from the rest of the round; the next round tries again."""
        try:
            yield
        except RouterError as error:
            self._failures.append(error)
            # `core.dependencies` logs outages.
            if not isinstance(error, Unavailable):
                self._reports.bug("sweeping", error)

    async def _expire_leases(self) -> None:
        while users := await self._online.expire(PAGE_USERS):
            for user in users:
                await self._migrate(user)

    async def _migrate(self, user: str, *, online_too: bool = False) -> None:
        # Many failures are an outage: asking for each user adds nothing.
        if len(self._failures) < OUTAGE_FAILURES:
            with self._apart():
                await self._migrator.migrate(user, online_too=online_too)

    async def _check_users(self) -> None:
        after = ""
        while page := await self._online.hot_users(after, PAGE_USERS):
            now = self._clock.now()
            cold_works = self._cold_works()
            await self._do_due([(user, due(user, now, self._rules, cold_works=cold_works)) for user in page], now)
            if len(page) < PAGE_USERS:
                return
            after = page[-1].user

    async def _do_due(self, duties: Sequence[tuple[HotUser, Due]], now: int) -> None:
        with self._apart():
            await self._poke([user.user for user, duty in duties if duty.poke])
        for user, duty in duties:
            if duty.announce:
                with self._apart():
                    await self._announce(user.user, now)
            if duty.migrate:
                await self._migrate(user.user, online_too=user.live > 0)
        offline = [user.user for user, duty in duties if duty.stop_poking]
        if offline:
            await self._online.stop_poking(offline)

    async def _poke(self, users: list[str]) -> None:
        if users:
            await self._online.poke(users)
            self._metrics.poked("repeat", len(users))

    async def _announce(self, user: str, now: int) -> None:
        before = now - int(self._rules.push_after_seconds * MICROSECONDS)
        while messages := await self._online.unannounced(user, before, PAGE_MESSAGES):
            # A damaged message gets no push command; a fetch or a migration removes it.
            if whole := [queued.message for queued in messages if is_whole(queued.message)]:
                await self._push.publish(whole)
            await self._online.mark_announced(messages)
            self._metrics.pushed(len(whole))

    async def _expire_messages(self) -> None:
        dropped = await self._online.purge(PAGE_MESSAGES, self._keeper.deleting_at())
        if dropped:
            self._metrics.dropped("ephemeral-expired", dropped)
        if self._held_at is None or self._clock.monotonic() - self._held_at >= HELD_SECONDS:
            await self._retain()

    async def _retain(self) -> None:
        """Delete cold mail past its retention, as far as the clock can be believed (``may_delete``)."""
        at, agreed = self._keeper.deleting_at(), self._keeper.agreed_seconds
        if not may_delete(0, agreed):
            return
        before = at - self._retention
        while expired := await self._cold.expired(before, PAGE_MESSAGES):
            oldest_at = min(one.queued_at for one in expired)
            if not may_delete((before - oldest_at) / MICROSECONDS, agreed):
                # Then the clock cannot be believed for the rest of them either.
                self._hold(oldest_at, before)
                return
            # The store first: if this process dies in between, the next round finds the mail in cold again. In the
            # other order it would leave a record that nobody looks at.
            await self._online.forget_cold(expired)
            self._metrics.dropped("retention", len(await self._cold.expire(expired)))
        self._release()

    def _hold(self, oldest_at: int, before: int) -> None:
        if self._held_at is None:
            LOG.warning(
                "retention waits: mail seems to be overdue by days; either no sweeper ran for that time, or this "
                "machine's clock is ahead. Check the clock; after it has run evenly for a day, the mail is deleted",
                overdue_seconds=round((before - oldest_at) / MICROSECONDS),
            )
        self._held_at = self._clock.monotonic()
        self._metrics.retention_held(held=True)

    def _release(self) -> None:
        if self._held_at is not None:
            LOG.warning("retention deletes again what is past its time")
        self._held_at = None
        self._metrics.retention_held(held=False)

    async def _delete_orphans(self) -> None:
        ids: dict[str, list[str]] = {}
        for user, message_id in await self._online.orphans(PAGE_MESSAGES):
            ids.setdefault(user, []).append(message_id)
        for user, own in ids.items():
            # Each round begins with the same orphans; failures must not keep it from all that comes after.
            if len(self._failures) < OUTAGE_FAILURES:
                with self._apart():
                    await self._settler.delete_copies(user, own)

    async def _settle_unreported(self) -> None:
        """Settle what a pipeline wrote to cold without the online store, if the pipeline has not done so: it may have
        died, or be cut off. Settling deletes what was acknowledged, so that no copy outlives its record."""
        now = self._clock.now()
        if self._looked_at is not None and self._clock.monotonic() - self._looked_at < UNREPORTED_SECONDS:
            return
        unreported = await self._cold.unreported(now - UNREPORTED_SECONDS * MICROSECONDS, PAGE_MESSAGES)
        if unreported:
            # The store knows them now: clear `unreported`, and use the sequences that it returned.
            placed = await self._settler.settle(unreported)
            await self._cold.update_places([replace(queued, unreported=False) for queued in placed])
        if len(unreported) < PAGE_MESSAGES:
            self._looked_at = self._clock.monotonic()
