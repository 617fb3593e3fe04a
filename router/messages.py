"""The records that travel between the components. They hold sealed bytes and never a sender."""

from __future__ import annotations

from enum import IntEnum, StrEnum

from msgspec import Struct

from router.dead_reasons import DeadReason

EXPRESS_PRIORITY = 5
"""A ``priority`` of this or above takes the express lane (docs/specification.md#secureenvelope)."""


class Lane(IntEnum):
    """The order in which a batch is returned: express first. Order is kept within a lane."""

    EXPRESS = 0
    NORMAL = 1


class Message(Struct, frozen=True, gc=False):
    """An accepted envelope on its way to the recipient."""

    id: str
    """Given at acceptance and never changed. Unique for one recipient; another recipient's message may have it too."""
    recipient: str
    """Canonical URN; the only routing information that an envelope has."""
    envelope: bytes
    """Canonical ProtoJSON; a fetch returns these very bytes."""
    lane: Lane
    ephemeral: bool
    accepted_at: int
    """µs since 1970, by the clock of the server that accepted it."""
    keyed: bool = False
    """The sender gave an Idempotency-Key, so the id is remembered for a day instead of an hour."""
    checksum: int | None = None
    """Made at acceptance and never changed (``router.checksum``); ``None`` if an earlier version stored the message."""
    trace: str = ""
    """The span that spans of what becomes of this message are children of (``router.trace_context.joined``). Empty
    unless traces are asked for and the sender's request is in one."""

    @property
    def name(self) -> tuple[str, str]:
        """(recipient, id), which no other message has."""
        return self.recipient, self.id


class Queued(Struct, frozen=True, gc=False):
    """A message with its place in the recipient's queue."""

    message: Message
    sequence: int
    """Rises for each recipient; greater than any given before (docs/specification.md#order)."""
    queued_at: int
    """µs since 1970 when it was routed."""
    announced: bool = False
    """Its push command is published."""
    attempts: int = 1
    """The ``Delivery.attempt`` that was routed; 1 is the first."""
    unreported: bool = False
    """For ``ColdQueue.put``: a pipeline could not reach the online store, which does not know of this message yet.
    Databases keep it as ``untold``."""
    damaged: bool = False
    """It does not match its checksum. Stores never set this; the code that reads from them does (``core.damage``)."""
    left_out: int = 0
    """Bytes of the envelope where ``message`` comes without it, else 0."""

    @property
    def place(self) -> tuple[int, int]:
        """(lane, sequence), by which pages are sorted."""
        return (self.message.lane, self.sequence)

    @property
    def size(self) -> int:
        """Bytes of its envelope, which count towards ``limits.queue_bytes``."""
        return len(self.message.envelope) or self.left_out


class Delivery(Struct, frozen=True, gc=False):
    """One message as the ingress hands it out."""

    message: Message | None
    """``None`` if the body is damaged or cannot be decoded. Then the fields from ``problem`` on say what is known."""
    receipt: int | str
    """What the ingress needs to acknowledge this delivery."""
    attempt: int
    """1 for the first delivery, increased by each ``nack``."""
    problem: str = ""
    """Why ``message`` is ``None``."""
    body: bytes = b""
    """The raw body if ``message`` is ``None``."""
    found: bool = False
    """The ingress held it before this consumer started, so another consumer may have received it."""
    origin: str = ""
    """Id of the dead letter if ``message`` is ``None``: the same at each delivery. If empty, the receipt is the id."""
    reason: DeadReason = DeadReason.UNDECODABLE
    """Reason of the dead letter if ``message`` is ``None``."""
    recipient: str = ""
    """If ``message`` is ``None``: the recipient, as far as the ingress can tell."""

    @property
    def delivered_before(self) -> bool:
        """Whether an earlier delivery is possible, in which a pipeline that could not reach the online store may have
        written the message to cold."""
        return self.found or self.attempt > 1


class Outcome(StrEnum):
    """What the atomic routing step decided for one message, and so what the pipeline does next; also the label of the
    metric."""

    HOT = "hot"
    """The message is in the hot queue. The user was poked, or has not fetched since the last poke."""
    COLD = "cold"
    """The user is offline. The message has its sequence; the pipeline writes it to cold. A redelivery gets the same
    sequence until the write is settled."""
    ANNOUNCE = "announce"
    """A redelivery of a message that is in the cold queue; its push command may not be published yet."""
    COPY = "copy"
    """A redelivery of a message that is in the hot queue, with ``online.durability = "write-through"``; its copy in the
    cold queue may not be written yet."""
    DUPLICATE = "duplicate"
    """A redelivery of a message that is in the hot queue or was acknowledged; nothing is left to do."""
    DROPPED_OFFLINE = "dropped-offline"
    """Ephemeral, and the user is offline."""
    DROPPED_EXPIRED = "dropped-expired"
    """Ephemeral, and older than ``limits.ephemeral_seconds``."""
    QUEUE_FULL = "queue-full"
    """The recipient's queue holds ``limits.queue_messages``: a dead letter."""
    QUEUE_BYTES_FULL = "queue-bytes-full"
    """The recipient's queue would hold more than ``limits.queue_bytes`` with it: a dead letter."""
    INBOUND_EXHAUSTED = "inbound-exhausted"
    """The recipient's inbound budget has too few bytes left: a dead letter."""


class Routed(Struct, frozen=True, gc=False):
    """The result of routing one message; ``sequence`` is 0 if it is in no queue."""

    outcome: Outcome
    sequence: int = 0
    queued_at: int = 0


