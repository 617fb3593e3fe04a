"""The seams: all that a backend must do, on one page.

* Ingress: ``IngressProducer``, ``IngressConsumer``; ``RoutingIngress`` where it is in one file with the queues.
* Online store: ``OnlineStore``, made of ``PresenceCache`` and ``HotQueue``, which is ``Routing``, ``UserQueue``,
  ``Migration`` and ``Maintenance``.
* Cold queue: ``ColdQueue``.
* Pokes, push commands and dead letters: ``PokeBus``, ``PushNotifier``, ``DeadLetterQueue``, ``DeadLetters``.
* For operators: ``MessageTraces``.

These rules hold for every method:

* It may raise :class:`router.errors.Unavailable`. Then nobody knows whether the call took effect, and the caller
  repeats it, unless the method says otherwise. So every mutation is idempotent.
* Users are canonical URNs as text, points in time are µs since 1970.
* ``router.factory`` opens each component as an asynchronous context manager and closes them in reverse order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Protocol

from router.errors import RouterError
from router.message_trace import Facts
from router.messages import (
    ColdPage,
    Connection,
    DeadLetter,
    Delivery,
    Forgotten,
    HotPage,
    HotUser,
    Message,
    Move,
    MoveRefused,
    Published,
    Queued,
    QueueTotals,
    Routed,
    Settled,
)

Place = tuple[int, int]
"""(lane, sequence): where a message stands in its recipient's queue."""
BEFORE_ALL: Place = (-1, -1)
MOST_IDS = 1000
"""Upper bound of ids in one call of ``ColdQueue.find``; no acknowledgement has more."""


# Ingress


class IngressProducer(Protocol):
    """The write end of the ingress topic."""

    async def publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        """Return once each of ``messages`` is durable or has failed: for each, in their order, ``None`` or its error.

        Raises an error that all of them share, as the one of a single message is, for example ``NoRoom`` where the
        volume is nearly full. The sender of a message that failed gets an error and sends it again; the message may
        have been accepted nevertheless.

        The ingress delivers a recipient's messages of one call in the order given, and those of two calls in the order
        of the calls if the first ends before the second begins. Where a message fails with ``Unavailable``, the later
        ones of that recipient in the call fail too, so that none of them overtakes it when it is sent again.
        """
        ...

    async def probe(self) -> None:
        """Raise ``Unavailable`` unless a publish would succeed now; for readiness."""
        ...

    async def backlog(self) -> QueueTotals | None:
        """The messages that are not routed yet; ``None`` where the topic cannot say."""
        ...


class RoutingIngress(Protocol):
    """The write end of an ingress beside the queues: one file holds all that a message passes, so a message is routed
    in the transaction that makes it durable."""

    async def publish(self, messages: Sequence[Message]) -> Published:
        """Return once each of ``messages`` is durable: in the hot queue with its owed poke, in the cold queue with its
        push command, a dead letter, or dropped. The rules are those of ``Routing.route``.

        While the ingress holds messages of a recipient, the new ones go there too, behind these. Raises ``NoRoom``
        where the volume is nearly full. When it fails, none of ``messages`` has an effect, or all have.

        The work before the answer is the same whether a recipient is online or not. The caller sends the pokes.
        """
        ...

    async def probe(self) -> None:
        """As ``IngressProducer.probe``."""
        ...

    async def backlog(self) -> QueueTotals | None:
        """As ``IngressProducer.backlog``."""
        ...


class IngressConsumer(Protocol):
    """The read end of the ingress topic."""

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for at least one delivery and return up to ``limit``, each recipient's in the order of their publishes.

        If a consumer dies, the ingress redelivers what that consumer has neither acknowledged nor handed back, the
        oldest first.
        """
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Remove these, which are routed. When it fails they may be redelivered; ``Routing.route`` recognizes them."""
        ...

    async def nack(self, deliveries: Sequence[Delivery]) -> None:
        """Hand these back. The ingress redelivers them in their order, with ``attempt`` increased by 1."""
        ...


# Online store: presence


