"""The WebSockets of this node: registers them, renews their leases, pokes them, closes them, and migrates a user's hot
mail when their last one ends.

A connection that the store does not know (its lease ran out, or the store lost its data) is *forgotten*: the node
registers it again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from msgspec import Struct

from router.clock import Clock, Tasks
from router.core import challenges, disconnection
from router.core.challenges import ANSWER_SECONDS, STEP_SECONDS, WAIT_SECONDS, Challenges
from router.core.migrator import Migrator
from router.errors import Draining, RouterError, TooManyConnections
from router.interfaces import PokeBus, PresenceCache
from router.messages import Connection
from router.metrics import Metrics

RENEW_CONNECTIONS = 500
RENEWING = 8
"""Concurrent calls that renew leases: more than one, so that a call that hangs does not delay the rest past their
leases."""
OUTAGE_FAILURES = 10
"""After this many failures in one heartbeat, connections that are still to be registered again wait for the next."""
CLOSE_CONNECTIONS = 200
"""While draining, close this many sockets, then yield to the event loop."""
CLOSE_PAUSE_SECONDS = 0.05
CLOSE_SECONDS = 2.0
"""How long to wait for a peer to take the close frame."""
REGISTERING = 128
"""Concurrent registrations: after a deploy all clients reconnect at once."""
TICK_SECONDS = 1.0
KEYS_SECONDS = 1.0
"""How often to check which keys are still trusted."""

GOING_AWAY = 1001  # RFC 6455, section 7.4.1
TRY_AGAIN_LATER = 1013  # the registry of RFC 6455, section 11.7
TOKEN_EXPIRED = 4401
REPLACED = 4409
DISCONNECTED = 4410
CLOSE_CODES = (GOING_AWAY, TRY_AGAIN_LATER, TOKEN_EXPIRED, REPLACED, DISCONNECTED)
"""docs/http.md#websockets says what a client does about each."""
TURNS = 3
"""Turns of the event loop that it takes to read what arrived while the loop was blocked."""
FORGOTTEN = 1024
"""Entries for closed connections that the expiry heap may hold, beyond those of open ones, before it is cleaned up."""


class Socket(Protocol):
    """What the core needs of a WebSocket."""

    async def poke(self) -> None:
        """Send the poke; may wait for the peer. There is never more than one call at a time. Raises ``OSError`` if the
        peer is gone."""
        ...

    def ping(self) -> None:
        """Send a ping, unless an earlier one has no answer yet."""
        ...

    @property
    def silent_seconds(self) -> float:
        """How long the last ping has had no answer; 0 if it has one."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close; the socket's own task then calls ``ConnectionManager.disconnect``."""
        ...


class _Held(Struct, eq=False):
    connection: Connection
    socket: Socket
    key: bytes | None
    poking: bool = False
    again: bool = False


class Statistics(Struct, frozen=True):
    """What a ``ConnectionManager`` holds at one moment."""

    connections: int
    users: int
    """Who have one here."""
    poking: int
    """Connections to which a poke is being sent."""
    forgotten: int
    """Connections to be registered again."""
    expiries: int
    """Ends of tokens that are waited for; some of their connections may be gone."""
    tasks: int
    """Under way, for which a drain waits."""


