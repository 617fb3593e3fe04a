"""What the parts of the online store share: transactions, queries, and the sending of pokes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from router.backends.firestore.queries import Reader
from router.backends.firestore.recipient import Pokes
from router.backends.firestore.transactions import Transactions, Work
from router.backends.firestore.write_batches import Writer
from router.backends.routing_rules import Skew
from router.clock import Clock
from router.interfaces import PokeBus
from router.messages import Queued
from router.timekeeping import Timekeeper

T = TypeVar("T")


class FirestoreState:
    """What each part needs. A part's call makes one transaction or more for each user: a function of ``Work``."""

    def __init__(
        self, transactions: Transactions, writer: Writer, pokes: PokeBus, clock: Clock, keeper: Timekeeper
    ) -> None:
        self.transactions = transactions
        self.client = transactions.client
        self.layout = transactions.layout
        self.rules = transactions.rules
        self.writer = writer
        self.clock = clock
        self.keeper = keeper
        self.skew = Skew()
        self.reader = Reader(self.client, self.layout)
        self._pokes = pokes

    def ephemeral_cutoff(self, now: int) -> int:
        """Ephemeral messages accepted at or before this have expired, by Firestore's clock."""
        return self.rules.ephemeral_cutoff(now - self.skew.ahead)

    async def change_and_poke(
        self, user: str, ids: Iterable[str], step: Callable[[Work], tuple[T, Pokes]], *, new: Collection[str] = ()
    ) -> T:
        """Run a step, then send its pokes. A step whose answer was lost runs again and finds its work done; the pokes
        of the first run are sent nevertheless."""
        owed: set[tuple[str, str]] = set()

        def remember(work: Work) -> T:
            result, pokes = step(work)
            owed.update(pokes)
            return result

        result = await self.transactions.change(user, ids, remember, new=new)
        await self.publish(owed)
        return result

    async def publish(self, pokes: Iterable[tuple[str, str]]) -> None:
        pokes = list(pokes)
        if pokes:
            await self._pokes.publish(pokes)


def by_user(messages: Iterable[Queued]) -> dict[str, list[Queued]]:
    own: defaultdict[str, list[Queued]] = defaultdict(list)
    for queued in messages:
        own[queued.message.recipient].append(queued)
    return own


def ids_of(messages: Iterable[Queued]) -> list[str]:
    return [queued.message.id for queued in messages]


def flat(parts: Iterable[Iterable[T]]) -> Iterator[T]:
    return (item for part in parts for item in part)
