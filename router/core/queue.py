"""The one face of hot and cold: what a user's queue looks like from outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from router.core.damage import Found
from router.core.merging import merge, passes_over, shows_all, within
from router.core.migrating import Migrated, Migrator
from router.core.settling import Settler
from router.interfaces import ColdQueue, OnlineStore, Place
from router.messages import ColdPage, HotPage, Lane, Queued
from router.metrics import Metrics
from router.pages import PAGE_BYTES, PART, cut, share


class Bounds(NamedTuple):
    """Of one page."""

    messages: int
    bytes: int


class _Batch(NamedTuple):
    """What hot and cold justify."""

    messages: list[Queued]
    gone: set[str]
    """The ids that were left out since they are acknowledged."""
    ended: bool
    """Nothing else was left out: it comes to the end of the queue."""


class _Cold:
    """What a fetch has read of cold.

    Copies of acknowledged messages that are still there must not take the places of others: of a lane that they have
    thinned out, more is read.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.read: dict[str, Queued] = {}
        self.acked: set[str] = set()
        self._more: set[Lane] = set()
        self._new: dict[Lane, list[Queued]] = {}
        """By lane, what the last read of it has added."""
        self._gaps: dict[Lane, bool] = {}
        """By lane, whether acknowledged ones, of whichever lane, took places in that read."""

    def take(self, messages: list[Queued], acked: set[str], more: Collection[Lane], lanes: Iterable[Lane]) -> None:
        """``messages`` of these ``lanes`` were read, and of ``more`` there are more."""
        new = [one for one in messages if one.message.id not in self.read]
        gaps = not acked.isdisjoint(one.message.id for one in new)
        for lane in lanes:
            self._new[lane], self._gaps[lane] = [one for one in new if one.message.lane is lane], gaps
            (self._more.add if lane in more else self._more.discard)(lane)
        self.acked |= acked
        self.read |= {queued.message.id: queued for queued in messages}

    def is_thinned(self, lane: Lane) -> bool:
        """Whether more of ``lane`` is to be read."""
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
        """Behind which place ``lane`` is to be read on, and how many there are known already.

        Two that came to cold by different ways may have one place: those at the last one are read once more.
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
    """Fetch, acknowledge and migrate over both tiers.

    For a user whose cold queue is known to be empty, a fetch and an acknowledgement touch the online store only.
    Every method raises ``Unavailable``.
    """

    def __init__(self, online: OnlineStore, cold: ColdQueue, migrator: Migrator, metrics: Metrics) -> None:
        self._online = online
        self._cold = cold
        self._settler = Settler(online, cold)
        self._migrator = migrator
        self._damage = migrator.damage
        self._metrics = metrics

    async def fetch(self, user: str, limit: int) -> list[Queued]:
        """A page of ``limit`` places (docs/specification.md#pages); nothing is removed or hidden but what is damaged.

        Hot, the tier that messages leave, is read before cold, to which they move: so nothing is missed between. What
        was routed after the first read and came to cold before the second may have left a predecessor in hot. A second
        look finds every predecessor of what the first one saw, and the batch goes no further than that. Where another
        device has acknowledged of it meanwhile, what stands behind was there before and may not be missing: one more
        look.
        """
        seen: set[tuple[bool, str, int, int]] = set()
        found, first, done = Found(), None, True
        while True:
            # What is damaged and cannot be removed takes no place from others, whichever lane it is in.
            bounds = Bounds(limit + PART * len(found.names()), PAGE_BYTES + PART * found.size)
            found = Found()
            hot = await self._read_hot(user, bounds, found, again=first is not None)
            first = first or hot
            batch, ended = await self._look(user, hot, bounds, found)
            if found.names() <= seen:
                break
            done = await self._damage.tend(user, batch, found)
            seen |= found.names()
        if seen:
            intact = [queued for queued in batch if not queued.damaged]
            batch = cut(intact, limit, PAGE_BYTES)
            ended = ended and done and len(batch) == len(intact)
        await self._note(user, first, ended=ended, left=not done)
        self._metrics.fetched(len(batch))
        return batch

    async def _note(self, user: str, first: HotPage, *, ended: bool, left: bool) -> None:
        """What this fetch could not see is poked for; what it has left out nobody would tell of.

        ``left``: that is also what is damaged, which has still to go.
        """
        if ended and first.cut_at:
            await self._online.note_end(user, first.cut_at)
        elif (first.online or left) and not (ended or first.cut_at):
            await self._online.note_cut(user)

    async def _look(self, user: str, hot: HotPage, bounds: Bounds, found: Found) -> tuple[list[Queued], bool]:
        """One batch, with what is damaged in it, and whether it comes to the end. ``hot`` was read for it."""
        limit = bounds.messages
        batch, gone, ended = await self._batch(user, hot, bounds, found)
        while batch is not hot.messages:
            thinned = hot.more and len(batch) < limit and not gone.isdisjoint(_ids(hot.messages))
            if not thinned and _ids(batch) <= _ids(hot.messages):
                break
            later = await self._read_hot(user, bounds, found, again=True)
            # What went to cold while the store could not be asked has changed no version.
            if not thinned and later.cold_version == hot.cold_version and not passes_over(batch, later):
                break
            seen, hot = batch, later
            batch, gone, ended = await self._batch(user, later, bounds, found)
            shown = within(batch, seen)
            if not thinned and _ids(seen) <= _ids(shown):
                return shown, ended and len(shown) == len(batch)
        return batch, ended

    async def _read_hot(self, user: str, bounds: Bounds, found: Found, *, again: bool) -> HotPage:
        page = await self._online.read(user, bounds.messages, bounds.bytes, again=again)
        marked = found.note_hot(page.messages)
        if marked is page.messages:
            return page
        # Cold may have copies of what is hot, also where it has nothing else.
        return replace(page, messages=marked, cold_empty=False)

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
        """The heads of both lanes, or the next of one ``lane``."""
        after, ties = (None, 0) if lane is None else cold.end(lane)
        page = await self._cold.read(user, cold.bounds.messages + ties, cold.bounds.bytes, after)
        messages = found.note_cold([queued for queued in page.messages if lane in (None, queued.message.lane)])
        ids = [queued.message.id for queued in messages if queued.message.id not in cold.read]
        # Asked after the cold read: whoever acknowledged before this fetch began is honoured in it.
        # So is what was on its way to cold: acknowledged and deleted since, it must not hold up what is behind it.
        acked = await self._online.acked(user, [*ids, *under_way]) if ids or under_way else set[str]()
        cold.take(messages, acked, page.more, Lane if lane is None else (lane,))

    async def acknowledge(self, user: str, ids: Sequence[str]) -> None:
        """Delete ``ids`` of this user, ``MOST_IDS`` at most, from whichever queue holds them; ids that are not theirs
        are ignored.

        The online store remembers first: from then on no copy is served, wherever one may still be.
        """
        unique = list(dict.fromkeys(ids))
        if not unique:
            return
        owed = await self._online.ack(user, unique)
        if owed:
            await self._settler.remember(user, owed)
            await self._settler.delete_copies(user, owed)
        self._metrics.acknowledged(len(unique))

    async def migrate_hot_to_cold(
        self, user: str, *, online_too: bool = False, progress: Callable[[int], None] | None = None
    ) -> Migrated:
        """Move all that is hot of ``user`` to cold; see ``Migrator.migrate``."""
        return await self._migrator.migrate(user, online_too=online_too, progress=progress)


def _ids(batch: Sequence[Queued]) -> set[str]:
    return {queued.message.id for queued in batch}
