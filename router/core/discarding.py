"""Discarding dead letters: what the operator does not want back goes for good."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field

from router.interfaces import DeadLetterQueue
from router.messages import DeadLetter


class Discarded(Struct):
    """What one discard did."""

    discarded: int = 0
    """Removed; in a dry run, that would be."""
    left: int = 0
    """The others that were there."""
    recipients: set[str] = field(default_factory=set)
    """Whose the discarded ones were; empty for what could not be decoded."""


async def discard(
    letters: DeadLetterQueue,
    chosen: Callable[[DeadLetter], bool],
    *,
    dry_run: bool,
    progress: Callable[[int], None] | None = None,
) -> Discarded:
    """Remove the letters that are there now and that ``chosen`` says yes of; raises ``RouterError``.

    It may be interrupted, and run beside the services, a replay and itself.
    """
    done = Discarded()
    async for page in letters.pages():
        doomed = [(receipt, letter) for receipt, letter in page if chosen(letter)]
        if doomed and not dry_run:
            await letters.remove([receipt for receipt, _ in doomed])
        done.discarded += len(doomed)
        done.left += len(page) - len(doomed)
        done.recipients |= {letter.recipient for _, letter in doomed}
        if progress:
            progress(len(page))
    return done
