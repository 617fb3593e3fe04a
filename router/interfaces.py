"""The seams: all that a backend must do, on one page.

Every component is opened as an async context manager by ``router.factory`` and closed in reverse order.
Every call may raise :class:`router.errors.Unavailable`; every mutation is idempotent, since its caller
repeats it when the answer was lost. Users are canonical URNs as text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from router.messages import (
    ColdPage,
    Connection,
    DeadLetter,
    Delivery,
    HotPage,
    HotUser,
    Message,
    Move,
    MoveRefused,
    Queued,
    QueueTotals,
    Routed,
    Settled,
)

Place = tuple[int, int]
"""(lane, sequence): where a message stands in its recipient's queue."""
BEFORE_ALL: Place = (-1, -1)
MOST_IDS = 1000
"""The most ids that ``ColdQueue.find`` looks for at once; no acknowledgement has more."""


class IngressProducer(Protocol):
    """The write end of the ingress topic."""

    async def publish(self, message: Message) -> None:
        """Return once ``message`` is durable. Messages of one recipient whose publishes do not overlap
        are handed out in the order of their publishes."""
        ...

    async def probe(self) -> None:
        """Raise ``Unavailable`` unless a publish would succeed now; for readiness."""
        ...

    async def backlog(self) -> QueueTotals | None:
        """What waits to be routed; ``None`` where the topic does not tell."""
        ...