class Published(Struct, frozen=True):
    """What became of the messages of one call of ``RoutingIngress.publish``."""

    routed: list[Routed | None]
    """For each message, in their order: where it is now. ``None``: it waits in the ingress, for a pipeline."""
    letters: list[DeadLetter]
    """Of those that were refused: durable, and nobody was told of them."""
    pokes: list[tuple[str, str]]
    """(node, user) pairs that the caller sends."""


class Pending(Struct, frozen=True, gc=False):
    """A cold write that is not confirmed. A fetch that does not find this message returns nothing behind it."""

    id: str
    lane: Lane
    sequence: int


class HotPage(Struct, frozen=True, gc=False):
    """The heads of both lanes of one hot queue, read in one atomic step."""

    messages: list[Queued]
    """In order of (lane, sequence); without expired ephemeral ones."""
    more: frozenset[Lane]
    """Lanes of which the hot queue holds messages behind these."""
    pending: list[Pending]
    cold_empty: bool
    """The cold queue is known to be empty and no cold write is pending, so the reader need not read it."""
    cold_version: int
    """Increased by each operation that may put mail into cold; ``UserQueue.note_cold_empty`` checks it."""
    online: bool = False
    """The user is connected and may wait for what this page leaves out. Set only if it may leave something out."""
    cut_at: int = 0
    """The mark under which this page counts as cut short, for ``UserQueue.note_end``; 0 if it does not."""


class ColdPage(Struct, frozen=True, gc=False):
    """A part of one cold queue."""

    messages: list[Queued]
    """In order of (lane, sequence)."""
    more: frozenset[Lane]
    """Lanes of which there are messages behind these. If the page was read behind a place (``after``), only the lane in
    which it ends, and only if the queue goes on."""


class Connection(Struct, frozen=True, gc=False):
    """One live WebSocket of a user, held by a node (a ``serve`` or ``serve-ws`` process)."""

    user: str
    id: str
    node: str
    since: int
    """µs since 1970."""
    lease_until: int = 0
    """µs since 1970; the connection counts as live until then."""


class Move(Struct, frozen=True, gc=False):
    """A batch taken for migration."""

    messages: list[Queued]
    """Still in hot, marked as moving: the migrator puts these into cold and calls ``Migration.end_move``."""
    dropped: int
    """Ephemeral messages that were dropped from the hot queue instead of moved."""
    more: bool
    """Hot mail is left behind this batch."""
    moved: list[Queued] = []
    """In cold: the store has moved these itself, since both tiers are in one file, and published the push commands of
    those that were not announced."""


class MigrationResult(StrEnum):
    """How one migration ended."""

    DONE = "done"
    """Hot has no mail left that may move."""
    BUSY = "busy"
    """Another migrator is moving this user's mail."""
    ONLINE = "online"
    """The user is online, and the caller moves only offline users' mail."""


class Settled(Struct, frozen=True, gc=False):
    """What the caller of ``Routing.settle`` still has to do with messages that are in cold."""

    acked: list[Queued]
    """Acknowledged meanwhile: the caller deletes them from cold and then calls ``forget_orphans``."""
    misplaced: list[Queued]
    """With the sequences on record. In cold these have higher ones: another pipeline was given the sequence on record
    and has not written the message, or has died. They stay pending until the caller has moved them to these sequences
    (``ColdQueue.update_places``) and settled them again."""


class MoveRefused(StrEnum):
    """Why ``Migration.begin_move`` took no batch."""

    BUSY = "busy"
    """Another migrator holds this user's migration lease."""
    ONLINE = "online"
    """The user is online, and the caller moves only offline users' mail."""


class Forgotten(Struct, frozen=True):
    """What ``Maintenance.forget_user`` deleted of one user."""

    records: int = 0
    """Of ids, most of them tombstones."""
    connections: int = 0
    more: bool = False
    """There are more records: call again."""
    in_use: bool = False
    """Nothing was deleted: mail is queued, a migrator works on it, or a pipeline may."""


class HotUser(Struct, frozen=True, gc=False):
    """A user with hot mail, an unanswered poke, or a page that was cut short, as the sweeper sees them."""

    user: str
    live: int
    """Connections whose lease has not run out."""
    hot: int
    oldest_at: int
    """``queued_at`` of the oldest hot message; 0 if there is none."""
    unannounced_at: int
    """``queued_at`` of the oldest hot message without a push command; 0 if there is none."""
    poked_at: int
    """When the last poke was sent; 0 for never."""
    fetched: bool
    """The user has fetched since that poke."""
    cut_at: int = 0
    """If the user's last page was cut short: when they last fetched or acknowledged; else 0."""


class DeadLetter(Struct, frozen=True, gc=False):
    """A message that the router refuses for good, with its reason (docs/specification.md#dead-letters)."""

    id: str
    recipient: str
    reason: DeadReason
    detail: str
    body: bytes
    attempts: int
    """The ``Delivery.attempt`` at which it was refused; 1 is the first."""
    at: int
    """µs since 1970."""


class QueueTotals(Struct, frozen=True, gc=False):
    """What one tier holds of one queue, or of all queues."""

    messages: int = 0
    bytes: int = 0
    users: int = 0
    """How many users have mail; for all cold queues in Firestore 0, since that would read every message."""
    oldest_at: int = 0
    """``queued_at`` of the oldest message; 0 if there is none."""


class Census(Struct, frozen=True, gc=False):
    """What all queues hold together, and who is online."""

    at: int
    """When it was counted, in µs since 1970."""
    ingress: QueueTotals | None
    """``None`` where the topic cannot say."""
    hot: QueueTotals
    cold: QueueTotals
    online: QueueTotals
    """``users`` and their live connections (``messages``)."""
    dead_letters: int | None
    """Those that are kept; ``None`` where the router cannot list them."""
