"""Damaged messages: the router never serves one, and never loses one silently.

All code that reads messages from a store checks them (``checked``). If a message is damaged in one tier and whole in
the other, the whole copy is served, and a damaged copy in cold is repaired. If no copy is whole, the message becomes
the dead letter ``damaged``.

A damaged id or recipient may name another message. So two rows count as one message only if they have the same place,
or the same id and checksum (``merging.is_damaged_copy``).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from router.checksum import is_whole
from router.clock import Tasks
from router.core.dead_letters import Refuser
from router.core.page_merge import is_damaged_copy
from router.core.settler import Settler
from router.dead_reasons import DeadReason
from router.errors import RouterError, Unavailable
from router.interfaces import ColdQueue, OnlineStore, Place
from router.messages import Queued
from router.pages import LONGEST_PAGE, PAGE_BYTES

DETAIL = "it does not match the checksum that it was accepted with"
LOOK_BYTES = 1
"""Bound of a read that wants one message: a page holds its first message whatever its size."""
REPAIR_SECONDS = 1.0
"""How long a fetch waits for damaged messages to leave the queue; the work continues in the background."""
CALL_SECONDS = 15.0
"""Time-out of that work; the next fetch starts it again."""
REPAIRED_USERS = 1000
"""Users whose damage is worked on at the same time."""
REMEMBERED = 10_000
"""Dead letters to remember, so that a row that could not be removed becomes a dead letter only once."""


def checked(messages: list[Queued]) -> list[Queued]:
    """``messages``, those that do not match their checksums marked as damaged; the same list if all match."""
    if all(is_whole(queued.message) for queued in messages):
        return messages
    return [queued if is_whole(queued.message) else replace(queued, damaged=True) for queued in messages]


class Found:
    """The damaged messages that one look at both tiers found."""

    def __init__(self) -> None:
        self.hot: list[Queued] = []
        self.cold: list[Queued] = []

    @property
    def size(self) -> int:
        """Bytes of their envelopes together."""
        return sum(len(queued.message.envelope) for queued in (*self.hot, *self.cold))

    def names(self) -> set[tuple[bool, str, int, int]]:
        """(whether it is in hot, id, lane, sequence) of each."""
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
    """Repairs or removes damaged messages. Its state: the dead letters it has published, and the users it works on."""

    def __init__(self, online: OnlineStore, cold: ColdQueue, refuser: Refuser, *, tasks: Tasks) -> None:
        self._online = online
        self._cold = cold
        self._settler = Settler(online, cold)
        self._refuser = refuser
        self._tasks = tasks
        self._in_repair: set[str] = set()
        """Users whose damage is worked on now."""
        self._buried: OrderedDict[tuple[str, str, int, int], None] = OrderedDict()
        """(user, id, lane, sequence) of messages that became dead letters."""

    async def repair_or_remove(self, user: str, batch: Sequence[Queued], found: Found) -> bool:
        """Repair or remove the messages of ``found`` that stand in ``batch``, or whose places whole copies have there.
        Returns whether all that have to leave the queue have left it; if not, the user must fetch again.

        There are three cases. In each, a failure changes nothing, and the next fetch tries again:

        1. Hot is damaged, cold is whole: the fetch serves the copy in cold. The one in hot stays until it is
           acknowledged or moved.
        2. Cold is damaged, hot is whole: the copy in cold is overwritten.
        3. Neither is whole: the message becomes a dead letter. But if a whole message elsewhere in the batch has the
           same id, the damaged one may be its copy: it stays, and goes when that one is acknowledged.

        Whole messages do not wait for this: the call returns after ``REPAIR_SECONDS`` at the latest, and at once if an
        earlier fetch of the user has started the work, or too many users' damage is worked on.
        """
        if user in self._in_repair or len(self._in_repair) >= REPAIRED_USERS:
            return False
        whole = {queued.place: queued for queued in batch if not queued.damaged}
        ids = {queued.message.id for queued in whole.values()}
        left = {queued.place for queued in batch if queued.damaged and queued.message.id not in ids}
        repairs = [whole[queued.place] for queued in found.cold if queued.place in whole]
        self._in_repair.add(user)
        work = self._tasks.spawn(self._work(user, repairs, left, found), "damage")
        await asyncio.wait({work}, timeout=REPAIR_SECONDS)
        return not left

    async def _work(self, user: str, repairs: Sequence[Queued], left: set[Place], found: Found) -> None:
        """Write ``repairs`` to cold, and remove the messages at the places in ``left``. Empties ``left`` once all of
        them are gone."""
        try:
            with suppress(RouterError, TimeoutError):
                async with asyncio.timeout(CALL_SECONDS):
                    if repairs:
                        await self._cold.repair(user, repairs)
            with suppress(RouterError, TimeoutError):
                async with asyncio.timeout(CALL_SECONDS):
                    await self._bury_all(user, left, found)
        finally:
            self._in_repair.discard(user)

    async def _bury_all(self, user: str, left: set[Place], found: Found) -> None:
        hopeless = frozenset(left)
        for queued in found.hot:
            if queued.place in hopeless and await self.copy_in_cold(user, queued) is None:
                await self.bury(user, queued, in_cold=False)
        for queued in found.cold:
            if queued.place in hopeless and not await self._repaired(user, queued):
                await self.bury(user, queued, in_cold=True)
        left.clear()

    async def _repaired(self, user: str, queued: Queued) -> bool:
        """Whether hot has a whole copy of ``queued`` (at a later place); then it overwrites ``queued`` with that."""
        page = await self._online.read(user, LONGEST_PAGE, PAGE_BYTES, again=True)
        copies = [copy for copy in checked(page.messages) if is_damaged_copy(queued, copy)]
        await self._cold.repair(user, copies)
        return bool(copies)

    async def copy_in_cold(self, user: str, queued: Queued) -> Queued | None:
        """The whole copy in cold of ``queued``, which is damaged in hot; ``None`` if there is none. A copy behind the
        place of ``queued`` is moved to it. Raises ``Unavailable``."""
        lane, sequence = queued.place
        page = await self._cold.read(user, 1, LOOK_BYTES, (lane, sequence - 1))
        for copy in checked(page.messages):
            if copy.place == queued.place and not copy.damaged:
                return copy
        # A pipeline that could not reach the online store wrote it with another sequence.
        for copy in checked(await self._cold.find(user, [queued.message.id], envelopes=True)):
            if is_damaged_copy(queued, copy):
                moved = replace(copy, sequence=min(copy.sequence, sequence))
                if await self._cold.put([moved]):
                    raise Unavailable("cannot keep the place of a damaged message in cold")
                return moved
        return None

    async def bury(self, user: str, queued: Queued, *, in_cold: bool) -> None:
        """Make ``queued`` a dead letter, then take it out of the queue. Raises ``RouterError``."""
        name = (user, queued.message.id, *queued.place)
        if name not in self._buried:
            await self._refuser.refuse(queued, DeadReason.DAMAGED, DETAIL)
            self._buried[name] = None
            if len(self._buried) > REMEMBERED:
                self._buried.popitem(last=False)
        owed = await self._online.discard(user, [queued])
        # Not for a message in hot: its damaged id may be that of another message in cold, which stays.
        if in_cold:
            owed = list(dict.fromkeys([*owed, queued.message.id]))
            await self._settler.remember(user, owed)
        await self._settler.delete_copies(user, owed)
