"""Pages of a queue with two lanes: what of each a page holds. Pure; the rule is docs/specification.md#pages.

Each store reads the head of its queue (``Head``): enough of both lanes for whatever page the other tier makes of it.
``cut`` makes the page. Redis reads its head in Lua and repeats ``Head`` and ``fits`` there, by these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self
from zlib import crc32

from router.messages import Lane, Queued

PAGE_BYTES = 8 * 1024 * 1024
"""The envelopes of one batch have this many bytes at most, or there is one envelope of a lane only."""
DEFAULT_PAGE = 50
"""Messages of a fetch that names no limit."""
LONGEST_PAGE = 500
"""No batch has more messages (docs/specification.md#routes)."""
PART = 5
"""The share of places and of bytes that is kept for normal mail is one divided by this."""
NO_LANES: frozenset[Lane] = frozenset()


def share(whole: int) -> int:
    """What is kept for normal mail, of ``whole`` places or bytes."""
    return max(1, whole // PART)


class Page:
    """The first messages in their order, as many as the bounds allow, at least one."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self.messages: list[Queued] = []
        self.more = NO_LANES
        """The lanes of which a message did not fit."""
        self.places = limit
        """How many more fit, as far as their envelopes do."""
        self._bytes = max_bytes
        self._begun = False

    def add(self, queued: Queued) -> bool:
        """Whether ``queued``, which follows what is here, fits."""
        size = len(queued.message.envelope)
        if self.places == 0 or (size > self._bytes and self._begun):
            self.more |= {queued.message.lane}
            return False
        self.messages.append(queued)
        self.places -= 1
        self._bytes -= size
        self._begun = True
        return True

    def take(self, messages: Iterable[Queued]) -> Self:
        """Add ``messages`` up to the first that does not fit; they are read no further."""
        for queued in messages:
            if not self.add(queued):
                break
        return self


class Head(Page):
    """The heads of both lanes, each with at least one message: express mail as if it were alone, and normal mail for
    what that leaves of the bounds, its share at least.

    Where express mail does not fit, normal mail is still to be added.
    """

    def __init__(self, limit: int, max_bytes: int) -> None:
        super().__init__(limit, max_bytes)
        self._kept = share(limit), share(max_bytes)
        self._lane = Lane.EXPRESS

    @property
    def lacks_normal(self) -> bool:
        """Express mail was left out, and no normal mail was looked at."""
        return self._lane is Lane.EXPRESS and bool(self.more)

    def add(self, queued: Queued) -> bool:
        if queued.message.lane is not self._lane:
            self.begin_normal()
        return super().add(queued)

    def begin_normal(self) -> None:
        """What follows is normal mail."""
        if self._lane is Lane.EXPRESS:
            places, size = self._kept
            self.places, self._bytes = max(self.places, places), max(self._bytes, size)
            self._lane, self._begun = Lane.NORMAL, False


def cut(heads: list[Queued], limit: int, max_bytes: int) -> list[Queued]:
    """The page of ``heads``, the heads of both lanes, express first; ``heads`` itself where it holds all of them.

    There are three cases:
    (a) all fits;
    (b) there is one place, and mail of both lanes: one in ``PART`` such pages is normal mail;
    (c) express mail has what the share of normal mail leaves, and normal mail the rest.
    """
    if fits(heads, limit, max_bytes):
        return heads
    express = [queued for queued in heads if queued.message.lane is Lane.EXPRESS]
    normal = [queued for queued in heads if queued.message.lane is not Lane.EXPRESS]
    if limit == 1 and express and normal:
        return normal[:1] if _is_normal_due(express[0], normal[0]) else express[:1]
    kept = fit(normal, share(limit), share(max_bytes))
    express = fit(express, limit - len(kept), max_bytes - size_of(kept))
    return [*express, *fit(normal, limit - len(express), max_bytes - size_of(express))]


def fits(heads: Sequence[Queued], limit: int, max_bytes: int) -> bool:
    """Whether ``heads`` is a page: the first message of each lane fits in bytes, whatever its size."""
    if len(heads) > limit:
        return False
    return size_of(heads) <= max_bytes or len({queued.message.lane for queued in heads}) == len(heads)


def fit(lane: Sequence[Queued], places: int, max_bytes: int) -> list[Queued]:
    """The head of ``lane`` that has so many places and bytes; at least one message."""
    return Page(places, max_bytes).take(lane).messages


def size_of(messages: Iterable[Queued]) -> int:
    """The bytes of their envelopes."""
    return sum([len(queued.message.envelope) for queued in messages])


def _is_normal_due(express: Queued, normal: Queued) -> bool:
    """Whether the one place of a page is for normal mail. Both messages decide by lot, so that a fetch that is repeated
    returns the same one, and each acknowledgement draws again."""
    return crc32(b"%d %d" % (express.sequence, normal.sequence)) % PART == 0
