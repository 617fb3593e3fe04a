"""The load: recipients come online, senders send to them, and the recipients receive until nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import httpx
from msgspec import Struct

from router.bench.marks import Marks
from router.bench.pace import NANOSECONDS, Pace
from router.bench.people import Mailbox, Person, Recipient, Waits, now
from router.bench.tries import Counted, Failed
from router.bench.wire import Wire
from router.client import Refused, RouterClient, Unreachable
from router.errors import ConfigError
from router.open_files import raise_limit

START_SECONDS = 5.0
"""A router that does not answer within this time counts as not running."""
TRY_SECONDS = 10.0
"""How long a request is retried; a message that is not accepted by then is given up."""
AT_ONCE = 50
UNAUTHORIZED = 401


class Plan(Struct, frozen=True):
    """What a run sends, how fast, and how long it waits."""

    url: str
    ws_url: str | None
    pace: Pace
    size: int
    """Decoded bytes of the three opaque fields of each message."""
    patience_seconds: float
    """After this time without progress, outstanding messages count as lost."""


class Cast(Struct, frozen=True):
    """Who takes part."""

    online: Sequence[Person]
    offline: Sequence[Person]
    """They come online after all messages are sent."""
    senders: Sequence[Callable[[], str]]
    """The concurrent senders; each is a function that gives a token for a request."""
    made_up: bool
    """Whether the recipients exist in this run only."""


class Load:
    """A run, which ``loading`` opens. Call ``send``, then ``receive``; then read the results from its attributes."""

    def __init__(self, plan: Plan, cast: Cast, marks: Marks, trouble: Callable[[str], None]) -> None:
        self.plan = plan
        self.failed: Counter[Failed] = Counter()
        self.waits = Waits()
        self.begun = 0
        self.refusal: Refused | None = None
        """The first answer that no retry would change; it ends the sending."""
        self.began_at = 0
        self.offered_for = 0
        """ns from the first send until no more messages were due."""
        self.sent_for = 0.0
        """Seconds from the first send until the last one was answered."""
        self.received_for = 0.0
        """Seconds from the first send until the recipients who were online had their last message."""
        self.cold_for = 0.0
        """Seconds that the other recipients then took."""
        self.cpu_share = 0.0
        """Share of one core that was used while sending. Near 1, the figures measure this process, not the router."""
        self.stopping = asyncio.Event()
        self.cast = cast
        self._trouble = trouble
        self._tls = httpx.create_ssl_context()
        self._numbers = itertools.count()
        self._accepted_at = self._grown_at = 0
        self._listening: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        places = itertools.count()
        cold = Waits()
        self.online = [self._recipient(person, next(places), marks, self.waits) for person in cast.online]
        self.offline = [self._recipient(person, next(places), marks, cold) for person in cast.offline]
        self.recipients = [*self.online, *self.offline]

    @property
    def accepted(self) -> int:
        return sum(one.mailbox.ledger.accepted_count for one in self.recipients)

    @property
    def saved(self) -> int:
        return sum(one.mailbox.ledger.done_count for one in self.recipients)

    @property
    def left(self) -> int:
        """Messages that are still in the router, as far as the ledgers know."""
        return sum(one.mailbox.ledger.left for one in self.recipients)

    @property
    def running_seconds(self) -> float:
        """Seconds since the first send."""
        return self._elapsed() / NANOSECONDS if self.began_at else 0.0

    def failure(self) -> Exception:
        """Why nothing at all was accepted."""
        if self.refusal is not None:
            return self.refusal
        worst = self.failed.most_common(1)
        why = f"{worst[0][0].status or 'no answer'}: {worst[0][0].reason}" if worst else "no answer came in time"
        return Unreachable(f"{self.plan.url} accepted no message: {why}")

    def stop(self) -> None:
        """Send no more."""
        self.stopping.set()

    async def send(self) -> None:
        """Send until the time is over, all is sent or ``stop`` is called; return when what was begun is answered.

        A message that is not accepted within ``TRY_SECONDS`` is given up; it may still arrive.
        """
        self.began_at = self._accepted_at = now()
        used = time.process_time()
        await self._send_all()
        self.sent_for = self._elapsed() / NANOSECONDS
        self.cpu_share = (time.process_time() - used) / self.sent_for

    async def receive(self) -> None:
        """Return when everything that was accepted is acknowledged, or will not come. Raises ``Unreachable``."""
        await self._arrival(self.online)
        self.received_for = max(0, self._grown_at - self.began_at) / NANOSECONDS
        if self.offline:
            began = now()
            await self._come(self.offline)
            await self._arrival(self.offline)
            self.cold_for = max(0, self._grown_at - began) / NANOSECONDS
        # Look at every queue once more: a message that should be gone would appear now.
        for some in _chunks(self.recipients):
            await asyncio.gather(*(one.look() for one in some))
        for one in self.recipients:
            one.mailbox.ledger.close()

    async def begin(self, group: asyncio.TaskGroup) -> None:
        """Bring the recipients of ``Cast.online`` online; raises ``Refused``, ``Unreachable`` and ``ConfigError``."""
        self._group = group
        for one in self.recipients if not self.cast.made_up else self.recipients[:1]:
            await self._check(one.mailbox.person)
        await self._come(self.online)

    def leave(self) -> None:
        """Disconnect everybody."""
        for task in self._listening:
            task.cancel()

    async def _check(self, person: Person) -> None:
        """Check that the router answers, the token is valid, and no mail waits."""
        transport = Wire(self._tls)
        async with RouterClient(
            self.plan.url, person.token, budget_seconds=START_SECONDS, trouble=self._trouble, transport=transport
        ) as client:
            if await self._first(client):
                raise ConfigError(f"{person.user} already has mail; name users in --tokens who get no other mail")

    async def _first(self, client: RouterClient) -> bool:
        """Whether the user has mail."""
        try:
            return bool(await client.fetch(1))
        except Refused as error:
            if error.status != UNAUTHORIZED or not self.cast.made_up:
                raise
            hint = "run it with the configuration of that router, whose embedded.data_dir has its key, or use --tokens"
            raise Refused(error.status, f"{error.detail}; {hint}") from error

    def _recipient(self, person: Person, place: int, marks: Marks, waits: Waits) -> Recipient:
        recipient = Recipient(
            Mailbox(person, place, marks, made_up=self.cast.made_up),
            waits,
            self.plan.url,
            self.plan.ws_url,
            budget_seconds=TRY_SECONDS,
            trouble=self._trouble,
            transport=self._transport(),
        )
        recipient.grown = self._grown
        return recipient

    def _transport(self) -> Counted:
        # One connection for each person, as real clients have; but the trusted certificates are read once.
        return Counted(Wire(self._tls), self.failed)

    async def _come(self, people: Sequence[Recipient]) -> None:
        """Return when ``people`` are online."""
        for some in _chunks(people):
            self._listening += [self._group.create_task(one.receive()) for one in some]
            try:
                async with asyncio.timeout(START_SECONDS):
                    for one in some:
                        await one.online.wait()
            except TimeoutError:
                where = self.plan.ws_url or f"{self.plan.url} (/connect)"
                raise Unreachable(f"{where} accepts no WebSocket; is --ws-url right?") from None

    async def _send_all(self) -> None:
        work = [asyncio.create_task(self._sender(token)) for token in self.cast.senders]
        over, ended = asyncio.create_task(self._over()), asyncio.create_task(_ended(work))
        try:
            await asyncio.wait([over, ended], return_when=asyncio.FIRST_COMPLETED)
            self.offered_for = self._elapsed()
            await asyncio.wait(work, timeout=TRY_SECONDS)
        finally:
            for task in (over, ended, *work):
                task.cancel()
            results = await asyncio.gather(*work, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _over(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.plan.pace.seconds):
                await self.stopping.wait()

    async def _sender(self, token: Callable[[], str]) -> None:
        async with RouterClient(
            self.plan.url, token, budget_seconds=TRY_SECONDS, transport=self._transport()
        ) as client:
            while (turn := await self._turn()) is not None:
                await self._post(client, *turn)

    async def _turn(self) -> tuple[Recipient, int] | None:
        """Wait until the next message is due; returns its recipient and when it was due, or ``None`` at the end."""
        number, elapsed = next(self._numbers), self._elapsed()
        due = self.plan.pace.due(number, elapsed)
        if due is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout((due - elapsed) / NANOSECONDS):
                await self.stopping.wait()
        if self.stopping.is_set():
            return None
        return self.recipients[number % len(self.recipients)], self.began_at + due

    async def _post(self, client: RouterClient, to: Recipient, due: int) -> None:
        number, envelope = to.mailbox.next(now())
        to.expect(number, due)
        self.begun += 1
        try:
            id_ = await client.send(envelope)
        except Refused as error:
            self.refusal = error
            self.stop()
        except Unreachable:
            if now() - self._accepted_at > self.plan.patience_seconds * NANOSECONDS:
                self.stop()
        else:
            self._accepted_at = now()
            to.mailbox.ledger.accepted(number, id_, self._accepted_at)
            self.waits.accepted.add((self._accepted_at - due) / NANOSECONDS)

    async def _arrival(self, people: Sequence[Recipient]) -> None:
        """Return when no mail is left in the router for ``people``, or none comes any more."""
        while any(one.mailbox.ledger.left for one in people):
            self._changed.clear()
            try:
                async with asyncio.timeout(self.plan.patience_seconds):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _grown(self) -> None:
        self._grown_at = now()
        self._changed.set()

    def _elapsed(self) -> int:
        return now() - self.began_at


@contextlib.asynccontextmanager
async def loading(plan: Plan, cast: Cast, marks: Marks, trouble: Callable[[str], None]) -> AsyncIterator[Load]:
    """A load whose recipients are online; raises ``Refused``, ``Unreachable`` and ``ConfigError``, also while it
    runs."""
    raise_limit()
    load = Load(plan, cast, marks, trouble)
    async with contextlib.AsyncExitStack() as stack:
        for one in load.recipients:
            await stack.enter_async_context(one)
        try:
            async with asyncio.TaskGroup() as group:
                await load.begin(group)
                yield load
                load.leave()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


async def _ended(work: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(work)


def _chunks(people: Sequence[Recipient]) -> Iterator[Sequence[Recipient]]:
    return (people[start : start + AT_ONCE] for start in range(0, len(people), AT_ONCE))
