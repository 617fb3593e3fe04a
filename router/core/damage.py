"""Mail that is not what was accepted: it is never served, and never disappears without a word.

Whoever takes messages from a store checks them (``checked``). What is damaged in one tier and whole in the other is
served from there, and a damaged copy in cold is repaired. What is whole nowhere becomes the dead letter ``damaged``. A
damaged id or recipient names anything: that two rows are one message is said by their place, or by their checksum
(``merging.is_damaged_copy``).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from router.checksum import is_whole
from router.clock import Tasks
from router.core.merging import is_damaged_copy
from router.core.refusing import Refuser
from router.core.settling import Settler
from router.errors import RouterError, Unavailable
from router.interfaces import ColdQueue, OnlineStore, Place
from router.messages import DeadReason, Queued
from router.pages import LONGEST_PAGE, PAGE_BYTES

DETAIL = "it does not match the checksum that it was accepted with"
LOOK_BYTES = 1
"""The first message in a place is asked for, however large it is."""
TEND_SECONDS = 1.0
"""So long a fetch waits for what is damaged to leave the queue; the rest of the work goes on behind it."""
CALL_SECONDS = 15.0
"""Work that has not ended by then has failed, and the next fetch begins it anew."""
TENDED_USERS = 1000
"""Users whose damage is worked on at once."""
REMEMBERED = 10_000
"""Dead letters that are remembered, in case that their damaged rows cannot be removed."""


def checked(messages: list[Queued]) -> list[Queued]:
    """``messages``, with those marked that do not match their checksums; the same list where all do."""
    if all(is_whole(queued.message) for queued in messages):
        return messages
    return [queued if is_whole(queued.message) else replace(queued, damaged=True) for queued in messages]


class Found:
    """What one look at both tiers found damaged."""

    def __init__(self) -> None:
        self.hot: list[Queued] = []
        self.cold: list[Queued] = []

    @property
    def size(self) -> int:
        """Bytes of their envelopes."""
        return sum(len(queued.message.envelope) for queued in (*self.hot, *self.cold))

    def names(self) -> set[tuple[bool, str, int, int]]:
        """Each by its tier, id and place."""
        tiers = ((True, self.hot), (False, self.cold))
        return {(hot, queued.message.id, *queued.place) for hot, tier in tiers for queued in tier}

    def note_hot(self, messages: list[Queued]) -> list[Queued]:
        """``messages`` of the hot queue, checked."""
        return self._note(self.hot, messages)

    def note_cold(self, messages: list[Queued]) -> list[Queued]:
        """``messages`` of the cold queue, checked."""
        return self._note(self.cold, messages)

    def _note(self, tier: list[Queued], messages: list[Queued]) -> list[Queued]:
        marked = checked(messages)
        if marked is not messages:
            tier += [queued for queued in marked if queued.damaged]
        return marked


class Damage:
    """Removes what is damaged. Its state is what it has sent to the dead letters, and whose damage is worked on now."""

    def __init__(self, online: OnlineStore, cold: ColdQueue, refuser: Refuser, *, tasks: Tasks) -> None:
        self._online = online
        self._cold = cold
        self._settler = Settler(online, cold)
        self._refuser = refuser
        self._tasks = tasks
        self._tended: set[str] = set()
        """Users whose damage is worked on."""
        self._told: OrderedDict[tuple[str, str, int, int], None] = OrderedDict()

    async def tend(self, user: str, batch: Sequence[Queued], found: Found) -> bool:
        """Repair or remove what of ``found`` stands in ``batch``, or has a whole copy there. Returns whether all
        that is to leave the queue has left it; if not, somebody must fetch again.

        There are three cases, and in each a failure leaves all as it was, for the next fetch:
        (a) hot is damaged, cold is whole: the copy in cold is served in its place, and the hot one stays until it is
            acknowledged or moved;
        (b) cold is damaged, hot is whole: the copy in cold is written anew;
        (c) neither is whole: a dead letter. One whose id is also that of a whole message elsewhere in the batch waits:
            it may be a copy of that one, and goes with it.
        What is whole is served anyway, and soon: a fetch waits ``TEND_SECONDS``, and not for what another began.
        """
        if user in self._tended or len(self._tended) >= TENDED_USERS:
            return False
        whole = {queued.place: queued for queued in batch if not queued.damaged}
        ids = {queued.message.id for queued in whole.values()}
        left = {queued.place for queued in batch if queued.damaged and queued.message.id not in ids}
        mends = [whole[queued.place] for queued in found.cold if queued.place in whole]
        self._tended.add(user)
        work = self._tasks.spawn(self._work(user, mends, left, found), "damage")
        await asyncio.wait({work}, timeout=TEND_SECONDS)
        return not left

    async def _work(self, user: str, mends: Sequence[Queued], left: set[Place], found: Found) -> None:
        """Empties ``left``, the places of what is hopeless, as far as it can."""
        try:
            with suppress(RouterError, TimeoutError):
                async with asyncio.timeout(CALL_SECONDS):
                    if mends:
                        await self._cold.repair(user, mends)
            with suppress(RouterError, TimeoutError):
                async with asyncio.timeout(CALL_SECONDS):
                    await self._bury_all(user, left, found)
        finally:
            self._tended.discard(user)

    async def _bury_all(self, user: str, left: set[Place], found: Found) -> None:
        hopeless = frozenset(left)
        for queued in found.hot:
            if queued.place in hopeless and await self.copy_in_cold(user, queued) is None:
                await self.bury(user, queued, in_cold=False)
        for queued in found.cold:
            if queued.place in hopeless and not await self._mended(user, queued):
                await self.bury(user, queued, in_cold=True)
        left.clear()

    async def _mended(self, user: str, queued: Queued) -> bool:
        """Whether hot had a whole copy of ``queued``, at a later place than it, which is written over it then."""
        page = await self._online.read(user, LONGEST_PAGE, PAGE_BYTES, again=True)
        copies = [copy for copy in checked(page.messages) if is_damaged_copy(queued, copy)]
        await self._cold.repair(user, copies)
        return bool(copies)

    async def copy_in_cold(self, user: str, queued: Queued) -> Queued | None:
        """A whole copy of ``queued``, which is damaged in hot, if there is one: from here on at its place, or before
        it."""
        lane, sequence = queued.place
        page = await self._cold.read(user, 1, LOOK_BYTES, (lane, sequence - 1))
        for copy in checked(page.messages):
            if copy.place == queued.place and not copy.damaged:
                return copy
        # What came to cold while the online store could not be asked has another place there.
        for copy in checked(await self._cold.find(user, [queued.message.id], envelopes=True)):
            if is_damaged_copy(queued, copy):
                moved = replace(copy, sequence=min(copy.sequence, sequence))
                if await self._cold.put([moved]):
                    raise Unavailable("cannot keep the place of a damaged message in cold")
                return moved
        return None

    async def bury(self, user: str, queued: Queued, *, in_cold: bool) -> None:
        """Make ``queued`` a dead letter, then take it out of the queue; raises ``RouterError``."""
        name = (user, queued.message.id, *queued.place)
        if name not in self._told:
            await self._refuser.refuse(queued, DeadReason.DAMAGED, DETAIL)
            self._told[name] = None
            if len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
        owed = await self._online.discard(user, [queued])
        # In hot, a damaged id may be that of another message: that one stays.
        if in_cold:
            owed = list(dict.fromkeys([*owed, queued.message.id]))
            await self._settler.remember(user, owed)
        await self._settler.delete_copies(user, owed)
