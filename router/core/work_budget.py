"""What one user may ask of this process: a budget of work over all routes, and turns (docs/http.md#work).

A unit is about 10 µs of a core. What a call costs is charged before its work where that is known (the ids of an
acknowledgement, the bytes of a body), and after it where it is known only then (the bytes of a page).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from msgspec import Struct, field

from router.clock import Clock
from router.core.token_buckets import TokenBuckets
from router.errors import TooMuchWork

UNIT_SECONDS = 10e-6
CALL = 20
"""Any request with a token: its head, the token, the answer."""
SEND = 20
"""A message that is accepted and routed: its rows, its share of a transaction and of an fsync."""
PUBLISHED = 5
"""Of these, its part of a publish that holds up others, where many are published together."""
CONNECT = 80
"""A connection more: presence is written when it comes and when it goes."""
CONNECTS_PER_SECOND = 80
"""New connections of one user, beyond those that may come at once: what a connection takes in all, from its upgrade to
its end, takes no turn. It is a fifth of a core."""
CONNECTS_AT_ONCE = 20
"""All devices of a user may come back together."""
MESSAGE = 1
"""A message in a page, an id in an acknowledgement: a row each."""
BODY_BYTES = 1024
"""Of a body: read, checked, and written more than once."""
ANSWER_BYTES = 4096
UNIT_VALUES = 32
"""Values of a body that count as one unit: many values take longer to read than their bytes."""

AT_ONCE = 200
"""Units of one user that are under way together, in one turn of the event loop too; whatever costs more is under way
alone. Everybody else may wait for as many, and a send does so several times."""
HEAVY = 600
"""Whatever costs more rests first."""
CALLS = 64
"""Calls of one user that are under way or wait, the arrival of their bodies included."""
CALL_BYTES = 384 * 1024
"""Of a body, for one of these: a longer one counts as several. The body of a send is a little shorter by default."""
PATIENCE_SECONDS = 1.0
"""A call over a limit waits for this time before it is refused, so that a client that asks again costs little."""
REST = 2
"""Heavy work first rests for this many times as long as it takes."""
PACE = 20_000
"""Units a second and user of what waits for no turn: bodies that arrive, refusals. It is a fifth of a core."""
READ_BYTES = 8192
"""Of a body, for a unit of that: bytes that come and are kept, and nothing else."""
REMEMBERED_USERS = 100_000


class _Own(Struct):
    """What one user has under way."""

    user: str
    calls: int = 0
    units: int = 0
    waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)
    """Who comes next, and for how many units."""


class Statistics(Struct, frozen=True):
    """What all users together have under way at one moment, and what is remembered of them."""

    users: int
    """Who have calls."""
    calls: int
    units: int
    """Of work that is under way."""
    waiting: int
    """Calls that wait for their turn."""
    budgets: int
    """Users whose budgets are not full, as far as anybody has looked."""


class WorkBudget:
    """The budgets and turns of all users.

    State: the budgets that are not full, the calls that are under way, and how far ahead of their pace users are, in
    what they send and in connections. Turns of one user are in the order in which they were
    asked for; no user waits for another's.
    """

    def __init__(self, *, clock: Clock, rate: float, burst: float) -> None:
        """``rate`` is in units a second and user; with 0 there are neither budgets nor turns."""
        self._clock = clock
        self._budgets: TokenBuckets[str] | None = TokenBuckets(clock, rate, burst, REMEMBERED_USERS) if rate else None
        self._own: dict[str, _Own] = {}
        self._paced: TokenBuckets[str] = TokenBuckets(clock, PACE, 0, REMEMBERED_USERS)
        self._connects: TokenBuckets[str] = TokenBuckets(clock, CONNECTS_PER_SECOND, CONNECTS_AT_ONCE, REMEMBERED_USERS)

    def statistics(self) -> Statistics:
        """Costs a look at each user who has calls."""
        own = self._own.values()
        return Statistics(
            users=len(own),
            calls=sum(one.calls for one in own),
            units=sum(one.units for one in own),
            waiting=sum(len(one.waiting) for one in own),
            budgets=0 if self._budgets is None else self._budgets.remembered,
        )

    def __repr__(self) -> str:
        return f"<WorkBudget: {self.statistics()}>"

    def spent(self, user: str) -> float:
        """Units that are missing of the budget of ``user``; more than it holds where that is a debt."""
        return 0.0 if self._budgets is None else self._budgets.missing(user)

    async def begin(self, user: str) -> Call:
        """A call of ``user``; the caller that begins one ends it. Raises ``TooMuchWork``."""
        if self._budgets is None:
            return Call(self, user, None)
        own = self._own.get(user)
        if own is not None and own.calls >= CALLS:
            await self._wait_for_calls(user, 1)
            own = self._own.get(user)
        if own is None:
            own = self._own[user] = _Own(user)
        own.calls += 1
        call = Call(self, user, own)
        try:
            await call.spend(CALL)
        except BaseException:
            call.end()
            raise
        return call

    async def _wait_for_calls(self, user: str, count: int) -> None:
        """Return if there may be ``count`` more calls of ``user`` a second later; raises ``TooMuchWork`` otherwise."""
        await self._be_patient(user)
        own = self._own.get(user)
        if own is not None and own.calls + count > CALLS:
            raise TooMuchWork(f"{CALLS} of your requests are under way: wait for their answers", PATIENCE_SECONDS)

    def charge(self, user: str, units: float) -> None:
        """Take ``units`` of the budget of ``user``, also where that leaves a debt."""
        if self._budgets is not None and units:
            self._budgets.take(user, units)

    def charge_bytes(self, user: str, size: int) -> None:
        """``size`` bytes of a body came, and nothing more was done with them."""
        self.charge(user, size / BODY_BYTES)

    def _pace(self, user: str, units: float) -> float:
        """After how many seconds it is the turn of ``units`` more of what waits for no other."""
        wait = self._paced.wait(user, 0)
        self._paced.take(user, units)
        return wait

    def _next_connect(self, user: str) -> float:
        """After how many seconds ``user`` may make a connection more."""
        wait = self._connects.wait(user, 1)
        self._connects.take(user, 1)
        return wait

    async def _be_patient(self, user: str) -> None:
        """Those who began to wait together do not end together: each may be a refusal."""
        await self._clock.sleep(PATIENCE_SECONDS + self._pace(user, CALL))

    def _affords(self, user: str, units: int) -> bool:
        """Charge ``units`` where the budget has them; whether it has."""
        assert self._budgets is not None, "nobody asks without a limit"
        return self._budgets.take_now(user, units)

    async def _afford(self, user: str, units: int) -> None:
        """Charge ``units`` as soon as the budget has them; raises ``TooMuchWork`` where that is not soon."""
        assert self._budgets is not None, "nobody asks without a limit"
        wait = self._budgets.wait(user, units)
        if wait > PATIENCE_SECONDS:
            await self._be_patient(user)
            wait = self._budgets.wait(user, units)
        if wait > PATIENCE_SECONDS:
            raise TooMuchWork(f"your requests take more work than limits.work_rate allows; wait {wait:.1f} s", wait)
        self._budgets.take(user, units)
        if wait:
            await self._clock.sleep(wait)

    def _enters(self, own: _Own, units: int) -> bool:
        """Have ``units`` under way where it is their turn; whether it is."""
        if own.waiting or (own.units and own.units + units > AT_ONCE):
            return False
        own.units += units
        return True

    async def _enter(self, own: _Own, units: int) -> None:
        """Return when it is the turn of ``units``, which are under way then."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        own.waiting.append((units, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._leave(own, units)
            raise

    def _leave(self, own: _Own, units: int) -> None:
        """``units`` are no longer under way when everybody else had a turn of the event loop: what ends at once would
        hold nobody up by itself, and a hundred of them hold up everybody."""
        asyncio.get_running_loop().call_soon(self._left, own, units)

    def _left(self, own: _Own, units: int) -> None:
        """``units`` are under way no longer; whose turn it is now begins."""
        own.units -= units
        self._forget(own)
        while own.waiting:
            wanted, turn = own.waiting[0]
            if turn.cancelled():
                own.waiting.popleft()
            elif not own.units or own.units + wanted <= AT_ONCE:
                own.waiting.popleft()
                own.units += wanted
                turn.set_result(None)
            else:
                return

    def _end(self, own: _Own, calls: int) -> None:
        own.calls -= calls
        self._forget(own)

    def _forget(self, own: _Own) -> None:
        if not (own.calls or own.units):
            self._own.pop(own.user, None)