class PresenceCache(Protocol):
    """Who is online. Each connection has a lease; the user is online while one of their leases runs.

    A call is atomic for each user.
    """

    async def connect(self, connection: Connection, limit: int, replacing: Sequence[Connection] = ()) -> bool:
        """Register ``connection``, or register it again, with a fresh lease; routing sees it at once.

        The same step removes each of ``replacing`` (results of ``connections``) whose lease was not renewed since.
        Raises ``TooManyConnections`` if the user still holds ``limit`` other live connections, and then removes none.

        Returns whether mail may be waiting. Then the caller pokes the connection. The store treats the user as one
        whose page was cut short just now, so that a sweeper pokes again if no fetch follows.
        """
        ...

    async def renew(self, connections: Sequence[Connection]) -> list[Connection]:
        """Extend the leases. Returns the connections that are unknown or whose lease has run out: the caller calls
        ``connect`` for each, since mail that went to cold meanwhile has sent them no poke."""
        ...

    async def disconnect(self, connections: Sequence[Connection]) -> list[str]:
        """Remove exactly these connections. Returns the users whose last live connection this removed: the caller
        migrates their hot mail. When it fails the leases run out, and a sweeper calls ``expire``.

        A user who has another connection left, and may have mail in cold, counts as one whose page was cut short now:
        the closed connection may have fetched mail without acknowledging it.
        """
        ...

    async def expire(self, limit: int) -> list[str]:
        """Remove connections whose lease has run out, with the effects of ``disconnect``. Returns up to ``limit`` users
        whose last live connection this removed: the caller migrates their hot mail. If the caller dies first,
        ``Maintenance.hot_users`` names them."""
        ...

    async def connections(self, user: str) -> list[Connection]:
        """The live connections of one user."""
        ...

    def everyone(self) -> AsyncIterator[list[Connection]]:
        """The live connections of all users, one user's at a time, in the order of ``connections``.

        Each user who is connected all the while comes once, in the store's own order. Reads no more than the caller
        takes, a page ahead at most.
        """
        ...

    async def online(self) -> QueueTotals:
        """How many users (``users``) hold how many live connections (``messages``)."""
        ...


# Online store: routing


class Routing(Protocol):
    """Which tier a message goes to, and the record of every id that was routed.

    A record belongs to one user and one id; different recipients may have messages with the same id. It outlives the
    message by ``tombstone_seconds``, so that the store recognizes a redelivery (``router.lifecycle``).
    """

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        """Route each message in one atomic step: check presence, give the sequence, find duplicates, enqueue, poke.

        All of ``deliveries`` hold a message. Messages of one recipient are routed in the order given. A redelivery gets
        the sequence that it has, and an outcome that says what is still to be done for it. One that was
        ``delivered_before`` may have a copy in cold, written by a pipeline that could not reach this store.

        When it fails, the caller repeats it, or routes to cold by itself and calls ``settle`` later (``core.outage``).
        """
        ...

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        """Record that the cold queue holds ``messages`` durably. Their envelopes are not read.

        A message that was pending no longer is, and a user who has come online since is poked. A message that is hot
        counts as hot with a copy in cold from here on. An unknown message is recorded as in cold, with the sequence
        that it has.

        The caller acts on the result as ``Settled`` says, and repeats a failed call: until it works, no fetch returns
        what stands behind a pending message.
        """
        ...


# Online store: one user's hot queue


