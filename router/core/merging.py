"""One batch out of two tiers. Pure functions; the reads are in ``queue``.

The rules (docs/specification.md#order): each id once, in order of (lane, sequence); nothing that was acknowledged;
nothing that stands in its lane behind a message which exists but was not seen; of what is left, a page
(docs/specification.md#pages).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from router.checksum import NEVER
from router.messages import ColdPage, HotPage, Lane, Pending, Queued
from router.pages import cut


def merge(hot: HotPage, cold: ColdPage, acked: Collection[str], limit: int, max_bytes: int) -> list[Queued]:
    """The batch that ``hot``, which was read first, and ``cold`` together justify.

    ``acked``: ids in ``cold`` that the user has acknowledged; a copy there can outlive the acknowledgement. Of several
    copies the first place counts, also where the copy there is damaged. What is damaged stands in the batch where no
    whole copy has its place.
    """
    found = [*_placed(cold.messages, hot.pending), *hot.messages]
    best = _whole(found)
    horizon = _horizon(hot, cold)
    unseen = _first_unseen(hot.pending, {*(queued.message.id for queued in found), *acked})
    batch = [
        message
        for message in sorted((*best.values(), *_hopeless(found, best)), key=lambda queued: queued.place)
        if message.message.id not in acked
        and message.sequence <= horizon.get(message.message.lane, message.sequence)
        and message.sequence < unseen.get(message.message.lane, message.sequence + 1)
    ]
    return cut(batch, limit, max_bytes)


def _whole(found: Sequence[Queued]) -> dict[str, Queued]:
    """A whole copy of each id, at the first place that one of its copies has."""
    best: dict[str, Queued] = {}
    for message in found:
        known = best.get(message.message.id)
        if not message.damaged and (known is None or message.sequence < known.sequence):
            best[message.message.id] = message
    for message in found:
        known = best.get(message.message.id)
        if known is not None and message.sequence < known.sequence and is_damaged_copy(message, known):
            best[message.message.id] = msgspec.structs.replace(known, sequence=message.sequence)
    return best


def is_damaged_copy(damaged: Queued, whole: Queued) -> bool:
    """Whether ``damaged`` was a copy of ``whole``. An id alone does not say so, since it may be what is damaged; with
    it the checksum does, or that nothing else could be read."""
    return (
        damaged.damaged
        and not whole.damaged
        and (damaged.message.id, damaged.message.lane) == (whole.message.id, whole.message.lane)
        and damaged.message.checksum in (whole.message.checksum, NEVER)
    )


def _hopeless(found: Sequence[Queued], best: Mapping[str, Queued]) -> Iterable[Queued]:
    """The damaged ones whose places no whole one has, one of each place."""
    damaged = {queued.place: queued for queued in found if queued.damaged}
    for queued in best.values() if damaged else ():
        damaged.pop(queued.place, None)
    return damaged.values()


def shows_all(batch: Sequence[Queued], hot: HotPage, cold: ColdPage, acked: Collection[str]) -> bool:
    """Whether ``batch``, merged from these, leaves nothing out that is there."""
    if hot.more or cold.more:
        return False
    ids = {queued.message.id for queued in batch}
    places = {queued.place for queued in batch}
    there = (queued for queued in (*hot.messages, *cold.messages) if queued.message.id not in acked)
    return all(queued.message.id in ids or (queued.damaged and queued.place in places) for queued in there)


def within(batch: Iterable[Queued], seen: Iterable[Queued]) -> list[Queued]:
    """What of ``batch`` stands no later in its lane than the last of ``seen``."""
    last = _last(seen)
    return [queued for queued in batch if queued.sequence <= last.get(queued.message.lane, -1)]


def passes_over(batch: Sequence[Queued], later: HotPage) -> bool:
    """Whether ``later``, read after ``batch`` was, has a message that is not in it before the last one of its lane, or
    may have one, since it ends before that."""
    last = _last(batch)
    seen = _last(later.messages)
    if any(seen.get(lane, -1) < last.get(lane, -1) for lane in later.more):
        return True
    known = {queued.message.id for queued in batch}
    return any(
        queued.message.id not in known and queued.sequence < last.get(queued.message.lane, -1)
        for queued in later.messages
    )


def _last(seen: Iterable[Queued]) -> dict[Lane, int]:
    """By lane, the highest sequence."""
    last: dict[Lane, int] = {}
    for queued in seen:
        last[queued.message.lane] = max(last.get(queued.message.lane, 0), queued.sequence)
    return last


def _placed(messages: Sequence[Queued], pending: Sequence[Pending]) -> Sequence[Queued]:
    """``messages`` of cold at the places that they are to have there, where they were written without the store."""
    if not pending:
        return messages
    places = {write.id: write.sequence for write in pending}
    return [
        msgspec.structs.replace(queued, sequence=min(queued.sequence, places.get(queued.message.id, queued.sequence)))
        for queued in messages
    ]


def _horizon(hot: HotPage, cold: ColdPage) -> dict[Lane, int]:
    """By lane that is longer than what was read of it, the last sequence up to which both tiers were read in full;
    behind it, one may hide an earlier message."""
    ends: dict[Lane, int] = {}
    for page in (hot, cold):
        last = _last(page.messages)
        for lane in page.more:
            end = last.get(lane, -1)
            ends[lane] = min(ends.get(lane, end), end)
    return ends


def _first_unseen(pending: Iterable[Pending], seen: Collection[str]) -> dict[int, int]:
    """By lane, the lowest sequence whose cold write was under way and whose message was not found."""
    unseen: dict[int, int] = {}
    for write in pending:
        if write.id not in seen:
            unseen[write.lane] = min(unseen.get(write.lane, write.sequence), write.sequence)
    return unseen
