"""What happened in a run, as somebody would see it who sees all clients at once. The order of events is a fact."""

from __future__ import annotations

from math import inf

from msgspec import Struct


class Sending(Struct, frozen=True):
    """One try to send begins. A message is known by its ``tag``, which its payload carries; a try that repeats an
    Idempotency-Key carries the same one."""

    op: int
    user: str
    """The recipient."""
    tag: str
    express: bool = False
    ephemeral: bool = False
    sender: str = ""
    size: int = 0
    """The bytes of its envelope as it is stored."""
    batch: str = ""
    """The same for all messages that were first sent in one request, and for no others; empty where it went alone."""
    place: int = 0
    """In its batch; each try has the messages that it repeats in this order."""


class Sent(Struct, frozen=True):
    """It was answered 202."""

    op: int
    id: str
    clock: float = 0.0
    """The latest time at which it can count as accepted, by the clocks that may date it; in seconds."""


class NotSent(Struct, frozen=True):
    """It was refused, or nobody knows."""

    op: int
    why: str
    """A status, or words."""


class Fetching(Struct, frozen=True):
    op: int
    user: str
    limit: int
    clock: float = 0.0
    """By the server's clock, or by the right time where that clock is ahead; in seconds."""
    without: tuple[str, ...] = ()
    """Ids that the same request acknowledges; ``Acking`` has them too."""


class Item(Struct, frozen=True):
    """A message in a batch."""

    id: str
    tag: str


class Fetched(Struct, frozen=True):
    op: int
    batch: tuple[Item, ...]
    clock: float = inf
    """The earliest time that the server's clock has shown since the fetch began, where that is known."""


class NotFetched(Struct, frozen=True):
    op: int
    why: str


class Acking(Struct, frozen=True):
    op: int
    user: str
    ids: tuple[str, ...]


class Acked(Struct, frozen=True):
    """204."""

    op: int


class NotAcked(Struct, frozen=True):
    op: int
    why: str


class Pushed(Struct, frozen=True):
    """A push command was published for a message; ``found``: it could be fetched then, or had been acknowledged."""

    id: str
    user: str
    found: bool = True


class Buried(Struct, frozen=True):
    """A dead letter was published."""

    id: str
    reason: str


class Refused(Struct, frozen=True):
    """An online store has refused a message, or may have, and nobody knows who could tell the dead letters: its answer
    was lost, or whoever heard it has died. It may be routed after all, behind what came later."""

    id: str


class Flipped(Struct, frozen=True):
    """A bit of one copy of this message is another: it may be served from another copy, or be a dead letter."""

    id: str


class RoutedAgain(Struct, frozen=True):
    """A message is to be routed, with the online store or without it, that was delivered before: the ingress delivers
    it again, or its sender sent it again. Or it is ephemeral, and routed by a call that was given up."""

    id: str


class Published(Struct, frozen=True):
    """A pipeline has a message that Pub/Sub dated with ``clock``. Its time is the middle one of three, and a publish
    that was repeated, or took effect late, may be dated after its 202."""

    id: str
    clock: float


class Unsettled(Struct, frozen=True):
    """A pipeline writes these to cold in an outage. Until the online store knows, a fetch may look or not."""

    ids: tuple[str, ...]


class Settled(Struct, frozen=True):
    """The online store knows where these are."""

    ids: tuple[str, ...]


class Connected(Struct, frozen=True):
    """A device has an open socket."""

    user: str
    device: str


class Waiting(Struct, frozen=True):
    """It has read all there was, and looks again when it is poked."""

    user: str
    device: str


class Roused(Struct, frozen=True):
    """It waits no more."""

    user: str
    device: str


class Left(Struct, frozen=True):
    """Its connection has ended, whoever knows of it."""

    user: str
    device: str


class Died(Struct, frozen=True):
    """A process died, with connections of which nobody else knew yet."""

    node: str


class Hot(Struct, frozen=True):
    """What is hot just now, (user, id), of users whose mail nobody moves; told in plain runs only."""

    messages: tuple[tuple[str, str], ...]


class PowerLost(Struct, frozen=True):
    """All processes and what was not on disk are gone."""


class Forgotten(Struct, frozen=True):
    """The online store came back empty. ``unannounced``: ids of what was hot, or acknowledged while a copy was in cold:
    nobody knows any more that this copy was not announced. ``under_way``: ids of what was on its way to cold: nobody
    knows any more that what stands behind it in cold has to wait for it."""

    unannounced: tuple[str, ...] = ()
    under_way: tuple[str, ...] = ()


class Final(Struct, frozen=True):
    """All faults are over, and every span after which something is due has passed: what the stores hold."""

    ingress: tuple[str, ...] = ()
    """Ids that wait to be routed."""
    hot: tuple[tuple[str, str], ...] = ()
    """(user, id)"""
    cold: tuple[tuple[str, str], ...] = ()
    online: tuple[str, ...] = ()
    """Users with a live connection whose client reads and saves."""
    owed: tuple[str, ...] = ()
    """Ids whose state says that something is under way."""
    oddities: tuple[str, ...] = ()
    """What else does not fit together in the stores."""


class Draining(Struct, frozen=True):
    """From here on a clean client of each user pulls, saves and acknowledges until its batch is empty."""


class End(Struct, frozen=True):
    """Every user's queue was drained. ``left``: what the stores still hold of messages."""

    left: tuple[str, ...] = ()


class Note(Struct, frozen=True):
    """For the reader only."""

    who: str
    text: str


class Failed(Struct, frozen=True):
    """Something that must never happen: an internal error, a task that failed, a deadlock."""

    text: str


Event = (
    Sending | Sent | NotSent | Fetching | Fetched | NotFetched | Acking | Acked | NotAcked | Pushed | Buried | Refused
    | Flipped | RoutedAgain | Published | Unsettled | Settled | Connected | Waiting | Roused | Left | Died | Hot
    | PowerLost | Forgotten | Final | Draining | End | Note | Failed
)  # fmt: skip


class History:
    """The events of a run with their times in seconds: virtual ones of a simulation, real ones of a chaos run."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.times: list[float] = []
        self._ops = 0

    def op(self) -> int:
        """A new number that ties the end of something to its beginning."""
        self._ops += 1
        return self._ops

    def add(self, at: float, event: Event) -> None:
        self.events.append(event)
        self.times.append(at)

    def __len__(self) -> int:
        return len(self.events)


def words(event: Event) -> str:
    """One line for one event."""
    if isinstance(event, Note):
        return f"{event.who:8} {event.text}"
    if isinstance(event, Fetched):
        return (
            f"{'':8} #{event.op} got {', '.join(f'{item.tag} ({item.id[-6:]})' for item in event.batch) or 'nothing'}"
        )
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    op = f"#{fields.pop('op')} " if "op" in fields else ""
    user = str(fields.pop("user", "")).rpartition(":")[2]
    rest = ", ".join(f"{name} {value}" for name, value in fields.items() if value not in ((), "", False, 0.0))
    return f"{user:8} {op}{type(event).__name__.lower()} {rest}"