class Call:
    """One request of one user, from its token to its answer. State: its units that are under way."""

    __slots__ = ("_calls", "_own", "_units", "_work", "at_end", "user")

    def __init__(self, work: WorkBudget, user: str, own: _Own | None) -> None:
        """``own``: ``None`` where there is no limit."""
        self.user = user
        self._work = work
        self._own = own
        self._units = 0
        self._calls = 1
        """It counts as so many."""
        self.at_end: Callable[[], None] = _nothing
        """Called when this call ends: what it holds until then."""

    async def expect(self, size: int) -> None:
        """Return when a body of ``size`` bytes may come: it takes the memory of several calls. Raises
        ``TooMuchWork``."""
        more = size // CALL_BYTES
        if self._own is None or not more:
            return
        self.pause()
        if self._own.calls + more > CALLS:
            await self._work._wait_for_calls(self.user, more)
        self._own.calls += more
        self._calls += more

    async def spend(self, units: int) -> None:
        """Return when work of ``units`` more may begin; what was under way has ended. Raises ``TooMuchWork``."""
        if self._own is None or not units:
            return
        self.pause()
        if not self._work._affords(self.user, units):
            await self._work._afford(self.user, units)
        # Nearly always it is their turn now.
        if units <= HEAVY and self._work._enters(self._own, units):
            self._units = units
        else:
            await self.turn(units)

    async def afford(self, units: int) -> None:
        """Return when ``units`` are charged, for work that takes its turns in parts. Raises ``TooMuchWork``."""
        if self._own is not None:
            self.pause()
            if not self._work._affords(self.user, units):
                await self._work._afford(self.user, units)

    async def turn(self, units: int) -> None:
        """Like ``spend``, for work that is charged already."""
        if self._own is None:
            return
        self.pause()
        if not self._work._enters(self._own, units):
            await self._work._enter(self._own, units)
        self._units = units
        if units > HEAVY:
            # So that one user has a third of a core at most, and the time of the others is not cut into slices.
            await self._work._clock.sleep(units * UNIT_SECONDS * REST)

    def charge(self, units: float) -> None:
        """What was found to be work only when it was done; the next call waits for it."""
        self._work.charge(self.user, units)

    async def rest(self, size: int) -> None:
        """Return when ``size`` more bytes of a body would have been read at the pace of a user."""
        if self._own is not None:
            await self._work._clock.sleep(self._work._pace(self.user, size / READ_BYTES) + size / READ_BYTES / PACE)

    async def connect(self) -> None:
        """Return when a connection more may be made. Raises ``TooMuchWork``."""
        await self.spend(CONNECT)
        self.pause()
        if self._own is not None and (wait := self._work._next_connect(self.user)):
            await self._work._clock.sleep(wait)

    def pause(self) -> None:
        """Nothing is under way: this call waits for its client, or for another turn."""
        if self._units and self._own is not None:
            units, self._units = self._units, 0
            self._work._leave(self._own, units)

    def end(self) -> None:
        """It is answered, or will not be."""
        at_end, self.at_end = self.at_end, _nothing
        at_end()
        if self._own is not None:
            self.pause()
            self._work._end(self._own, self._calls)
            self._own = None


def _nothing() -> None:
    """Nothing is held."""


def of_body(body: bytes, values: int) -> int:
    """The units of a body with ``values`` values in it."""
    return len(body) // BODY_BYTES + values // UNIT_VALUES
