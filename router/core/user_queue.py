"""One queue for each user, made of hot and cold: fetch, acknowledge, migrate."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from router.clock import Clock
from router.core.damage import Found
from router.core.migrator import Migrated, Migrator
from router.core.page_merge import has_left, merge, passes_over, shows_all, within
from router.core.settler import Settler
from router.interfaces import ColdQueue, OnlineStore, Place
from router.messages import ColdPage, HotPage, Lane, Queued
from router.metrics import Metrics
from router.pages import PAGE_BYTES, PART, cut, share


class Bounds(NamedTuple):
    """The most that one page may hold."""

    messages: int
    bytes: int


class _Batch(NamedTuple):
    """A page made of one read of hot and of cold."""

    messages: list[Queued]
    gone: set[str]
    """Ids that the page leaves out because they are acknowledged."""
    ended: bool
    """The page leaves nothing else out: it reaches the end of the queue."""


class _Cold:
    """What a fetch has read of cold.

    Cold may still have copies of acknowledged messages. They must not take the places of others, so the fetch reads
    more of a lane that they have thinned out.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.read: dict[str, Queued] = {}
        self.acked: set[str] = set()
        self._more: set[Lane] = set()
        self._new: dict[Lane, list[Queued]] = {}
        """By lane: the messages that its last read added."""
        self._gaps: dict[Lane, bool] = {}
        """By lane: whether acknowledged messages of any lane took places in its last read."""

    def take(self, messages: list[Queued], acked: set[str], more: Collection[Lane], lanes: Iterable[Lane]) -> None:
        """Add ``messages``, a read of ``lanes``; cold has more of the lanes in ``more``."""
        new = [one for one in messages if one.message.id not in self.read]
        gaps = not acked.isdisjoint(one.message.id for one in new)
        for lane in lanes:
            self._new[lane], self._gaps[lane] = [one for one in new if one.message.lane is lane], gaps
            (self._more.add if lane in more else self._more.discard)(lane)
        self.acked |= acked
        self.read |= {queued.message.id: queued for queued in messages}

    def is_thinned(self, lane: Lane) -> bool:
        """Whether to read more of ``lane``: cold has more, acknowledged copies took places, and the page has room."""
        new = self._new[lane]
        known = any(queued.message.lane is lane for queued in self.read.values())
        if not known or lane not in self._more or (new and not self._gaps[lane]):
            return False
        kept = self._kept()
        express = sum(queued.message.lane is Lane.EXPRESS for queued in kept)
        if lane is Lane.EXPRESS:
            return express < self.bounds.messages
        return len(kept) - express < max(share(self.bounds.messages), self.bounds.messages - express)

    def end(self, lane: Lane) -> tuple[Place, int]:
        """The place behind which to read on in ``lane``, and how many of the next messages are known already.

        Two messages may have the same place if one of them came to cold in an outage. So the next read begins with the
        messages at the last place, which are then read twice.
        """
        places = [queued.place for queued in self.read.values() if queued.message.lane is lane]
        sequence = max(sequence for _, sequence in places)
        ties = places.count((lane, sequence)) if self._new[lane] else 0
        return (lane, sequence - 1 if ties else sequence), ties

    def page(self) -> ColdPage:
        return ColdPage(self._kept(), frozenset(self._more))

    def _kept(self) -> list[Queued]:
        return [queued for id_, queued in self.read.items() if id_ not in self.acked]


