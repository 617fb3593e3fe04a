"""Atomic steps on one user: read their state, decide, and commit, if no other step has changed what was read.

A step holds no lock in Firestore, so a process that dies in the middle of one delays nobody. It reads the user's state
document first. Every change of the user's other documents also changes that one (or touches only documents that no
other step can change then). So if the state document is unchanged at the commit, all that was read after it is current.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

import grpc
import msgspec

from router.backends.firestore import recipient as recipients
from router.backends.firestore import records
from router.backends.firestore.client import Client
from router.backends.firestore.names import Layout
from router.backends.firestore.recipient import Recipient
from router.backends.firestore.records import Record
from router.backends.firestore.wire import Document, Write, deletion, only_if
from router.backends.firestore.write_batches import BATCH_WRITES
from router.backends.google.calls import TRANSIENT
from router.backends.google.channels import FIRESTORE
from router.backends.routing_rules import StoreRules
from router.clock import Clock
from router.errors import Unavailable

A = TypeVar("A")
T = TypeVar("T")

STEP_MESSAGES = 200
"""Messages of one step: each may be two documents, and a commit should not have more than 500."""
STEP_BYTES = 3_000_000
"""Envelope bytes of one step; a commit takes 10 MiB in all, to an emulator 4 MiB."""
STEPS = 32
"""Concurrent steps of one call, for different users."""
CONFLICTS = frozenset({grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND})
"""Status codes that mean: another step has changed what this one read."""


class OnlineLayout(Layout):
    """The paths of the online store's documents."""

    def __init__(self, project: str, database: str, collection: str) -> None:
        super().__init__(project, database, collection)
        self.hot = f"{collection}-hot"
        """The name of the collection under each user."""
        self.ids = f"{self.documents}/{collection}-ids"

    def hot_of(self, user: str) -> str:
        return f"{self.user(user)}/{self.hot}"


class Work:
    """What one step has read, and what it will change."""

    def __init__(self, layout: OnlineLayout, recipient: Recipient, state: Document | None, found: list[Record]) -> None:
        self.recipient = recipient
        self.known = state is not None
        """Whether the user has a state document."""
        self.records = {record.id: record for record in found}
        self._layout = layout
        self._update_time = None if state is None else state.update_time
        self._before = msgspec.msgpack.encode(recipient)
        self._changed: dict[str, Record] = {}
        self._writes: list[Write] = []
        self._forgotten = False

    def keep(self, record: Record) -> None:
        """Commit ``record``, which is new or changed."""
        self.records[record.id] = self._changed[record.id] = record

    def write(self, write: Write) -> None:
        """Commit ``write``, a change of the hot queue."""
        self._writes.append(write)

    def forget(self) -> None:
        """Delete the user's state document."""
        self._forgotten = True

    def writes(self, now: int) -> list[Write]:
        """All writes of this step."""
        path = self._layout.user(self.recipient.user)
        own: list[Write] = []
        if self._forgotten:
            own = [only_if(deletion(path), self._update_time)]
        elif msgspec.msgpack.encode(self.recipient) != self._before:
            own = [only_if(recipients.write(path, self.recipient, now), self._update_time)]
        return [*own, *(records.write(self._layout.ids, record) for record in self._changed.values()), *self._writes]


