"""Replays dead letters: publishes refused messages to the ingress again, since the reason may have passed."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing

from msgspec import Struct, field

from router import envelope
from router.checksum import checksum
from router.clock import MICROSECONDS, Clock
from router.dead_reasons import DeadReason
from router.errors import InvalidEnvelope
from router.interfaces import DeadLetterQueue, IngressProducer, Receipt
from router.messages import DeadLetter, Message

REFUSED = frozenset({DeadReason.QUEUE_FULL, DeadReason.INBOUND_EXHAUSTED})
"""Refused before the message got a sequence: the online store has no record of its id."""


class Replayed(Struct):
    """What one replay did."""

    replayed: int = 0
    """Published to the ingress again and removed from the dead letters; in a dry run, those that would be."""
    passed_over: int = 0
    """Have other reasons than those asked for, or other ids."""
    found: set[str] = field(default_factory=set)
    """Those of the ids asked for that some letter has."""
    remembered: int = 0
    """Too recent: the online store may still remember their ids as gone, and would drop them as duplicates."""
    unreadable: int = 0
    """Their bodies are not canonical envelopes for their recipients, for example because they are damaged."""
    recipients: set[str] = field(default_factory=set)


class Replayer:
    """Publishes the messages of dead letters under their old ids; each gets a new place in its queue.

    It may be interrupted, and may run beside the services and other replays: it removes a letter once its publish is
    confirmed, and the router does not route an id again that is queued, or was acknowledged within a day.
    """

    def __init__(
        self, letters: DeadLetterQueue, producer: IngressProducer, clock: Clock, remembered_seconds: float
    ) -> None:
        """``remembered_seconds``: how long the store may remember the id of a message that had a place, counted from
        its dead letter."""
        self._letters = letters
        self._producer = producer
        self._clock = clock
        self._remembered = int(remembered_seconds * MICROSECONDS)

    async def replay(
        self,
        reasons: Collection[DeadReason],
        ids: Collection[str] = (),
        *,
        dry_run: bool,
        progress: Callable[[int], None] | None = None,
    ) -> Replayed:
        """Replay the letters of ``reasons`` that are there now, or those of them that have one of ``ids``; raises
        ``RouterError``."""
        done = Replayed()
        async with aclosing(self._letters.pages()) as pages:
            async for page in pages:
                due: defaultdict[str, list[tuple[Receipt, Message]]] = defaultdict(list)
                for receipt, letter in page:
                    message = self._due(letter, reasons, ids, done)
                    if message is not None:
                        due[message.recipient].append((receipt, message))
                if dry_run:
                    done.replayed += sum(map(len, due.values()))
                else:
                    await self._publish_all(list(due.values()), done)
                done.recipients |= due.keys()
                if progress:
                    progress(len(page))
        return done

    def _due(
        self, letter: DeadLetter, reasons: Collection[DeadReason], ids: Collection[str], done: Replayed
    ) -> Message | None:
        if letter.id in ids:
            done.found.add(letter.id)
        if letter.reason not in reasons or (ids and letter.id not in ids):
            done.passed_over += 1
        elif letter.reason not in REFUSED and self._clock.now() < letter.at + self._remembered:
            done.remembered += 1
        elif (message := message_of(letter)) is None:
            done.unreadable += 1
        else:
            return message
        return None

    async def _publish_all(self, chains: Sequence[Sequence[tuple[Receipt, Message]]], done: Replayed) -> None:
        """Publish each of ``chains`` in its order, all chains at once. Removes the letters of published messages even
        if others fail, and then raises the first failure."""
        published: list[Receipt] = []

        async def publish(chain: Sequence[tuple[Receipt, Message]]) -> None:
            for receipt, message in chain:
                await self._producer.publish([message])
                published.append(receipt)

        results = await asyncio.gather(*map(publish, chains), return_exceptions=True)
        if published:
            await self._letters.remove(published)
            done.replayed += len(published)
        for result in results:
            if isinstance(result, BaseException):
                raise result


def message_of(letter: DeadLetter) -> Message | None:
    """The refused message; ``None`` if the body of ``letter`` is not a canonical envelope for its recipient."""
    try:
        read = envelope.read(letter.body, sys.maxsize)
    except InvalidEnvelope:
        return None
    if not letter.id or (read.recipient, read.canonical) != (letter.recipient, letter.body):
        return None
    return Message(
        letter.id,
        read.recipient,
        read.canonical,
        read.lane,
        read.ephemeral,
        letter.at,  # so that an ephemeral message counts as too old, and is dropped
        True,  # no letter says whether it was keyed; then the id is remembered for longer
        checksum(letter.id, read.recipient, read.canonical),
    )
