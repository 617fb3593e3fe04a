"""The records that travel between the components. They hold sealed bytes and never a sender."""

from __future__ import annotations

from enum import IntEnum, StrEnum

from msgspec import Struct

EXPRESS_PRIORITY = 5
"""A ``priority`` of this or above takes the express lane (docs/specification.md#secureenvelope)."""


class Lane(IntEnum):
    """The order in which a batch is returned: express first. Order is kept within a lane."""

    EXPRESS = 0
    NORMAL = 1


class Message(Struct, frozen=True, gc=False):
    """An accepted envelope on its way to the recipient."""

    id: str
    """Given at acceptance, for life. Its recipient's: another one's message may have the same."""
    recipient: str
    """The canonical URN: the only routing information."""
    envelope: bytes
    """Canonical ProtoJSON; it goes out to the client as these very bytes."""
    lane: Lane
    ephemeral: bool
    accepted_at: int
    """µs since 1970, by the clock of the server that accepted it."""
    keyed: bool = False
    """The sender gave an Idempotency-Key, so the id is remembered for a day instead of an hour."""
    checksum: int | None = None
    """Made at acceptance, for life (``router.checksum``); ``None`` where a version before stored it, which had none."""

    @property
    def name(self) -> tuple[str, str]:
        """What no other message has: an id is one of its recipient's."""
        return self.recipient, self.id


class Queued(Struct, frozen=True, gc=False):
    """A message with its place in the recipient's queue."""

    message: Message
    sequence: int
    """The place in the order of its recipient; greater than any given before (docs/specification.md#order)."""
    queued_at: int
    """µs since 1970 when it was routed."""
    announced: bool = False
    """A push command for it has gone out."""
    attempts: int = 1
    """Which delivery by the ingress routed it; 1 is the first."""
    untold: bool = False
    """For ``ColdQueue.put``: the online store could not be asked, and is still to be told."""
    damaged: bool = False
    """It does not match its checksum. Whoever takes it from a store finds out; no store says so."""
    left_out: int = 0
    """How many bytes the envelope has, where ``message`` comes without it."""

    @property
    def place(self) -> tuple[int, int]:
        """The key a batch is sorted by: lane, then sequence."""
        return (self.message.lane, self.sequence)

    @property
    def size(self) -> int:
        """The bytes of its envelope: what it takes of ``limits.queue_bytes``."""
        return len(self.message.envelope) or self.left_out


class DeadReason(StrEnum):
    """Why a message is a dead letter: a stable word, for people and for the metric."""

    UNDECODABLE = "undecodable"
    """The bytes in the ingress are not a message."""
    QUEUE_FULL = "queue-full"
    """The recipient's queue holds ``limits.queue_messages``, or would hold more than ``limits.queue_bytes``."""
    INBOUND_EXHAUSTED = "inbound-exhausted"
    """More came to the recipient than ``limits.inbound_bytes`` and ``limits.inbound_bytes_per_second``."""
    ATTEMPTS_EXHAUSTED = "attempts-exhausted"
    """It failed in each of its tries, which is a fault of the router."""
    UNSTORABLE = "unstorable"
    """It was to be moved to the cold queue, which can never hold it."""
    DAMAGED = "damaged"
    """What was stored is not what was accepted: the checksum does not match."""


class Delivery(Struct, frozen=True, gc=False):
    """One message as the ingress hands it out."""

    message: Message | None
    """``None`` where the body could not be decoded, or is damaged; then ``problem`` says why."""
    receipt: int | str
    """What the ingress needs to acknowledge this delivery."""
    attempt: int
    """1 for the first delivery, counted up with each ``nack``."""
    problem: str = ""
    body: bytes = b""
    """The raw body, where ``message`` is ``None``."""
    found: bool = False
    """It was there before this consumer came, so another may have had it."""
    origin: str = ""
    """The id of its dead letter, where ``message`` is ``None``: the same at each delivery. The receipt if empty."""
    reason: DeadReason = DeadReason.UNDECODABLE
    """That of its dead letter, where ``message`` is ``None``."""
    recipient: str = ""
    """Where ``message`` is ``None``: whose it was, as far as it says so."""

    @property
    def delivered_before(self) -> bool:
        """It may have been delivered before, and been written to cold by a pipeline that could not tell."""
        return self.found or self.attempt > 1


class Outcome(StrEnum):
    """What the atomic routing step decided for one message; also the metric's label."""

    HOT = "hot"
    """It is in the hot queue and the user was poked, or had not fetched since the last poke."""
    COLD = "cold"
    """The user is offline: it has its sequence and its cold write is owed. A redelivery gets the same
    sequence again until the write is settled."""
    ANNOUNCE = "announce"
    """A redelivery of a message that is in the cold queue already; its push command may still be owed."""
    COPY = "copy"
    """A redelivery of a message that is in the hot queue already, with ``online.durability`` write-through: its
    copy in the cold queue may still be owed."""
    DUPLICATE = "duplicate"
    """A redelivery of a message that is in the hot queue or was acknowledged; nothing is owed."""
    DROPPED_OFFLINE = "dropped-offline"
    """Ephemeral, and the user is offline."""
    DROPPED_EXPIRED = "dropped-expired"
    """Ephemeral, and older than ``limits.ephemeral_seconds``."""
    QUEUE_FULL = "queue-full"
    """The recipient's queue holds ``limits.queue_messages``: a dead letter."""
    QUEUE_BYTES_FULL = "queue-bytes-full"
    """With it the recipient's queue would hold more than ``limits.queue_bytes``: a dead letter."""
    INBOUND_EXHAUSTED = "inbound-exhausted"
    """The recipient's inbound budget has too few bytes left: a dead letter."""