class UserQueue(Protocol):
    """Reading and acknowledging hot mail.

    A call is atomic for each message; one that names many may take several steps.
    """

    async def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
        """The heads of both lanes, from which any page with these bounds can be cut (``router.pages.Head``).

        Messages that this read misses are poked for: it resets the poke flag first, so that the next message pokes
        again. For a connected user it also records whether the fetch answers the pokes before it:

        1. Nothing is cut off, and cold is known to be empty: the pokes are answered.
        2. Something is cut off: the page counts as cut short, under the mark ``HotPage.cut_at``.
        3. Cold may hold mail, and a poke or an earlier page that was cut short has no answer yet: the same.

        So a fetch that dies half-way answers nothing. A caller that learns more from cold says so with ``note_end`` or
        ``note_cut``.

        ``again``: a repeated read within one fetch. It changes neither flag nor mark: a poke that was sent since the
        first read may have been lost, and the client may have given this fetch up.
        """
        ...

    async def note_end(self, user: str, cut_at: int) -> None:
        """Clear the mark ``cut_at``: that fetch has reached the end of both tiers.

        Does nothing if a later fetch has set another mark, or the user has acknowledged since; they are then poked
        once more than needed, as also when this fails.
        """
        ...

    async def note_cut(self, user: str) -> None:
        """Mark the user's page as cut short: a fetch has left mail out, although its first read set no mark."""
        ...

    async def acked(self, user: str, ids: Sequence[str], under_way: Sequence[str] = ()) -> set[str]:
        """Those of ``ids``, which the caller has found in cold, that this user has acknowledged; and those of
        ``under_way``, which a ``HotPage`` named as pending, that are acknowledged, or have left with their records.

        An acknowledged message whose copy nobody is about to delete becomes an orphan, which a sweeper deletes.
        """
        ...

    async def ack(self, user: str, ids: Sequence[str]) -> list[str]:
        """Delete these from hot and remember them as acknowledged, durably; ids that this user does not have are
        ignored. If the last page was cut short, the user's time to fetch the next one begins again.

        Returns the ids of which cold may have a copy, among them each id that is unknown. The caller deletes these
        from cold and then calls ``forget_orphans``; if it fails to, a sweeper does both.
        """
        ...

    async def ack_and_read(
        self, user: str, ids: Sequence[str], limit: int, max_bytes: int
    ) -> tuple[list[str], HotPage]:
        """``ack`` of at least one of ``ids``, and then the first ``read`` of a fetch, in one exchange where the store
        can. The page is of a moment after the acknowledgement. When it fails, each may have taken effect."""
        ...

    async def discard(self, user: str, damaged: Sequence[Queued]) -> list[str]:
        """Take these, as ``read`` of either tier gave them, out of the user's queue; else and in its result like
        ``ack``. Their ids may be damaged too: a message that has the id but another place stays."""
        ...

    async def note_cold_empty(self, user: str, version: int) -> None:
        """The caller has read cold and found it empty. Ignored unless ``version`` (``HotPage.cold_version``) is still
        the current one, and no cold write is pending."""
        ...


# Online store: migration


class Migration(Protocol):
    """Moving hot mail to cold, a batch at a time: ``begin_move``, ``ColdQueue.put``, ``end_move``.

    Where both tiers are in one file, ``begin_move`` moves what is whole in one step, and nothing more is due for it.

    A migrator that dies leaves its batch in hot, and perhaps copies in cold. Once its lease has ended, the next one
    moves the batch again.
    """

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        """Take, in one atomic step, this user's migration lease for ``owner`` and their oldest ``limit`` messages.

        The messages can still be read in hot. Ephemeral ones are dropped, and counted in the result. The store refuses
        if another owner holds the lease, or if the user is online, unless ``online_too``.
        """
        ...

    async def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> list[str]:
        """Delete ``moved``, which cold holds durably, from hot. Returns the ids that were acknowledged meanwhile: the
        caller deletes them from cold and then calls ``forget_orphans``."""
        ...

    async def release_move(self, user: str, owner: str) -> None:
        """Give up the migration lease. When it fails, the lease ends by itself."""
        ...


# Online store: maintenance


