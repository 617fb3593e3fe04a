"""Imports what waits in the stores of go-routing-service: publishes it to the ingress under the ids that it has.

For one user at a time, in this order:

1. List what waits and what is noted as imported.
2. Read the next envelopes and publish them, in the order in which they were queued.
3. Note their ids, once they are durable.

If it is interrupted between 2 and 3, the next run publishes those once more, and the router recognizes the ids: it
remembers them for a day. What is noted is never published again, even if it was acknowledged long ago.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from router.clock import Clock
from router.config import Limits
from router.go_import.firestore import GoFirestore
from router.go_import.stored import Unreadable, Waiting, in_order, message
from router.interfaces import IngressProducer
from router.messages import Message

if TYPE_CHECKING:
    from router.go_import.redis import GoRedis  # brings redis-py, which not everybody needs

PART = 50
"""Messages that are read and published together; each may have a MiB in Firestore."""
USERS_AT_ONCE = 16


class Problem(Struct, frozen=True):
    """One message that cannot be imported."""

    place: str
    """The path of its document in Firestore, or the key of its list in Redis."""
    why: str


class Imported(Struct):
    """What one run did; in a dry run, what it would do."""

    users: int = 0
    """Users for whom something waited that was not imported before."""
    imported: int = 0
    before: int = 0
    """Imported by an earlier run."""
    ephemeral: int = 0
    """Left out, since they were for users who were online then."""
    problems: list[Problem] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    """Users with more mail than their limits admit at once."""
    deleted: int = 0


class _Room:
    """What the limits admit of one user's mail. State: how much they have admitted."""

    def __init__(self, limits: Limits) -> None:
        self._messages = limits.queue_messages
        self._bytes = min(limits.queue_bytes, limits.inbound_bytes or limits.queue_bytes)

    def admits(self, message_: Message) -> bool:
        self._messages -= 1
        self._bytes -= len(message_.envelope)
        return self._messages >= 0 and self._bytes >= 0


class Importer:
    """Moves mail from the old stores to the ingress. State: what this run did."""

    def __init__(
        self,
        firestore: GoFirestore,
        redis: GoRedis | None,
        producer: IngressProducer | None,
        limits: Limits,
        clock: Clock,
    ) -> None:
        """``producer``: ``None`` for a dry run, which only reads."""
        self._firestore = firestore
        self._redis = redis
        self._producer = producer
        self._limits = limits
        self._clock = clock
        self.done = Imported()

    async def users(self) -> list[str]:
        """Everybody who may have mail in the old stores."""
        found = {user async for user in self._firestore.users()}
        if self._redis is not None:
            found |= {user async for user in self._redis.users()}
        return sorted(found)

    async def run(self, users: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Imported:
        """Import the mail of ``users``. Raises ``RouterError``; then another run goes on where this one stopped."""
        await _for_each(users, self._import, progress)
        return self.done

    async def delete(self, users: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Imported:
        """Delete what is imported from the old stores, and then the notes of that. Raises ``RouterError``."""
        await _for_each(users, self._delete, progress)
        return self.done

    async def _import(self, user: str) -> None:
        waiting, imported = await self._waiting(user), await self._firestore.imported(user)
        left = [each for each in waiting if each.id not in imported]
        self.done.before += len(waiting) - len(left)
        self.done.users += bool(left)
        room = _Room(self._limits)
        for start in range(0, len(left), PART):
            messages = await self._read(user, left[start : start + PART])
            admitted = list(itertools.takewhile(room.admits, messages))
            await self._take(user, admitted)
            if len(admitted) < len(messages):
                self.done.held.append(user)
                return

    async def _waiting(self, user: str) -> list[Waiting]:
        """What waits for ``user`` in both stores, in its order. Firestore first: of what has no time, cold is older."""
        places = await self._firestore.places(user)
        if self._redis is not None:
            lists, unreadable = await self._redis.places(user)
            places += lists
            self.done.problems += [Problem(key, str(why)) for key, why in unreadable]
        return in_order(places)

    async def _read(self, user: str, waiting: Sequence[Waiting]) -> list[Message]:
        """The messages of ``waiting``; notes what is wrong with those that cannot be read."""
        stored = await self._firestore.bodies(each for each in waiting if each.body is None)
        messages = []
        for each in waiting:
            body = stored.get(each.place) if each.body is None else each.body
            try:
                if isinstance(body, Unreadable):
                    raise body
                if body is not None:  # else it was acknowledged since it was listed
                    now = self._clock.now()
                    messages.append(message(user, each, body, now, self._limits.envelope_bytes))
            except Unreadable as error:
                self.done.problems.append(Problem(each.place, str(error)))
        return messages

    async def _take(self, user: str, messages: Sequence[Message]) -> None:
        lasting = [each for each in messages if not each.ephemeral]
        ids = [each.id for each in messages if each.ephemeral]
        self.done.ephemeral += len(ids)
        if self._producer is None:
            self.done.imported += len(lasting)
            return
        failures = await self._producer.publish(lasting) if lasting else []
        durable = [each.id for each, failure in zip(lasting, failures, strict=True) if failure is None]
        await self._firestore.note(user, [*ids, *durable])
        self.done.imported += len(durable)
        for failure in failures:
            if failure is not None:
                raise failure

    async def _delete(self, user: str) -> None:
        imported = await self._firestore.imported(user)
        if not imported:
            return
        found = [each for place in await self._firestore.places(user) for each in place if each.id in imported]
        await self._firestore.delete([each.place for each in found])
        self.done.deleted += len(found)
        if self._redis is not None:
            deleted = await self._redis.delete(user, imported)  # in two steps: other users' are counted meanwhile
            self.done.deleted += deleted
        await self._firestore.forget(user, imported)


async def _for_each(
    users: Sequence[str], work: Callable[[str], Awaitable[None]], progress: Callable[[int], None] | None
) -> None:
    """``work`` for each of ``users``, several at once. After a failure it stops the others and raises that."""
    left = iter(users)

    async def one_after_another() -> None:
        for user in left:
            await work(user)
            if progress:
                progress(1)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(USERS_AT_ONCE):
                group.create_task(one_after_another())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
