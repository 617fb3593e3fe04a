"""What is in cold is told to the online store, and what its answer asks for is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import structs

from router.checksum import is_whole
from router.interfaces import ColdQueue, OnlineStore
from router.messages import Message, Queued


class Settler:
    """Pipelines and sweepers tell the online store of copies in cold; both have to act on what it says of them."""

    def __init__(self, online: OnlineStore, cold: ColdQueue, *, call_seconds: float | None = None) -> None:
        """``call_seconds``: how long each call may take; without it, as long as the store itself allows."""
        self._online = online
        self._cold = cold
        self._call_seconds = call_seconds

    async def settle(self, written: Sequence[Queued]) -> list[Queued]:
        """Returns those of ``written``, which are in cold, that stay there in the places that the store has on record.

        Copies of what was acknowledged meanwhile are deleted, so that none outlives the record of it; copies in a later
        place than the store's are moved to that. Raises ``Unavailable`` and ``TimeoutError``; to be repeated then.
        """
        if not written:
            return []
        async with asyncio.timeout(self._call_seconds):
            settled = await self._online.settle(written)
        open_ends = {queued.message.name for queued in (*settled.acked, *settled.misplaced)}
        placed = [queued for queued in written if queued.message.name not in open_ends]
        await self._delete(settled.acked)
        if settled.misplaced:
            # They stay marked until the store agrees, so that whoever dies in between leaves it to a sweeper.
            async with asyncio.timeout(self._call_seconds):
                marked = [structs.replace(queued, unreported=True) for queued in settled.misplaced]
                await self._cold.update_places(marked)
            placed += await self.settle(settled.misplaced)
        return placed

    async def free(self, user: str, id_: str, announce: Callable[[Sequence[Message]], Awaitable[None]]) -> None:
        """Nobody works on ``id_`` any more: where it is on its way to cold, readers wait for it no longer.

        A whole copy that cold has, in whichever place, came there before, and stays; ``announce`` publishes its push
        command, which may be owed. Raises like ``settle``.
        """
        async with asyncio.timeout(self._call_seconds):
            page = await self._online.read(user, 1, 1, again=True)
            if any(write.id == id_ for write in page.pending):
                found = await self._cold.find(user, [id_], envelopes=True)
                own = [copy for copy in found if is_whole(copy.message)]
                await announce([copy.message for copy in own])
                await (self.settle(own) if own else self.forget(user, id_))

    async def forget(self, user: str, id_: str) -> None:
        """``id_`` leaves the queue of ``user`` as if it were acknowledged. Raises like ``settle``."""
        async with asyncio.timeout(self._call_seconds):
            await self.delete_copies(user, await self._online.ack(user, [id_]))

    async def remember(self, user: str, owed: Sequence[str]) -> None:
        """Have the online store remember as acknowledged also what of ``owed`` was written to cold without it.

        Its pipeline has still to tell of it, or the ingress delivers it again: it would count as mail in cold then. Ids
        that are nowhere stay unknown. Raises ``Unavailable``; to be repeated then.
        """
        acked = await self._online.acked(user, owed)
        unknown = [id_ for id_ in owed if id_ not in acked]
        if unknown and (found := await self._cold.find(user, unknown)):
            await self._online.settle(found)
            await self._online.ack(user, [queued.message.id for queued in found])

    async def delete_copies(self, user: str, ids: Sequence[str]) -> None:
        """Delete from cold what the online store says may have a copy there and is acknowledged, and tell it so: until
        then they are orphans. Raises ``Unavailable``; a sweeper repeats it."""
        if ids:
            await self._cold.delete(user, ids)
            await self._online.forget_orphans(user, ids)

    async def _delete(self, acked: Sequence[Queued]) -> None:
        ids: dict[str, list[str]] = {}
        for queued in acked:
            ids.setdefault(queued.message.recipient, []).append(queued.message.id)
        # A time for each call: the repetition of a long round would take as long again.
        for user, own in ids.items():
            async with asyncio.timeout(self._call_seconds):
                await self.delete_copies(user, own)