class IngressConsumer(Protocol):
    """The read end of the ingress topic."""

    async def receive(self, limit: int) -> list[Delivery]:
        """Wait for at least one delivery and return up to ``limit``, one recipient's in publish order.
        What is neither acknowledged nor handed back when its holder dies is delivered again, the oldest
        first."""
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are routed for good and are not delivered again."""
        ...

    async def nack(self, deliveries: Sequence[Delivery]) -> None:
        """Hand these back; they are delivered again in their order, with ``attempt`` counted up."""
        ...


class PresenceCache(Protocol):
    """Who is online, by leases on single connections."""

    async def connect(self, connection: Connection, limit: int, replacing: Sequence[Connection] = ()) -> bool:
        """Register, or register again, with a fresh lease; at once true for routing.

        In the same step those of ``replacing`` are removed whose leases are still what ``connections`` said: nobody has
        renewed them since. Returns whether mail may be waiting: then the caller pokes the connection, and the user
        counts as one whose page was cut short now, who is poked again without a fetch. Raises ``TooManyConnections``
        if the user still holds ``limit`` other live connections; then none is removed.
        """
        ...

    async def renew(self, connections: Sequence[Connection]) -> list[Connection]:
        """Extend the leases; returns those that are unknown here, or have run out, and must ``connect`` again: what
        went to cold meanwhile was not poked for."""
        ...

    async def disconnect(self, connections: Sequence[Connection]) -> list[str]:
        """Remove exactly these connections; returns the users who have no live one left because of it.

        For who has another, and may have mail in cold, a page counts as cut short now: what the ended one has fetched
        it may not have acknowledged. ``expire`` does the same.
        """
        ...

    async def expire(self, limit: int) -> list[str]:
        """Remove connections whose lease ran out; returns up to ``limit`` users who have no live one left
        because of it. A user whom the caller forgets is found again through ``HotQueue.hot_users``."""
        ...

    async def connections(self, user: str) -> list[Connection]:
        """The live connections of one user."""
        ...

    async def online(self) -> QueueTotals:
        """How many users (``users``) hold how many live connections (``messages``)."""
        ...


class HotQueue(Protocol):
    """The fast queue of users who are online, and the record of every id that was routed.

    The record outlives the message by ``tombstone_seconds``, so that a redelivery is known for what it is. It is one of
    a user and an id: the ids of one recipient have nothing to do with those of another.
    """

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        """For each message one atomic step: presence, sequence, dedupe, enqueue, and the poke.

        One recipient's messages are routed in the order given. The deliveries all hold a message. One that was
        delivered before (``attempt``) may have a copy in cold, written by a pipeline that could not reach this store.
        """
        ...

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        """Their cold write is committed: they are no longer pending, and a user who came online meanwhile
        is poked. Those that this store has never seen are recorded as in cold, with the sequence they have; those
        that are hot have a copy in cold from here on. Envelopes are not looked at."""
        ...

    async def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
        """The heads of both lanes, of which every page with these bounds can be cut (``router.pages.Head``).
        From here on a new message is poked again, also one that this read has just missed.

        A page answers the pokes before it if it is all there is: nothing is cut off, and cold is known to be empty.
        Else it counts as cut short, for users who are connected, where it is, and where a poke, or an earlier page that
        was cut short, is to be answered. So a fetch that dies answers nothing. Whoever knows better says so, with
        ``note_end`` and ``note_cut``.

        ``again``: a further look of a fetch that has looked before. It answers no poke: one that was sent since that
        look may have been lost, and nobody knows whether the client still waits for this fetch."""
        ...

    async def note_end(self, user: str, cut_at: int) -> None:
        """A fetch whose first look counts as cut short, with this mark, has come to the end of both tiers. Believed
        unless a later fetch counts so, or an acknowledgement has come since: that user is poked once too often."""
        ...

    async def note_cut(self, user: str) -> None:
        """A fetch whose first look does not count as cut short has left out what is there."""
        ...

    async def acked(self, user: str, ids: Sequence[str]) -> set[str]:
        """Those of ``ids``, found in cold or on their way to it, that this user has acknowledged. Where nobody owes the
        deletion of a copy, it becomes an orphan."""
        ...

    async def ack(self, user: str, ids: Sequence[str]) -> list[str]:
        """Delete these from hot and remember them as acknowledged; ids that are not this user's are left
        alone. Whoever has a page that was cut short has time from here on to fetch the next. Returns those of which
        this user may have a copy in cold, also under an id that is unknown; the caller deletes it there and then names
        it to ``forget_orphans``."""
        ...

    async def discard(self, user: str, damaged: Sequence[Queued]) -> list[str]:
        """Take these out of this user's queue, as ``read`` of either tier gave them, and remember them like ``ack``,
        whose result this is too. Their ids may be damaged: what has another place than they is left alone."""
        ...

    async def note_cold_empty(self, user: str, version: int) -> None:
        """The cold queue was read and found empty; believed only while ``version`` still holds."""
        ...

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        """Take this user's migration lease for ``owner`` and the oldest ``limit`` messages for moving.

        They stay readable in hot. Ephemeral ones are dropped and counted.
        """
        ...

    async def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> list[str]:
        """``moved`` are committed in cold: delete them from hot. Returns the ids that were acknowledged
        meanwhile, which the caller deletes from cold and then names to ``forget_orphans``."""
        ...

    async def release_move(self, user: str, owner: str) -> None:
        """Give up the migration lease."""
        ...

    async def hot_users(self, after: str, limit: int) -> list[HotUser]:
        """Up to ``limit`` users with hot mail, an unanswered poke, or a page that was cut short, those that follow
        ``after``: the last one of the page before, or empty for the first page. Fewer than ``limit`` are the end. The
        order is the store's own and stays the same, so that a walk meets everybody once who is busy all the while."""
        ...

    async def poke(self, users: Sequence[str]) -> None:
        """Poke every live connection of these users, fetched or not."""
        ...

    async def hush(self, users: Sequence[str]) -> None:
        """Do not poke those of these users who have no live connection again before new mail comes."""
        ...

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        """Hot, not ephemeral, queued before ``before`` (µs) and not announced yet, and what stands before such a
        one; the oldest first."""
        ...

    async def mark_announced(self, messages: Sequence[Queued]) -> None:
        """Their push commands are published."""
        ...

    async def forget_cold(self, expired: Sequence[Queued]) -> None:
        """Retention is about to remove these from cold: they count as acknowledged from here on."""
        ...

    async def orphans(self, limit: int) -> list[tuple[str, str]]:
        """(user, id) of messages that were acknowledged a minute ago or longer while cold had, or was about to
        get, a copy which nobody has reported as deleted: their worker died. The caller deletes them."""
        ...

    async def forget_orphans(self, user: str, ids: Sequence[str]) -> None:
        """No copy of these acknowledged messages is left in cold. While somebody holds the user's migration lease they
        stay orphans: the copy may be about to be written."""
        ...

    async def purge(self, limit: int, at: int) -> int:
        """Drop all tombstones whose time was over at ``at`` (µs), and ephemeral messages past their time, ``limit`` in
        one step; returns how many ephemeral ones were dropped. At ``at``, 0 where nobody knows the time, the places of
        mail on its way to cold that nobody is going to write any more are forgotten too
        (``StoreRules.abandoned_before``); a store that would have to look for them forgets a user's in ``read``."""
        ...

    async def inspect(self, user: str, limit: int) -> list[Queued]:
        """The first messages of one hot queue, without marking anything as fetched. Debugging only."""
        ...

    async def totals(self, user: str | None) -> QueueTotals:
        """Of one user, or of all."""
        ...