class ConnectionManager:
    """Owns the presence of the sockets of one node. If the node dies, their leases end their presence."""

    def __init__(
        self,
        presence: PresenceCache,
        pokes: PokeBus,
        migrator: Migrator,
        *,
        node: str,
        new_id: Callable[[], str],
        heartbeat_seconds: float,
        connections_per_user: int,
        clock: Clock,
        tasks: Tasks,
        metrics: Metrics,
    ) -> None:
        self._presence = presence
        self._pokes = pokes
        self._migrator = migrator
        self._node = node
        self._new_id = new_id
        self._heartbeat_seconds = heartbeat_seconds
        self._limit = connections_per_user
        self._clock = clock
        self._tasks = tasks
        self._metrics = metrics
        metrics.closes(CLOSE_CODES)
        self._held: dict[str, _Held] = {}
        self._by_user: dict[str, dict[str, _Held]] = {}
        self._by_key: dict[bytes, dict[str, _Held]] = {}
        """By the key that signed their tokens: connections that are not being closed."""
        self._expiries: list[tuple[int, str]] = []
        """Heap of (when the token expires, connection id)."""
        self._forgotten: dict[str, Connection] = {}
        """By id: connections to register again, since the store does not know them, or may owe them a poke for mail
        that went to cold meanwhile."""
        self._proving: set[str] = set()
        """Users whose sockets were pinged just now and have time to answer."""
        self._challenges = Challenges(
            presence,
            pokes,
            self._prove,
            node=node,
            connections_per_user=connections_per_user,
            clock=clock,
            tasks=tasks,
        )
        self._registering = asyncio.Semaphore(REGISTERING)
        self._renewing = asyncio.Semaphore(RENEWING)
        self._work: set[asyncio.Task[None]] = set()
        self._draining = False

    def statistics(self) -> Statistics:
        """Costs a look at each connection."""
        return Statistics(
            connections=len(self._held),
            users=len(self._by_user),
            poking=sum(held.poking for held in self._held.values()),
            forgotten=len(self._forgotten),
            expiries=len(self._expiries),
            tasks=len(self._work),
        )

    def __repr__(self) -> str:
        return f"<ConnectionManager of {self._node}: {self.statistics()}>"

    def sockets(self, user: str) -> list[Socket]:
        """Those of this user's connections to this node."""
        return [held.socket for held in self._by_user.get(user, {}).values()]

    async def connect(self, user: str, socket: Socket, expires_at: int | None, key: bytes | None = None) -> Connection:
        """Register ``socket`` as a live connection of ``user`` until ``disconnect``.

        The manager closes it with 4401 at ``expires_at`` (µs since 1970), and when ``key`` is withdrawn. It pokes it if
        mail may be waiting, since mail may have come between the client's first fetch and this moment. If the user
        holds as many connections as they may, it replaces those that do not answer a ping. Raises
        ``TooManyConnections`` if all answer, ``Draining`` and ``Unavailable``.
        """
        try:
            return await self._enter(user, socket, expires_at, key)
        except TooManyConnections:
            held = await self._challenges.ask(user)
            if held is None:
                raise
        return await self._enter(user, socket, expires_at, key, held)

    async def _enter(
        self,
        user: str,
        socket: Socket,
        expires_at: int | None,
        key: bytes | None,
        replacing: Sequence[Connection] = (),
    ) -> Connection:
        if self._draining:
            raise Draining("this node is stopping; connect again")
        if len(self._by_user.get(user, ())) >= self._limit:
            # The store would refuse it too, but a flood of one user's sockets should cost no calls.
            raise TooManyConnections(f"{self._limit} connections are open, and the limit is reached; close one first")
        connection = Connection(user, self._new_id(), self._node, self._clock.now())
        held = _Held(connection, socket, key)
        # Hold it before registering it: a message that is routed to hot from then on finds a socket to poke.
        self._hold(held)
        try:
            async with self._registering:
                waiting = await self._presence.connect(connection, self._limit, replacing)
        except TooManyConnections:
            self._drop(held)
            raise
        except BaseException:
            # The store may have registered it although the call failed or was cancelled.
            self._drop(held)
            self._start(self._leave([connection]), "leave")
            raise
        if connection.id not in self._held:
            # A drain or an operator came in between; what ends its presence may have reached the store before this.
            self._start(self._leave([connection]), "leave")
            raise Draining("the connection was closed before it was open; connect again")
        if expires_at is not None:
            self._remember(expires_at, connection.id)
        if waiting:
            self._poke(held)
        return connection

    async def disconnect(self, connection: Connection) -> None:
        """Remove exactly this connection; if it was the user's last, migrate their hot mail."""
        held = self._held.get(connection.id)
        if held is None:
            return
        self._drop(held)
        await self._leave([connection])

    async def run(self, trusts: Callable[[bytes], bool] | None = None) -> None:
        """Until cancelled: renew leases, deliver pokes, and close connections whose token has expired or whose key
        ``trusts`` denies."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_forever())
            group.create_task(self._deliver_forever())
            group.create_task(self._expire_forever())
            if trusts is not None:
                group.create_task(self._withdraw_forever(trusts))

    async def drain(self) -> None:
        """Refuse new connections, close all with 1001 in paced batches, and migrate their users' hot mail."""
        self._draining = True
        while self._held:
            batch = list(self._held.values())[:CLOSE_CONNECTIONS]
            for held in batch:
                self._drop(held)
                self._start(self._close(held, GOING_AWAY, "going away"), "close")
            await self._leave([held.connection for held in batch])
            await self._clock.sleep(CLOSE_PAUSE_SECONDS)
        while self._work:
            await asyncio.wait(self._work)

    def _hold(self, held: _Held) -> None:
        self._held[held.connection.id] = held
        self._by_user.setdefault(held.connection.user, {})[held.connection.id] = held
        if held.key is not None:
            self._by_key.setdefault(held.key, {})[held.connection.id] = held
        self._metrics.connections(len(self._held))

    def _drop(self, held: _Held) -> None:
        if self._held.pop(held.connection.id, None) is None:
            return
        own = self._by_user[held.connection.user]
        del own[held.connection.id]
        if not own:
            del self._by_user[held.connection.user]
        self._forget_key(held)
        self._metrics.connections(len(self._held))

    def _forget_key(self, held: _Held) -> None:
        signed = self._by_key.get(held.key or b"")
        if signed is not None:
            signed.pop(held.connection.id, None)
            if not signed:
                self._by_key.pop(held.key or b"")

    async def _leave(self, connections: Sequence[Connection]) -> None:
        """End the presence of ``connections`` and migrate the mail of users who are offline by that. If it fails, the
        leases expire, and a sweeper does both."""
        try:
            gone = await self._presence.disconnect(connections)
        except RouterError:
            return
        for user in gone:
            self._start(self._migrate(user), "migrate")

    async def _migrate(self, user: str) -> None:
        with suppress(RouterError):
            await self._migrator.migrate(user)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._tasks.spawn(work, name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    # Pokes. A socket has at most one in flight, so that a client that does not read delays only its own.

    def poke(self, users: Sequence[str]) -> None:
        """Poke every connection of ``users`` that this node holds."""
        for user in users:
            for held in self._by_user.get(user, {}).values():
                self._poke(held)

    def _poke(self, held: _Held) -> None:
        if held.poking:
            held.again = True
            return
        held.poking = True
        # Not `_start`: a drain must not wait for it, since it may wait for the peer without end.
        self._tasks.spawn(self._send(held), "poke")

    async def _send(self, held: _Held) -> None:
        try:
            await held.socket.poke()
            while held.again:
                held.again = False
                await held.socket.poke()
        except OSError:
            # The peer is gone; the socket's own task notices and disconnects.
            self._metrics.poked("undeliverable", 1)
        finally:
            held.poking = False

    async def _deliver_forever(self) -> None:
        async for entries in self._pokes.listen(self._node):
            users = [entry for entry in entries if not entry.startswith((challenges.MARK, disconnection.MARK))]
            self._metrics.poked("heard", len(users))
            self.poke(users)
            for entry in entries:
                if entry.startswith(challenges.MARK):
                    self._tasks.spawn(self._prove(entry.removeprefix(challenges.MARK)), "prove")
                elif entry.startswith(disconnection.MARK):
                    self._end(entry.removeprefix(disconnection.MARK))

    def _end(self, id_: str) -> None:
        """Close this connection for an operator, and end its presence without waiting for its peer."""
        if held := self._held.get(id_):
            self._drop(held)
            self._start(self._close(held, DISCONNECTED, "disconnected by an operator"), "close")
            self._start(self._leave([held.connection]), "leave")

    # Challenges: do the sockets of a user at the limit still answer?

    async def _prove(self, user: str) -> None:
        """Ping the sockets of ``user``, renew the leases of those that answer, and close the others. If the store has
        forgotten one that answers, register it again at once.

        A second challenge meanwhile does nothing: the node that asked read the leases before this renewal, which
        answers it too.
        """
        if user in self._proving or user not in self._by_user:
            return
        self._proving.add(user)
        try:
            own = list(self._by_user[user].values())
            await self._let_answer(own)
            own = [held for held in own if held.connection.id in self._held]
            silent = [held for held in own if held.socket.silent_seconds >= ANSWER_SECONDS / 2]
        finally:
            self._proving.discard(user)
        self._replace(silent)
        living = [held.connection for held in own if held not in silent]
        if living:
            await self._extend(living)
        for connection in living:
            await self._register_forgotten(connection.id)

    async def _let_answer(self, asked: Sequence[_Held]) -> None:
        for held in asked:
            held.socket.ping()
        if all(held.socket.silent_seconds >= ANSWER_SECONDS for held in asked):
            return
        began, owing = self._clock.monotonic(), True
        while owing and self._clock.monotonic() - began < ANSWER_SECONDS:
            await self._clock.sleep(STEP_SECONDS)
            owing = any(held.socket.silent_seconds for held in asked)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _replace(self, silent: Sequence[_Held]) -> None:
        """Close ``silent``, but leave their presence for the new connection to replace, so that the user stays online
        meanwhile and no mail migrates. After ``WAIT_SECONDS`` end what it has not replaced."""
        for held in silent:
            self._drop(held)
            self._start(self._close(held, REPLACED, "replaced: no answer to a ping"), "close")
        if silent:
            self._tasks.spawn(self._leave_later([held.connection for held in silent]), "leave")

    async def _leave_later(self, connections: Sequence[Connection]) -> None:
        await self._clock.sleep(WAIT_SECONDS)
        await self._leave(connections)

    # Leases.

    async def _renew_forever(self) -> None:
        while True:
            await self._clock.sleep(self._heartbeat_seconds)
            with suppress(RouterError):
                await self.renew()

    async def renew(self) -> None:
        """Extend every lease, and register the connections again that the store has forgotten.

        A failure holds up no other connection; the first one is raised at the end.
        """
        # `_prove` renews those of challenged users, and only if they answer.
        asked = self._proving
        connections = [held.connection for held in self._held.values() if held.connection.user not in asked]
        batches = [connections[at : at + RENEW_CONNECTIONS] for at in range(0, len(connections), RENEW_CONNECTIONS)]
        failures = [error for error in await asyncio.gather(*map(self._extend, batches)) if error is not None]
        for id_ in list(self._forgotten):
            if len(failures) >= OUTAGE_FAILURES:
                break
            if (error := await self._register_forgotten(id_)) is not None:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _extend(self, connections: Sequence[Connection]) -> RouterError | None:
        async with self._renewing:
            try:
                forgotten = await self._presence.renew(connections)
            except RouterError as error:
                return error
        self._forgotten |= {connection.id: connection for connection in forgotten}
        return None

    async def _register_forgotten(self, id_: str) -> RouterError | None:
        """Register it again if the store has forgotten it; returns the error if that fails."""
        connection = self._forgotten.pop(id_, None)
        if connection is None:
            return None
        try:
            await self._register_again(connection)
        except RouterError as error:
            # It may be registered, but whether mail waits is unknown. At the end of the dict, it comes last next time.
            self._forgotten[id_] = connection
            return error
        return None

    async def _register_again(self, connection: Connection) -> None:
        held = self._held.get(connection.id)
        if held is None:
            return
        try:
            waiting = await self._presence.connect(connection, self._limit)
        except TooManyConnections:
            # The user has opened others meanwhile.
            self._start(self._close(held, TRY_AGAIN_LATER, "too many connections"), "close")
            return
        if connection.id not in self._held:
            await self._leave([connection])
        elif waiting:
            self._poke(held)

    # Expired tokens and withdrawn keys. Close a batch at a time, as in a drain, since all may end at once.

    async def _expire_forever(self) -> None:
        more = False
        while True:
            await self._clock.sleep(CLOSE_PAUSE_SECONDS if more else TICK_SECONDS)
            more = self.close_expired() >= CLOSE_CONNECTIONS

    async def _withdraw_forever(self, trusts: Callable[[bytes], bool]) -> None:
        more = False
        while True:
            # Cheap, since there are few keys.
            await self._clock.sleep(CLOSE_PAUSE_SECONDS if more else KEYS_SECONDS)
            more = self.close_withdrawn(trusts) >= CLOSE_CONNECTIONS

    def _remember(self, expires_at: int, id_: str) -> None:
        heapq.heappush(self._expiries, (expires_at, id_))
        if len(self._expiries) > 2 * len(self._held) + FORGOTTEN:
            self._expiries = [expiry for expiry in self._expiries if expiry[1] in self._held]
            heapq.heapify(self._expiries)

    def close_expired(self) -> int:
        """Close up to a batch of connections whose token has expired; returns how many entries left the heap."""
        now, looked = self._clock.now(), 0
        while looked < CLOSE_CONNECTIONS and self._expiries and self._expiries[0][0] <= now:
            looked += 1
            held = self._held.get(heapq.heappop(self._expiries)[1])
            if held is not None:
                self._start(self._close(held, TOKEN_EXPIRED, "token expired"), "close")
        return looked

    def close_withdrawn(self, trusts: Callable[[bytes], bool]) -> int:
        """Close up to a batch of connections whose key ``trusts`` denies; returns how many."""
        denied = (held for key, signed in self._by_key.items() if not trusts(key) for held in signed.values())
        batch = list(islice(denied, CLOSE_CONNECTIONS))
        for held in batch:
            self._forget_key(held)
            self._start(self._close(held, TOKEN_EXPIRED, "key withdrawn"), "close")
        return len(batch)

    async def _close(self, held: _Held, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await held.socket.close(code, reason)
        except (OSError, TimeoutError):
            self._metrics.closed(code, clean=False)
            # The socket's own task may notice late; until then it must not keep the user online.
            await self.disconnect(held.connection)
        else:
            self._metrics.closed(code, clean=True)
