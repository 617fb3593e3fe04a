"""Replaying dead letters: what was refused for a reason that may have passed goes to the ingress once more."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from msgspec import Struct, field

from router import envelope
from router.checksum import checksum
from router.clock import MICROSECONDS, Clock
from router.errors import InvalidEnvelope
from router.interfaces import DeadLetterQueue, IngressProducer, Receipt
from router.messages import DeadLetter, DeadReason, Message

REFUSED = frozenset({DeadReason.QUEUE_FULL, DeadReason.INBOUND_EXHAUSTED})
"""For these an id was never given a place, and nothing is remembered of it."""


class Replayed(Struct):
    """What one replay did."""

    replayed: int = 0
    """Published to the ingress again, and removed from the dead letters; in a dry run, that would be."""
    passed_over: int = 0
    """Of other reasons than those that were asked for."""
    remembered: int = 0
    """The router still remembers their ids as gone, and would drop them: later."""
    unreadable: int = 0
    """Their bodies are not canonical envelopes for their recipients, for example because they are damaged."""
    recipients: set[str] = field(default_factory=set)


class Replayer:
    """Publishes the messages of dead letters under their own ids; their places are new.

    It may be interrupted, and run beside the services and itself: a letter is removed once its publish is confirmed,
    and an id that is queued, or was acknowledged within a day, is not routed a second time.
    """

    def __init__(
        self, letters: DeadLetterQueue, producer: IngressProducer, clock: Clock, remembered_seconds: float
    ) -> None:
        """``remembered_seconds``: so long after its letter the id of a message that had a place counts as gone."""
        self._letters = letters
        self._producer = producer
        self._clock = clock
        self._remembered = int(remembered_seconds * MICROSECONDS)

    async def replay(
        self, reasons: Collection[DeadReason], *, dry_run: bool, progress: Callable[[int], None] | None = None
    ) -> Replayed:
        """Replay the letters of ``reasons`` that are there now; raises ``RouterError``."""
        done = Replayed()
        async for page in self._letters.pages():
            due: defaultdict[str, list[tuple[Receipt, Message]]] = defaultdict(list)
            for receipt, letter in page:
                message = self._due(letter, reasons, done)
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

    def _due(self, letter: DeadLetter, reasons: Collection[DeadReason], done: Replayed) -> Message | None:
        if letter.reason not in reasons:
            done.passed_over += 1
        elif letter.reason not in REFUSED and self._clock.now() < letter.at + self._remembered:
            done.remembered += 1
        elif (message := message_of(letter)) is None:
            done.unreadable += 1
        else:
            return message
        return None

    async def _publish_all(self, chains: Sequence[Sequence[tuple[Receipt, Message]]], done: Replayed) -> None:
        """Each of ``chains`` in its order, one beside another; letters of what was published go, whatever fails."""
        published: list[Receipt] = []

        async def publish(chain: Sequence[tuple[Receipt, Message]]) -> None:
            for receipt, message in chain:
                await self._producer.publish(message)
                published.append(receipt)

        results = await asyncio.gather(*map(publish, chains), return_exceptions=True)
        if published:
            await self._letters.remove(published)
            done.replayed += len(published)
        for result in results:
            if isinstance(result, BaseException):
                raise result


def message_of(letter: DeadLetter) -> Message | None:
    """The message that ``letter`` was made of; ``None`` if its body is not a canonical envelope for its recipient."""
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
        letter.at,  # ephemeral mail is judged by it: it is late by now, and is dropped
        True,  # no letter says so; this one remembers the id for longer
        checksum(letter.id, read.recipient, read.canonical),
    )