class Maintenance(Protocol):
    """What sweepers and operators ask of all users. A sweeper whose call fails does it in its next round."""

    async def hot_users(self, after: str, limit: int) -> list[HotUser]:
        """Up to ``limit`` users with hot mail, an unanswered poke, or a page that was cut short: those behind
        ``after``, which is the last user of the page before, or empty for the first page.

        Fewer than ``limit`` are the end. The order is the store's own and is stable, so that a walk meets each user
        who stays busy exactly once.
        """
        ...

    async def poke(self, users: Sequence[str]) -> None:
        """Poke every live connection of these users, whether they have fetched or not."""
        ...

    async def stop_poking(self, users: Sequence[str]) -> None:
        """Stop repeating pokes to those of these users who have no live connection, until new mail comes."""
        ...

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        """Hot messages without a push command, queued before ``before`` (µs), the oldest first; ephemeral ones need
        none. With such a message come those in front of it, since ``mark_announced`` marks them too."""
        ...

    async def mark_announced(self, messages: Sequence[Queued]) -> None:
        """Record that the push commands of these are published. When it fails, they are published again."""
        ...

    async def forget_cold(self, expired: Sequence[Queued]) -> None:
        """Count these as acknowledged: retention is about to delete them from cold."""
        ...

    async def orphans(self, limit: int) -> list[tuple[str, str]]:
        """(user, id) of messages that were acknowledged at least a minute ago and may have a copy in cold that nobody
        has reported as deleted. The caller deletes the copies and then calls ``forget_orphans``."""
        ...

    async def forget_orphans(self, user: str, ids: Sequence[str]) -> None:
        """Record that cold has no copy of these acknowledged messages any more.

        While a migrator holds the user's migration lease they stay orphans: it may be about to write the copy.
        """
        ...

    async def purge(self, limit: int, at: int) -> int:
        """Delete the tombstones whose time was over at ``at`` (µs), and the ephemeral messages past their time,
        ``limit`` in one step. Returns how many ephemeral messages that were. A store may leave some to the next call.

        ``at`` is 0 while no clock can be believed: then only ephemeral messages go. Else the store also forgets the
        places of pending messages that are older than ``StoreRules.abandoned_before``: nobody is going to write them.
        A store that has no index of these forgets a user's in ``read``.
        """
        ...

    async def inspect(self, user: str, limit: int) -> list[Queued]:
        """The first messages of one hot queue. Changes nothing, not even the poke flag; for operators only."""
        ...

    async def totals(self, user: str | None) -> QueueTotals:
        """Hot mail of one user, or of all."""
        ...

    async def forget_user(self, user: str, limit: int) -> Forgotten:
        """Delete up to ``limit`` records of this user, tombstones too, and after the last one all else that the store
        keeps of them; for an operator who removes a person.

        One atomic step refuses that while mail is hot, a migrator holds the migration lease, or a cold write that is
        pending is younger than ``UNDER_WAY_SECONDS``: who works on them needs the records. From here on nothing tells
        a redelivery from a new message, so the caller first waits until none is due.
        """
        ...

    async def lead(self, owner: str) -> bool:
        """Whether ``owner`` is the one process that counts for all of them (``core.census``): it takes or extends a
        lease of ``LEAD_SECONDS``, in one atomic step. A store on this machine gives a lock, which ends with the
        process."""
        ...

    async def probe(self) -> None:
        """Raise ``Unavailable`` unless the store works now; for readiness."""
        ...

    async def compare_clocks(self) -> float:
        """How many seconds this process's clock is ahead of the store's, beyond what the duration of the call can
        explain; 0 where they are one clock. From here on the store's clock decides when ephemeral mail expires."""
        ...


class HotQueue(Routing, UserQueue, Migration, Maintenance, Protocol):
    """The fast queue of users who are online."""


class OnlineStore(PresenceCache, HotQueue, Protocol):
    """Presence and hot queue in one store, since ``route`` needs both in one atomic step."""


# Cold queue