class Routed(Struct, frozen=True, gc=False):
    """The result of routing one message; ``sequence`` is 0 where it has no place in a queue."""

    outcome: Outcome
    sequence: int = 0
    queued_at: int = 0


class Pending(Struct, frozen=True, gc=False):
    """A cold write that is under way: the reader must not return what comes after it without it."""

    id: str
    lane: Lane
    sequence: int


class HotPage(Struct, frozen=True, gc=False):
    """The heads of both lanes of one hot queue, read in one atomic step."""

    messages: list[Queued]
    """In order of (lane, sequence); without expired ephemeral ones."""
    more: frozenset[Lane]
    """The lanes of which the hot queue holds messages after these."""
    pending: list[Pending]
    cold_empty: bool
    """The cold queue is known to be empty and no cold write is under way: no need to read it."""
    cold_version: int
    """Rises with each thing that may put mail into cold; what ``HotQueue.cold_empty`` is checked with."""
    online: bool = False
    """Somebody is connected, who may wait for what this page leaves out. Told where it may leave something out."""
    cut_at: int = 0
    """For ``HotQueue.note_end``: the mark under which this page counts as cut short; 0 where it has none."""


class ColdPage(Struct, frozen=True, gc=False):
    """A part of one cold queue, in order of (lane, sequence)."""

    messages: list[Queued]
    more: frozenset[Lane]
    """Of a head: the lanes of which there are messages after these. Behind a place: the lane that it ends in, if it
    ends before the queue does."""


class Connection(Struct, frozen=True, gc=False):
    """One live WebSocket of a user, held by a node (a ``serve`` or ``serve-ws`` process)."""

    user: str
    id: str
    node: str
    since: int
    """µs since 1970."""
    lease_until: int = 0
    """µs since 1970; the connection counts as live before that."""


class Move(Struct, frozen=True, gc=False):
    """A batch taken for migration: still in hot, marked as moving, to be put into cold and then ended."""

    messages: list[Queued]
    dropped: int
    """Ephemeral messages that were dropped from the hot queue instead of moved."""
    more: bool


class MigrationResult(StrEnum):
    """How one migration ended."""

    DONE = "done"
    """Nothing that may be moved is left in hot."""
    BUSY = "busy"
    """Another migrator is at work on this user."""
    ONLINE = "online"
    """The user has a live connection and only offline users' mail was to move."""


class Settled(Struct, frozen=True, gc=False):
    """What the online store makes of messages that are in cold."""

    acked: list[Queued]
    """Acknowledged meanwhile: the caller deletes them from cold, and then names them to ``forget_orphans``."""
    misplaced: list[Queued]
    """With their places: in cold these stand behind them, since the pipeline that was given the places has still to
    write them, if it lives. They stay pending; the caller moves them (``ColdQueue.amend``) and settles them again."""


class MoveRefused(StrEnum):
    """Why no batch was taken."""

    BUSY = "busy"
    """Another migrator holds this user's migration lease."""
    ONLINE = "online"
    """The user has a live connection and the caller moves only offline users' mail."""


class HotUser(Struct, frozen=True, gc=False):
    """What the sweeper needs to know of a user who has hot mail, an unanswered poke, or a page that was cut short."""

    user: str
    live: int
    """Connections whose lease has not run out."""
    hot: int
    oldest_at: int
    """``queued_at`` of the oldest hot message; 0 where there is none."""
    unannounced_at: int
    """``queued_at`` of the oldest hot message that no push command has announced; 0 where there is none."""
    poked_at: int
    """When the last poke went out, 0 for never."""
    fetched: bool
    """The user has fetched since that poke."""
    cut_at: int = 0
    """When they fetched last, or acknowledged, where no fetch has come to the end of the queue since; else 0."""


class DeadLetter(Struct, frozen=True, gc=False):
    """What could not be routed, with its reason (docs/specification.md#dead-letters)."""

    id: str
    recipient: str
    reason: DeadReason
    detail: str
    body: bytes
    attempts: int
    """Which delivery by the ingress it was; 1 is the first."""
    at: int


class QueueTotals(Struct, frozen=True, gc=False):
    """One tier's share of a queue, or of all queues."""

    messages: int = 0
    bytes: int = 0
    users: int = 0
    """Of all queues: how many users have mail; 0 for a cold queue in Firestore, which would have to read them all."""
    oldest_at: int = 0