class CompositeMessageQueue:
    """Fetch, acknowledge and migrate over both tiers. Every method raises ``Unavailable``.

    For a user whose cold queue is known to be empty, a fetch and an acknowledgement call the online store only.
    """

    def __init__(
        self, online: OnlineStore, cold: ColdQueue, migrator: Migrator, *, clock: Clock, metrics: Metrics
    ) -> None:
        self._online = online
        self._cold = cold
        self._settler = Settler(online, cold)
        self._migrator = migrator
        self._damage = migrator.damage
        self._clock = clock
        self._metrics = metrics

    async def fetch(self, user: str, limit: int) -> list[Queued]:
        """A page of at most ``limit`` messages (docs/specification.md#pages). It removes and hides nothing except
        damaged messages."""
        hot = await self._online.read(user, limit, PAGE_BYTES)
        return await self._page(user, limit, hot)

    async def next(self, user: str, ids: Sequence[str], limit: int) -> list[Queued]:
        """``acknowledge`` and then ``fetch``: a page without ``ids``, in fewer exchanges with the online store.

        When it fails, some of ``ids`` may be acknowledged, and the page is there for the next fetch.
        """
        unique = list(dict.fromkeys(ids))
        if not unique:
            return await self.fetch(user, limit)
        owed, hot = await self._online.ack_and_read(user, unique, limit, PAGE_BYTES)
        await self._end(user, unique, owed)
        return await self._page(user, limit, hot)

    async def _page(self, user: str, limit: int, first: HotPage) -> list[Queued]:
        """The page of a fetch that has read ``first`` of hot.

        Each round makes a page and hands new damage to ``Damage.repair_or_remove``. The last round is the one that
        finds no new damage.
        """
        handled: set[tuple[bool, str, int, int]] = set()
        removed = True
        bounds, hot = Bounds(limit, PAGE_BYTES), first
        while True:
            found = Found()
            batch, ended = await self._look(user, _checked(hot, found), bounds, found)
            if found.names() <= handled:
                break
            removed = await self._damage.repair_or_remove(user, batch, found)
            handled |= found.names()
            # Damaged messages that cannot be removed take no place from others, in either lane.
            bounds = Bounds(limit + PART * len(found.names()), PAGE_BYTES + PART * found.size)
            hot = await self._online.read(user, *bounds, again=True)
        if handled:
            intact = [queued for queued in batch if not queued.damaged]
            batch = cut(intact, limit, PAGE_BYTES)
            ended = ended and removed and len(batch) == len(intact)
        await self._note(user, first, ended=ended, damage_left=not removed)
        self._metrics.fetched([queued.message.accepted_at for queued in batch], self._clock.now())
        return batch

    async def _note(self, user: str, first: HotPage, *, ended: bool, damage_left: bool) -> None:
        """Tell the store whether this fetch reached the end, so that it pokes again for mail that the page leaves out.

        Mail that came after ``first`` needs no note: it brings its own poke. ``damage_left``: damaged messages are
        still in the queue, and another fetch has to follow.
        """
        if ended and first.cut_at:
            await self._online.note_end(user, first.cut_at)
        elif (first.online or damage_left) and not (ended or first.cut_at):
            await self._online.note_cut(user)

    async def _look(self, user: str, hot: HotPage, bounds: Bounds, found: Found) -> tuple[list[Queued], bool]:
        """One page with its damaged messages, and whether it reaches the end of the queue. ``hot`` was read for it.

        Hot is read before cold, since messages move from hot to cold: a message that moves between the two reads is
        seen in both, and never missed. But two messages may be routed between the reads, the first to hot, where this
        fetch no longer sees it, and the second to cold, where it does. The second must not overtake the first. So after
        each round there are these cases:

        1. The page is all of ``hot``, and cold is empty: return it.
        2. Another device has acknowledged messages of ``hot`` meanwhile, and the page has room for more of hot
           (``thinned``): messages behind them belong into the page, so read again.
        3. The page holds nothing but messages of ``hot``, at their places there: nothing in it can overtake. Return it.
        4. The page holds cold mail, or a place of cold. Read hot once more. If cold has not changed since the first
           read, and hot has nothing that the page passes over and still has what the page took from it: return it.
        5. Else make a new page of the second read. It holds every predecessor of what the first page held, so cut it
           off where the first page ended: later messages may have predecessors of their own. If it still holds all of
           the first page, return it.
        6. Else another device has acknowledged a part of the first page meanwhile. The messages behind that part may
           belong into the page: next round.
        """
        limit = bounds.messages
        batch, gone, ended = await self._batch(user, hot, bounds, found)
        while batch is not hot.messages:
            thinned = not gone.isdisjoint(_ids(hot.messages)) and _has_room(batch, limit, hot.more)
            if not thinned and _standing(batch) <= _standing(hot.messages):
                break
            later = _checked(await self._online.read(user, *bounds, again=True), found)
            # The version alone does not do: mail that a pipeline wrote to cold without the store has not changed it.
            changed = later.cold_version != hot.cold_version or has_left(batch, hot, later)
            if not (thinned or changed or passes_over(batch, later)):
                break
            seen, hot = batch, later
            batch, gone, ended = await self._batch(user, later, bounds, found)
            shown = within(batch, seen)
            if not thinned and _ids(seen) <= _ids(shown):
                return shown, ended and len(shown) == len(batch)
        return batch, ended

    async def _batch(self, user: str, hot: HotPage, bounds: Bounds, found: Found) -> _Batch:
        if hot.cold_empty:
            batch = cut(hot.messages, *bounds)
            return _Batch(batch, set(), not hot.more and batch is hot.messages)
        return await self._with_cold(user, hot, bounds, found)

    async def _with_cold(self, user: str, hot: HotPage, bounds: Bounds, found: Found) -> _Batch:
        cold = _Cold(bounds)
        await self._read_cold(user, cold, found, under_way=[write.id for write in hot.pending])
        if not cold.read and not hot.pending:
            await self._online.note_cold_empty(user, hot.cold_version)
        for lane in Lane:
            while cold.is_thinned(lane):
                await self._read_cold(user, cold, found, lane=lane)
        page = cold.page()
        batch = merge(hot, page, cold.acked, *bounds)
        return _Batch(batch, cold.acked, shows_all(batch, hot, page, cold.acked))

    async def _read_cold(
        self, user: str, cold: _Cold, found: Found, *, lane: Lane | None = None, under_way: Sequence[str] = ()
    ) -> None:
        """Read the heads of both lanes, or the next part of one ``lane``."""
        after, ties = (None, 0) if lane is None else cold.end(lane)
        page = await self._cold.read(user, cold.bounds.messages + ties, cold.bounds.bytes, after)
        messages = found.note_cold([queued for queued in page.messages if lane in (None, queued.message.lane)])
        ids = [queued.message.id for queued in messages if queued.message.id not in cold.read]
        # Ask after the cold read, so that every acknowledgement that was answered before this fetch began counts.
        # Ask for pending messages too: one that was acknowledged since must not hold back those behind it.
        acked = await self._online.acked(user, ids, under_way) if ids or under_way else set[str]()
        cold.take(messages, acked, page.more, Lane if lane is None else (lane,))

    async def acknowledge(self, user: str, ids: Sequence[str]) -> None:
        """Delete ``ids`` of this user, at most ``MOST_IDS``, from both tiers; ids that they do not have are ignored.

        The online store remembers the acknowledgement first. From then on no fetch serves a copy that cold still has.
        """
        unique = list(dict.fromkeys(ids))
        if not unique:
            return
        owed = await self._online.ack(user, unique)
        await self._end(user, unique, owed)

    async def _end(self, user: str, acked: Sequence[str], owed: Sequence[str]) -> None:
        """The online store has acknowledged ``acked``, and cold may have copies of ``owed``."""
        if owed:
            await self._settler.remember(user, owed)
            await self._settler.delete_copies(user, owed)
        self._metrics.acknowledged(acked, self._clock.now())

    async def migrate_hot_to_cold(
        self, user: str, *, online_too: bool = False, progress: Callable[[int], None] | None = None
    ) -> Migrated:
        """Move all hot mail of ``user`` to cold; see ``Migrator.migrate``."""
        return await self._migrator.migrate(user, online_too=online_too, progress=progress)


def _checked(page: HotPage, found: Found) -> HotPage:
    """``page``, with its damaged messages marked and added to ``found``."""
    marked = found.note_hot(page.messages)
    if marked is page.messages:
        return page
    # Cold may have whole copies of hot messages even if it counts as empty.
    return replace(page, messages=marked, cold_empty=False)


def _has_room(batch: Sequence[Queued], limit: int, more: Collection[Lane]) -> bool:
    """Whether ``batch`` could hold some of ``more``: it has places left, or express mail has those of normal mail."""
    if Lane.NORMAL not in more:
        return bool(more) and len(batch) < limit
    return len(batch) < limit or sum(queued.message.lane is Lane.NORMAL for queued in batch) < share(limit)


def _ids(batch: Sequence[Queued]) -> set[str]:
    return {queued.message.id for queued in batch}


def _standing(batch: Sequence[Queued]) -> set[tuple[str, int]]:
    return {(queued.message.id, queued.sequence) for queued in batch}