class OnlineStore(PresenceCache, HotQueue, Protocol):
    """Presence and hot queue in one store, as the atomic step demands."""

    async def probe(self) -> None:
        """Raise ``Unavailable`` unless the store works now; for readiness."""
        ...

    async def compare_clocks(self) -> float:
        """By how many seconds this process's clock is ahead of the store's, as far as the time of the answer does not
        explain it; 0 where they are one clock. From here on ephemeral mail is judged by the store's."""
        ...


class ColdQueue(Protocol):
    """The durable queue of users who are offline."""

    async def put(self, messages: Sequence[Queued]) -> list[Queued]:
        """Write each one unless its id is there already; then the lower sequence stays, as when the two tiers are
        merged, and the envelope that is there, unless it is damaged: then it is written anew. Durable on return.
        Returns those that were not written, for the caller to try again. Raises ``Refused`` where one can never be
        written, as when it is too large; others may have been written then."""
        ...

    async def read(self, user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
        """The heads of both lanes, like ``HotQueue.read``; or the first ``limit`` messages after ``after``, or fewer
        where their envelopes exceed ``max_bytes``, at least one. What is past its retention is read until it is
        deleted: a clock that is wrong hides nothing."""
        ...

    async def find(self, user: str, ids: Sequence[str], *, envelopes: bool = False) -> list[Queued]:
        """Those of ``ids`` that this user's cold queue holds now, each once, in any order. Nothing of other users' is
        found, whatever its id is. What this costs rises with ``ids``, and with nothing that is in the queue.

        Without ``envelopes`` none is read: they are empty, ``left_out`` says how large they are, and whether they are
        whole nobody knows, so that no checksum matches. With ``envelopes`` they come as they are stored; whoever asks
        for them names few, since their bytes have no bound, and checks them. Raises ``ValueError`` for more than
        ``MOST_IDS``."""
        ...

    async def mend(self, user: str, messages: Sequence[Queued]) -> None:
        """Overwrite the envelopes of these where they are here, and nothing else. What is not here stays away: it was
        acknowledged."""
        ...

    async def delete(self, user: str, ids: Sequence[str]) -> None:
        """Delete these of this user; unknown ones are not an error."""
        ...

    async def expired(self, before: int, limit: int) -> list[Queued]:
        """Up to ``limit`` messages that were queued at ``before`` (µs) or earlier, with empty envelopes. They are found
        again until ``expire`` has removed them."""
        ...

    async def expire(self, expired: Sequence[Queued]) -> list[Queued]:
        """Remove these, of which the online store has been told; returns those that are gone. Raises where none is."""
        ...

    async def untold(self, before: int, limit: int) -> list[Queued]:
        """Up to ``limit`` messages, with empty envelopes, that were written as ``untold``, were queued at ``before``
        (µs) or earlier, and are not told yet."""
        ...

    async def amend(self, messages: Sequence[Queued]) -> None:
        """Each of these that is here is ``untold`` or not, as given, and moves to the sequence given, where that is
        lower. Raises unless that is so of all on return: the caller then tells the online store of these places."""
        ...

    async def oldest(self, limit: int) -> list[tuple[str, QueueTotals]]:
        """The users whose cold queues hold the oldest mail."""
        ...

    async def totals(self, user: str | None) -> QueueTotals: ...

    async def probe(self) -> None: ...


class PokeBus(Protocol):
    """Carries pokes to the nodes that hold the connections."""

    async def publish(self, pokes: Sequence[tuple[str, str]]) -> None:
        """Send (node, user) pairs; best effort, since a lost poke is sent again by the sweeper."""
        ...

    def listen(self, node: str) -> AsyncIterator[list[str]]:
        """The users to poke on this node, in bunches."""
        ...


class PushNotifier(Protocol):
    """Publishes the commands that a notification service consumes."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """One command a message; durable on return."""
        ...


Receipt = int | str
"""What a queue of dead letters needs to remove one."""
LetterPage = list[tuple[Receipt, DeadLetter]]


class DeadLetterQueue(Protocol):
    """The reading end of the dead letters, for whoever replays or discards them."""

    def pages(self) -> AsyncIterator[LetterPage]:
        """Those that are there now, and none that comes meanwhile, each with its receipt; the oldest first where the
        queue has an order."""
        ...

    async def remove(self, receipts: Sequence[Receipt]) -> None:
        """These are replayed, or discarded. One that is not removed after all is there again the next time."""
        ...


class DeadLetters(Protocol):
    """Where refused messages go, with their reason."""

    async def publish(self, letters: Sequence[DeadLetter]) -> None:
        """Durable on return."""
        ...