class ColdQueue(Protocol):
    """The durable queue of users who are offline. A call is atomic for each message."""

    # Delivery

    async def put(self, messages: Sequence[Queued]) -> list[Queued]:
        """Write each message; durable on return.

        If its id is there already, the lower of the two sequences stays, as in a merge of the tiers. The envelope that
        is there stays too, unless it is damaged: then the new one replaces it.

        Returns the messages that were not written, which the caller puts again. Raises ``Refused`` where one can never
        be written, for example because it is too large; some of the others may have been written then.
        """
        ...

    async def read(self, user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
        """Without ``after`` the heads of both lanes, as in ``UserQueue.read``. With it the messages behind ``after``:
        at least one, and up to ``limit`` whose envelopes have ``max_bytes`` together.

        Mail past its retention can be read until it is deleted: a wrong clock hides nothing.
        """
        ...

    async def find(self, user: str, ids: Sequence[str], *, envelopes: bool = False) -> list[Queued]:
        """Those of ``ids`` that this user's cold queue holds, each once, in any order; messages of other users are
        never found. The cost grows with ``ids`` and not with the queue.

        Without ``envelopes``, they are empty, ``left_out`` gives their sizes, and no checksum matches. With
        ``envelopes``, the caller names few ids, since nothing limits the bytes, and checks what it gets. Raises
        ``ValueError`` for more than ``MOST_IDS``.
        """
        ...

    async def delete(self, user: str, ids: Sequence[str]) -> None:
        """Delete these of this user; unknown ids are not an error."""
        ...

    async def repair(self, user: str, messages: Sequence[Queued]) -> None:
        """Overwrite the envelopes of these, and nothing else. A message that is not there was acknowledged, and is not
        written."""
        ...

    # Retention

    async def expired(self, before: int, limit: int) -> list[Queued]:
        """Up to ``limit`` messages queued at ``before`` (µs) or earlier, with empty envelopes. Each call finds them
        until ``expire`` has removed them."""
        ...

    async def expire(self, expired: Sequence[Queued]) -> list[Queued]:
        """Remove these; the caller has called ``Maintenance.forget_cold`` before. Returns those that are removed;
        raises if none is."""
        ...

    # What was written during an outage of the online store

    async def unreported(self, before: int, limit: int) -> list[Queued]:
        """Up to ``limit`` messages, with empty envelopes, that are still ``unreported`` and were queued at ``before``
        (µs) or earlier."""
        ...

    async def update_places(self, messages: Sequence[Queued]) -> None:
        """Update the messages that are in cold: ``unreported`` as given, and the sequence if the given one is lower.

        Raises unless all are as given on return, since the caller then reports these places to the online store.
        """
        ...

    # For operators

    async def oldest(self, limit: int) -> list[tuple[str, QueueTotals]]:
        """The users whose cold queues hold the oldest mail."""
        ...

    async def longest(self, limit: int) -> list[tuple[str, QueueTotals]]:
        """The users whose cold queues hold the most messages. A store that cannot rank all of them ranks those with the
        oldest mail."""
        ...

    async def totals(self, user: str | None) -> QueueTotals:
        """Cold mail of one user, or of all."""
        ...

    async def probe(self) -> None:
        """Raise ``Unavailable`` unless the queue works now; for readiness."""
        ...


# Pokes, push commands and dead letters


class TraceContexts(Protocol):
    """Which span each message is a child of, for services that are asked for traces. Apart from the messages, so that
    others pay nothing for it. Every method raises ``Unavailable``; callers go on without."""

    async def keep(self, messages: Sequence[Message]) -> None:
        """Remember ``Message.trace`` of these for ``trace_context.TRACE_SECONDS``, or until ``take``."""
        ...

    async def find(self, user: str, ids: Sequence[str]) -> dict[str, str]:
        """``Message.trace`` by id, of those of ``ids`` that are remembered for this user."""
        ...

    async def take(self, user: str, ids: Sequence[str]) -> dict[str, str]:
        """Like ``find``, and forget them: the messages are acknowledged."""
        ...


class PokeBus(Protocol):
    """Carries pokes to the nodes that hold the connections."""

    async def publish(self, pokes: Sequence[tuple[str, str]]) -> None:
        """Send (node, user) pairs, best effort: a sweeper repeats a poke that got lost."""
        ...

    def listen(self, node: str) -> AsyncIterator[list[str]]:
        """The users to poke on this node, several at a time."""
        ...


class PushNotifier(Protocol):
    """Publishes the commands that a notification service consumes."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish one command for each message; durable on return. A repeated call publishes a command twice."""
        ...


Receipt = int | str
"""What a queue of dead letters needs to remove one."""
LetterPage = list[tuple[Receipt, DeadLetter]]


class DeadLetterQueue(Protocol):
    """The read end of the dead letters, to replay or discard them."""

    def pages(self) -> AsyncGenerator[LetterPage]:
        """The dead letters that are there when it is called, each with its receipt; the oldest first where the queue
        has an order.

        A queue may hold what it has returned until the end, so that nobody else gets it: a caller that leaves early
        closes it.
        """
        ...

    async def remove(self, receipts: Sequence[Receipt]) -> None:
        """Remove these, which are replayed or discarded. A later ``pages`` returns those that could not be removed."""
        ...


class DeadLetters(Protocol):
    """The write end of the dead letters."""

    async def publish(self, letters: Sequence[DeadLetter]) -> None:
        """Durable on return. Until then the caller keeps the refused messages."""
        ...


# For operators: what became of one message


class MessageTraces(Protocol):
    """What one backend knows of a message, in all the roles that it keeps. No call changes anything, or reads an
    envelope."""

    async def recipients(self, id_: str, looked: Callable[[int], None]) -> list[str]:
        """The recipients of messages with this id. The call tells ``looked`` how many users more it has looked at,
        where it has to look at many."""
        ...

    async def facts(self, user: str, id_: str, place: Place | None) -> Facts:
        """What is known of the message ``id_`` of ``user``, of one moment where the store can.

        ``place``: where the online store has it, if that is another backend, which is asked first; ``None`` if that
        does not know it.
        """
        ...
