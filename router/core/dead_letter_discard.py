"""Discards dead letters: deletes for good those that the operator does not want back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from msgspec import Struct, field

from router.interfaces import DeadLetterQueue
from router.messages import DeadLetter


class Discarded(Struct):
    """What one discard did."""

    discarded: int = 0
    """Removed; in a dry run, those that would be."""
    left: int = 0
    """Dead letters that were not chosen."""
    recipients: set[str] = field(default_factory=set)
    """Recipients of the discarded ones; an undecodable one counts as the empty name."""


async def discard(
    letters: DeadLetterQueue,
    chosen: Callable[[DeadLetter], bool],
    *,
    dry_run: bool,
    progress: Callable[[int], None] | None = None,
) -> Discarded:
    """Remove those of the letters there now for which ``chosen`` is true; raises ``RouterError``.

    It may be interrupted, and may run beside the services, a replay and other discards.
    """
    done = Discarded()
    async with aclosing(letters.pages()) as pages:
        async for page in pages:
            doomed = [(receipt, letter) for receipt, letter in page if chosen(letter)]
            if doomed and not dry_run:
                await letters.remove([receipt for receipt, _ in doomed])
            done.discarded += len(doomed)
            done.left += len(page) - len(doomed)
            done.recipients |= {letter.recipient for _, letter in doomed}
            if progress:
                progress(len(page))
    return done
