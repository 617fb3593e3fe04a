"""Merges what was read of hot and of cold into one page. Pure functions; ``queue`` does the reads.

The page holds each id once, in order of (lane, sequence). It leaves out acknowledged messages, and in each lane all
behind a message that exists but was not read (docs/specification.md#order, docs/specification.md#pages).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from router.checksum import NEVER
from router.messages import ColdPage, HotPage, Lane, Pending, Queued
from router.pages import cut


def merge(hot: HotPage, cold: ColdPage, acked: Collection[str], limit: int, max_bytes: int) -> list[Queued]:
    """The page of ``hot``, which was read first, and ``cold``.

    ``acked``: ids in ``cold`` that the user has acknowledged; a copy there can outlive the acknowledgement. A message
    with several copies stands at the lowest of their places, even if the copy there is damaged. A damaged message is in
    the page only if no whole copy stands at its place.
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
    """By id: a whole copy, at the lowest place of all its copies."""
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
    """Whether ``damaged`` is a damaged copy of ``whole``. The same id is not enough, since the id may be what is
    damaged: the checksums must match too, unless ``damaged`` could not be read at all (``NEVER``)."""
    return (
        damaged.damaged
        and not whole.damaged
        and (damaged.message.id, damaged.message.lane) == (whole.message.id, whole.message.lane)
        and damaged.message.checksum in (whole.message.checksum, NEVER)
    )


def _hopeless(found: Sequence[Queued], best: Mapping[str, Queued]) -> Iterable[Queued]:
    """The damaged messages at places where no whole message stands, one for each place."""
    damaged = {queued.place: queued for queued in found if queued.damaged}
    for queued in best.values() if damaged else ():
        damaged.pop(queued.place, None)
    return damaged.values()


def shows_all(batch: Sequence[Queued], hot: HotPage, cold: ColdPage, acked: Collection[str]) -> bool:
    """Whether ``batch``, merged from these, leaves no message out."""
    if hot.more or cold.more:
        return False
    ids = {queued.message.id for queued in batch}
    places = {queued.place for queued in batch}
    there = (queued for queued in (*hot.messages, *cold.messages) if queued.message.id not in acked)
    return all(queued.message.id in ids or (queued.damaged and queued.place in places) for queued in there)


def within(batch: Iterable[Queued], seen: Iterable[Queued]) -> list[Queued]:
    """``batch`` without messages that stand in their lane behind the last one of ``seen``."""
    last = _last(seen)
    return [queued for queued in batch if queued.sequence <= last.get(queued.message.lane, -1)]


def passes_over(batch: Sequence[Queued], later: HotPage) -> bool:
    """Whether ``batch`` may pass over a message of ``later``, a read of hot after it: ``later`` has a message that
    ``batch`` lacks, in front of the last one of its lane; or ``later`` ends before that place and hot has more."""
    last = _last(batch)
    seen = _last(later.messages)
    if any(seen.get(lane, -1) < last.get(lane, -1) for lane in later.more):
        return True
    known = {queued.message.id for queued in batch}
    return any(
        queued.message.id not in known and queued.sequence < last.get(queued.message.lane, -1)
        for queued in later.messages
    )


def has_left(batch: Iterable[Queued], hot: HotPage, later: HotPage) -> bool:
    """Whether a message that ``batch`` has from ``hot`` is no longer in hot by ``later``, a read after it: another
    device has acknowledged it, or it has moved. Then ``batch`` may have missed its copy in cold, whose place counts
    among other mail of cold."""
    gone = {queued.message.id for queued in hot.messages} - {queued.message.id for queued in later.messages}
    return any(queued.message.id in gone for queued in batch)


def _last(seen: Iterable[Queued]) -> dict[Lane, int]:
    """By lane: the highest sequence."""
    last: dict[Lane, int] = {}
    for queued in seen:
        last[queued.message.lane] = max(last.get(queued.message.lane, 0), queued.sequence)
    return last


def _placed(messages: Sequence[Queued], pending: Sequence[Pending]) -> Sequence[Queued]:
    """``messages`` of cold, those that are pending at the sequences that the store gave them: a pipeline that could not
    reach the store may have written them with later ones."""
    if not pending:
        return messages
    places = {write.id: write.sequence for write in pending}
    return [
        msgspec.structs.replace(queued, sequence=min(queued.sequence, places.get(queued.message.id, queued.sequence)))
        for queued in messages
    ]


def _horizon(hot: HotPage, cold: ColdPage) -> dict[Lane, int]:
    """By lane, for lanes that were not read to their ends: the last sequence up to which both tiers were read in full.
    Behind it, a tier may have a message that was not read."""
    ends: dict[Lane, int] = {}
    for page in (hot, cold):
        last = _last(page.messages)
        for lane in page.more:
            end = last.get(lane, -1)
            ends[lane] = min(ends.get(lane, end), end)
    return ends


def _first_unseen(pending: Iterable[Pending], seen: Collection[str]) -> dict[int, int]:
    """By lane: the lowest sequence that is pending and whose message was not found."""
    unseen: dict[int, int] = {}
    for write in pending:
        if write.id not in seen:
            unseen[write.lane] = min(unseen.get(write.lane, write.sequence), write.sequence)
    return unseen
