"""The recipients of a load: smart clients that save mail in a ledger, and acknowledge only mail of this run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

import httpx
from msgspec import Struct, field

from router.bench.latencies import Latencies
from router.bench.ledger import Fault, Ledger
from router.bench.marks import Mark, Marks, Stray
from router.bench.pace import NANOSECONDS
from router.client import Received, RouterClient
from router.client.client import PAGE
from router.pages import LONGEST_PAGE

now = time.perf_counter_ns


class Person(Struct, frozen=True):
    """A user, and a function that gives a valid token."""

    user: str
    token: Callable[[], str]


class Waits(Struct):
    """Latencies of messages, each from the moment at which it was due."""

    accepted: Latencies = field(default_factory=Latencies)
    poked: Latencies = field(default_factory=Latencies)
    saved: Latencies = field(default_factory=Latencies)


class Mailbox:
    """One recipient's ledger, into which it enters what fetches return."""

    def __init__(self, person: Person, place: int, marks: Marks, *, made_up: bool) -> None:
        """``made_up``: the user exists in this run only, so all other mail for it is somebody else's."""
        self.person = person
        self.ledger = Ledger(person.user)
        self.strange: set[str] = set()
        """Ids of mail that is not of this run, which is left alone."""
        self._place = place
        self._marks = marks
        self._made_up = made_up

    def next(self, at: int) -> tuple[int, bytes]:
        """Number and envelope of the next message."""
        number = self.ledger.begin(at)
        return number, self._marks.envelope(self.person.user, Mark(self._place, number))

    def returned(self, page: Sequence[Received], asked: int) -> tuple[list[Received], list[int]]:
        """Enter a page into the ledger; returns its messages of this run, and the numbers that are new."""
        own, entries = [], []
        for received in page:
            mark = self._marks.read(received.envelope)
            if mark is Stray.FOREIGN:
                self._see_strange(received.id)
                continue
            own.append(received)
            if isinstance(mark, Mark):
                number = mark.number if mark.recipient == self._place else -1
                entries.append((number, received.id))
            else:
                self.ledger.found(Fault.ALTERED, received.id)
        return own, self.ledger.returned(entries, asked)

    def _see_strange(self, id_: str) -> None:
        if self._made_up and id_ not in self.strange:
            self.ledger.found(Fault.SOMEBODY_ELSES, id_)
        self.strange.add(id_)


class Recipient(RouterClient):
    """A smart client of one mailbox. It saves to memory, since the speed of a local disk says nothing about a
    router."""

    def __init__(
        self,
        mailbox: Mailbox,
        waits: Waits,
        url: str,
        ws_url: str | None,
        *,
        budget_seconds: float,
        trouble: Callable[[str], None],
        transport: httpx.AsyncBaseTransport,
    ) -> None:
        super().__init__(
            url,
            mailbox.person.token,
            ws_url=ws_url,
            budget_seconds=budget_seconds,
            trouble=trouble,
            transport=transport,
        )
        self.mailbox = mailbox
        self.connections = 0
        self.online = asyncio.Event()
        """Set once the socket is open."""
        self.grown: Callable[[], None] = lambda: None
        """Called after every page that is acknowledged."""
        self._waits = waits
        self._due: dict[int, int] = {}
        self._poked_at = 0

    def expect(self, number: int, due: int) -> None:
        """Note that message ``number``, which was due at ``due``, is being sent."""
        self._due[number] = due

    async def receive(self) -> None:
        """Receive until cancelled; raises ``Refused`` if the router refuses the token."""
        await self.listen(_keep, connected=self._connected, poked=self._poked)

    async def look(self) -> None:
        """Fetch, save and acknowledge the mail that waits."""
        await self.drain(_keep)

    async def fetch(self, limit: int = PAGE) -> list[Received]:
        """The messages of this run in the next page; other mail stays in front of them."""
        asked, told = now(), self._poked_at
        page = await super().fetch(self._with_strange(limit))
        return self._returned(page, asked, told)

    async def acknowledge(self, ids: Sequence[str]) -> None:
        await super().acknowledge(ids)
        self._acknowledged(ids, now())

    async def _try_next(self, ids: Sequence[str], limit: int) -> list[Received] | None:
        told = self._poked_at
        page = await super()._try_next(ids, self._with_strange(limit))
        if page is None:
            return None
        # The page was read after the acknowledgement: it must not hold any of these.
        answered = now()
        self._acknowledged(ids, answered)
        return self._returned(page, answered, told)

    def _with_strange(self, limit: int) -> int:
        return min(LONGEST_PAGE, limit + len(self.mailbox.strange))

    def _returned(self, page: Sequence[Received], asked: int, told: int) -> list[Received]:
        """Enter a page that was read after ``asked``; the last poke before it was heard at ``told``."""
        own, new = self.mailbox.returned(page, asked)
        arrived = now()
        for number in new:
            # If a fetch that was under way returned it, there was no poke to wait for.
            due = self._due[number]
            self._waits.poked.add(((told if told >= due else arrived) - due) / NANOSECONDS)
        return own

    def _acknowledged(self, ids: Iterable[str], at: int) -> None:
        self._settle(self.mailbox.ledger.acknowledged(ids, at))
        self.grown()

    def _settle(self, numbers: Iterable[int]) -> None:
        at = now()
        for number in numbers:
            self._waits.saved.add((at - self._due.pop(number)) / NANOSECONDS)

    def _connected(self) -> None:
        self.connections += 1
        self._poked_at = now()
        self.online.set()

    def _poked(self) -> None:
        self._poked_at = now()


async def _keep(_: Sequence[Received]) -> None:
    """Nothing is left to save: ``fetch`` entered it into the ledger."""