class Transactions:
    """Runs steps. A step that meets a conflict, or whose answer is lost, starts again from its read."""

    def __init__(self, client: Client, layout: OnlineLayout, rules: StoreRules, clock: Clock) -> None:
        self.client = client
        self.layout = layout
        self.rules = rules
        self.clock = clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def change(self, user: str, ids: Iterable[str], step: Callable[[Work], T], *, new: Collection[str] = ()) -> T:
        """Run ``step`` on the state of ``user`` and the records of ``ids``; returns its result.

        ``new``: ids of which an earlier version has no records. ``step`` may run several times, each time on a new
        ``Work``. Raises ``Unavailable`` and what ``step`` raises.
        """
        ids = list(ids)

        async def attempt(seconds: float) -> T:
            until = asyncio.get_running_loop().time() + seconds
            work = await self.load(user, ids, until, new=new)
            result = step(work)
            await self.commit(work, until)
            return result

        return await self.run(user, attempt)

    async def run(self, user: str, attempt: Callable[[float], Awaitable[T]]) -> T:
        """Repeat ``attempt``, which gets its time-out in seconds, while it meets conflicts. Raises ``Unavailable``."""
        async with self._alone(user):
            return await self.client.call(attempt, repeated=TRANSIENT | CONFLICTS)

    @asynccontextmanager
    async def _alone(self, user: str) -> AsyncGenerator[None, None]:
        """Steps of one process on one user wait for one another here, so that they do not conflict."""
        lock = self._locks.setdefault(user, asyncio.Lock())
        try:
            async with asyncio.timeout(self.client.patience.budget):
                await lock.acquire()
        except TimeoutError as error:
            raise Unavailable(f"{FIRESTORE.name}: too many changes to one user's queue at once") from error
        try:
            yield
        finally:
            lock.release()

    async def load(self, user: str, ids: Sequence[str], until: float, *, new: Collection[str] = ()) -> Work:
        """Read the state of ``user`` and the records of ``ids``. ``until``: deadline, by the event loop's time. Raises
        the library's error."""
        own = self.layout.user(user)
        found = await self.client.get([own, *(records.path(self.layout.ids, user, id_) for id_ in ids)], _left(until))
        state = found.pop(own, None)
        return Work(self.layout, self._recipient(user, state), state, await self._read(user, ids, found, until, new))

    async def _read(
        self, user: str, ids: Iterable[str], found: Mapping[str, Document], until: float, new: Collection[str] = ()
    ) -> list[Record]:
        """The records of ``ids`` in ``found``, and those of an earlier version, which take a second read. Ids that were
        found, and those in ``new``, do not need it."""
        known = [records.read(document) for document in found.values()]
        unknown = sorted({*ids}.difference(new, (record.id for record in known)))
        paths = (records.earlier_path(self.layout.ids, id_) for id_ in unknown)
        earlier = map(records.read, (await self.client.get(paths, _left(until))).values())
        return [*known, *(record for record in earlier if record.user == user)]

    async def records(self, user: str, ids: Sequence[str]) -> list[Record]:
        """The records of ``ids``, outside of a step. Raises ``Unavailable``."""
        paths = [records.path(self.layout.ids, user, id_) for id_ in ids]

        async def attempt(seconds: float) -> list[Record]:
            until = asyncio.get_running_loop().time() + seconds
            return await self._read(user, ids, await self.client.get(paths, seconds), until)

        return await self.client.call(attempt)

    def _recipient(self, user: str, state: Document | None) -> Recipient:
        return recipients.read(user, state, cold_empty=self.rules.fresh_cold_empty)

    async def state(self, user: str) -> Recipient | None:
        """The state of ``user``, outside of a step. Raises ``Unavailable``."""
        path = self.layout.user(user)
        found = await self.client.call(lambda seconds: self.client.get([path], seconds))
        return self._recipient(user, found[path]) if path in found else None

    async def commit(self, work: Work, until: float) -> None:
        writes = work.writes(self.clock.now())
        if writes:
            await self.client.commit(writes, _left(until))

    async def change_all(self, users: Iterable[str], step: Callable[[Work], T]) -> dict[str, T]:
        """Run ``step`` on the state of each of ``users``, many of them with one read and one write.

        Users with a conflict follow one by one. Raises ``Unavailable``.
        """
        users = list(dict.fromkeys(users))
        results: dict[str, T] = {}
        for start in range(0, len(users), BATCH_WRITES):
            results |= await self._change_batch(users[start : start + BATCH_WRITES], step)
        return results

    async def _change_batch(self, users: Sequence[str], step: Callable[[Work], T]) -> dict[str, T]:
        results: dict[str, T] = {}

        async def attempt(seconds: float) -> list[str]:
            until = asyncio.get_running_loop().time() + seconds
            found = await self.client.get(map(self.layout.user, users), _left(until))
            writers: list[str] = []
            writes: list[Write] = []
            for user in users:
                state = found.get(self.layout.user(user))
                work = Work(self.layout, self._recipient(user, state), state, [])
                results[user] = step(work)
                own = work.writes(self.clock.now())
                writers += [user] * len(own)
                writes += own
            statuses = await self.client.batch_write(writes, _left(until)) if writes else []
            return [user for user, (code, _) in zip(writers, statuses, strict=True) if code]

        for user in await self.client.call(attempt):
            results[user] = await self.change(user, [], step)
        return results


def _left(until: float) -> float:
    return max(0.05, until - asyncio.get_running_loop().time())


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """``items`` in parts of ``STEP_MESSAGES``."""
    for start in range(0, len(items), STEP_MESSAGES):
        yield items[start : start + STEP_MESSAGES]


async def together(work: Callable[[A], Awaitable[T]], items: Iterable[A]) -> list[T]:
    """The results of ``work`` on each of ``items``, ``STEPS`` at a time.

    After a failure it starts no more; when those that run have ended, it raises the first error.
    """
    room = asyncio.Semaphore(STEPS)
    errors: list[Exception] = []

    async def one(item: A) -> list[T]:
        async with room:
            try:
                return [] if errors else [await work(item)]
            except Exception as error:  # noqa: BLE001 - it is raised below
                errors.append(error)
                return []

    results = await asyncio.gather(*map(one, items))
    if errors:
        raise errors[0]
    return [result for found in results for result in found]
