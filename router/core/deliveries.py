"""The deliveries that one pipeline has in flight: received and not acknowledged. Each says how far it has come.

    RECEIVED ─▶ PLACED ─▶ TRIED ─▶ WRITTEN ─▶ SETTLED ─▶ FINISHED ─▶ acknowledged, and gone
        │                             └─▶ OWED, in an outage ──────────▲
        └─▶ REFUSED ──────────────────────────────────▶ FINISHED

Each step says whose answer comes next. That of the online store leads to PLACED, WRITTEN, SETTLED or REFUSED
(``outcomes.STEPS``). After a pass that has failed, what is TRIED, REFUSED, OWED or FINISHED goes on from there; of the
rest the online store is asked again, whose answer says what is still owed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from enum import Enum, auto

from msgspec import Struct, structs

from router.checksum import is_whole
from router.core import damage
from router.dead_reasons import DeadReason
from router.messages import Delivery, Message, Outcome, Queued, Routed


class Step(Enum):
    """How far a delivery has come."""

    RECEIVED = auto()
    """The online store is to route it; in an outage the pipeline gives it a place without it."""
    PLACED = auto()
    """Its copy is to be made for cold."""
    TRIED = auto()
    """Cold is asked to take its copy, has refused it, or has not answered: the same copy is written again before
    anything else."""
    WRITTEN = auto()
    """Nothing is to be written any more: the online store is to be told of its copy, if there is one."""
    SETTLED = auto()
    """The online store knows of its copy: the push command is to go out, if it owes one."""
    REFUSED = auto()
    """The dead letters are to take it. What came behind it may be in the queue, so it is not routed after all when
    there is room again."""
    FINISHED = auto()
    """Only the ingress is to be told; it may know already, if its answer was lost."""
    OWED = auto()
    """In an outage, in cold and announced: the online store is to be told before the ingress is."""


class Statistics(Struct, frozen=True):
    """What a pipeline has to do at one moment."""

    held: int
    """Deliveries that are in work, or wait behind such."""
    held_bytes: int
    """Those of their envelopes."""
    busy: int
    """Recipients with messages in work."""
    owed: int
    """Messages that the online store is to be told of."""
    outage: bool
    """The online store is not asked at the moment."""
    tasks: int
    """Under way: for batches, and for the end of an outage."""


class InFlight(Struct, gc=False):
    """One delivery, and what came of it so far."""

    delivery: Delivery
    recipient: str
    """Whose order it belongs to; one that could not be read has an order of its own."""
    size: int
    """The bytes that it takes of memory, but for a few."""
    step: Step
    routed: Routed | None = None
    """What the online store, or in an outage the pipeline, said last."""
    store_place: Routed | None = None
    """The place that the online store gave it last, as if it went to cold."""
    outage_place: Routed | None = None
    """The place under which an outage brings it to cold. Until it is owed or done, the outage does not end."""
    copy: Queued | None = None
    """What cold has, or may have. It has it, except where this is TRIED."""

    @property
    def message(self) -> Message:
        """That of a delivery that could be read."""
        assert self.delivery.message is not None, "only what could be read is routed"
        return self.delivery.message

    @property
    def outcome(self) -> Outcome:
        """Of one that is routed."""
        assert self.routed is not None, "only what is routed has an outcome"
        return self.routed.outcome


def received(delivery: Delivery) -> InFlight:
    """``delivery`` at its first step."""
    delivery = _checked(delivery)
    message = delivery.message
    if message is None:
        return InFlight(delivery, f"?{delivery.receipt}", len(delivery.body), Step.REFUSED)
    return InFlight(delivery, message.recipient, len(message.envelope), Step.RECEIVED)


def _checked(delivery: Delivery) -> Delivery:
    """``delivery``; without its message where that does not match its checksum, since nothing it says can be relied on:
    it holds up nobody, and is routed to nobody."""
    message = delivery.message
    if message is None or is_whole(message):
        return delivery
    return structs.replace(
        delivery, message=None, reason=DeadReason.DAMAGED, problem=damage.DETAIL,
        origin=message.id, recipient=message.recipient, body=message.envelope,
    )  # fmt: skip


def at(flights: Iterable[InFlight], *steps: Step) -> list[InFlight]:
    """Those of ``flights`` that are at one of ``steps``."""
    return [flight for flight in flights if flight.step in steps]


def not_at(flights: Iterable[InFlight], *steps: Step) -> list[InFlight]:
    """Those of ``flights`` that are at none of ``steps``."""
    return [flight for flight in flights if flight.step not in steps]


def move(flights: Iterable[InFlight], step: Step) -> None:
    """All of ``flights`` are at ``step`` from here on."""
    for flight in flights:
        flight.step = step


def bytes_of(flights: Iterable[InFlight]) -> int:
    """The bytes that ``flights`` take of memory, but for a few."""
    return sum([flight.size for flight in flights])


def copies_of(flights: Iterable[InFlight]) -> list[Queued]:
    """What cold has, or may have, of ``flights``."""
    return [flight.copy for flight in flights if flight.copy is not None]


class Deliveries:
    """All that one pipeline has in flight. Does no I/O.

    State: the deliveries by receipt, in the order in which they were received or, later, came to be owed; and sums of
    them. What is owed to the online store is not *held* any more: it keeps no envelope.
    """

    def __init__(self) -> None:
        self._flights: OrderedDict[int | str, InFlight] = OrderedDict()
        """Ordered also where it is emptied from its front, which takes a plain dictionary ever longer."""
        self.held_bytes = 0
        self.owed = 0

    @property
    def held(self) -> int:
        """How many are held."""
        return len(self._flights) - self.owed

    def receive(self, deliveries: Iterable[Delivery]) -> list[InFlight]:
        """Those that are new. What comes again while it is in flight is in flight already."""
        new: list[InFlight] = []
        for delivery in deliveries:
            if delivery.receipt not in self._flights:
                flight = self._flights[delivery.receipt] = received(delivery)
                new.append(flight)
        self.held_bytes += bytes_of(new)
        return new

    def still_held(self, flights: Iterable[InFlight]) -> list[InFlight]:
        """Those of ``flights`` for which a pass has still something to do."""
        return [flight for flight in not_at(flights, Step.OWED) if flight.delivery.receipt in self._flights]

    def let_go(self, flights: Iterable[InFlight]) -> list[InFlight]:
        """These leave. Returns those that were held until now."""
        left = [flight for flight in flights if self._flights.pop(flight.delivery.receipt, None) is not None]
        held = not_at(left, Step.OWED)
        self.held_bytes -= bytes_of(held)
        self.owed -= len(left) - len(held)
        return held

    def mark_owed(self, written: Sequence[InFlight]) -> list[InFlight]:
        """These are in cold and announced; the store is to be told before the ingress is. Returns those that were held
        until now."""
        gone = self.let_go(written)
        for flight in written:
            _slim(flight)
            self._flights[flight.delivery.receipt] = flight
        self.owed += len(written)
        return gone

    def oldest_owed(self, limit: int) -> list[InFlight]:
        """At most ``limit``; they stay owed until they are acknowledged."""
        owed: list[InFlight] = []
        for flight in self._flights.values():
            if len(owed) == limit:
                break
            if flight.step is Step.OWED:
                owed.append(flight)
        return owed

    def have_outage_place(self) -> bool:
        """Whether any has one still."""
        return any(flight.outage_place for flight in self._flights.values())

    def unacknowledged(self) -> list[Delivery]:
        """All of them, to be handed back: those that are held, then those that are owed."""
        return [flight.delivery for flight in sorted(self._flights.values(), key=lambda one: one.step is Step.OWED)]

    def __repr__(self) -> str:
        steps = Counter(flight.step.name for flight in self._flights.values())
        return f"<Deliveries: {', '.join(f'{count} {step}' for step, count in steps.items()) or 'none'}>"


def _slim(flight: InFlight) -> None:
    """``flight`` is owed from here on, and without its envelope: a hundred thousand may wait so."""
    message = structs.replace(flight.message, envelope=b"")
    flight.delivery = structs.replace(flight.delivery, message=message)
    if flight.copy is not None:
        flight.copy = structs.replace(flight.copy, message=message, left_out=flight.copy.size)
    flight.step, flight.routed, flight.store_place, flight.outage_place = Step.OWED, None, None, None
