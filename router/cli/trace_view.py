"""What ``trace`` shows. The records are the documented schema of its ``--json``: no payload, no sender."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from msgspec import Struct

from router.cli.common import timestamp
from router.cli.output import Table, size
from router.core.message_story import Happening, Hold, Memory, Story, given_at, unknown
from router.core.message_tracer import Trace, Unsaid
from router.factory import Factory

ID_VERSIONS = (7, 8)
"""Of the UUIDs that the router gives as ids (``router.ids``)."""


class EventView(Struct, frozen=True):
    at: str
    """RFC 3339, like every point in time here."""
    event: str
    """A stable word: ``accepted``, ``routed``, ``announced``, ``poked``, ``refused``, ``left``."""
    text: str


class HoldView(Struct, frozen=True):
    """One of the causes for which the message is where it is."""

    cause: str
    """A stable word: ``outage``, ``no-router``, ``not-routed``, ``refused``, ``pending-write``, ``behind-pending``,
    ``moving``, ``recipient-offline``, ``not-fetched``, ``not-acknowledged``, ``behind``, ``push-waits``."""
    text: str
    since: str | None


class TracedMessage(Struct, frozen=True):
    """What became of the message of one recipient. What is null is not known any more."""

    recipient: str
    where: str
    """A stable word: ``waiting`` (in the ingress), ``hot``, ``pending``, ``cold``, ``gone`` (acknowledged, expired or
    dropped), ``dead-letter``."""
    text: str
    """The same in words."""
    lane: str | None
    """``express`` or ``normal``."""
    sequence: int | None
    bytes: int | None
    """Size of the envelope."""
    keyed: bool | None
    """It was sent with an Idempotency-Key."""
    ephemeral: bool | None
    attempts: int | None
    """How often the ingress had delivered it when it was routed or refused; 1 means once."""
    announced: bool | None
    """A push command for it was sent."""
    ahead: int
    """Messages of its lane, or in the ingress of its recipient, that come before it."""
    events: list[EventView]
    held_up_by: list[HoldView]
    """Empty if it is in no queue."""


class Silence(Struct, frozen=True):
    """A dependency that says nothing of the message."""

    role: str
    """``ingress``, ``online``, ``cold``, ``push`` or ``dead-letters``."""
    backend: str
    why: str


class Remembered(Struct, frozen=True):
    """How long the router remembers, in seconds."""

    plain_seconds: float
    """The id of a message without an Idempotency-Key, after it has left the queues; 0: not at all."""
    keyed_seconds: float
    queued_seconds: float
    """A message that nobody acknowledges."""
    dead_letter_seconds: float | None
    """Null where the topic decides."""


class TraceView(Struct, frozen=True):
    """``trace ID --json``."""

    at: str
    id: str
    given_at: str | None
    """When the router gave the id, to the millisecond, if the id says so: it does without an Idempotency-Key."""
    known: bool
    messages: list[TracedMessage]
    """One in most cases: other publishers to the ingress topic may give one id to messages of several recipients."""
    unknown: list[str]
    """What can be said if nothing is known, a sentence each; else empty."""
    no_answer: list[Silence]
    """These do not answer now."""
    not_asked: list[Silence]
    """These cannot be asked for one message."""
    remembered: Remembered


async def trace_view(
    factory: Factory, id_: str, user: str | None, looked: Callable[[int], None] = lambda _: None
) -> TraceView:
    """What is known of the message ``id_``, of ``user`` or of all recipients."""
    tracer = await factory.message_tracer()
    return _view(id_, await tracer.trace(id_, user, looked), tracer.memory, factory.clock.now())


def looks_like_an_id(text: str) -> bool:
    """Whether ``text`` has the form of the ids that the router gives. A user may be named so, too."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        return False
    return str(parsed) == text and parsed.version in ID_VERSIONS


def _view(id_: str, trace: Trace, memory: Memory, now: int) -> TraceView:
    return TraceView(
        at=timestamp(now),
        id=id_,
        given_at=timestamp(at) if (at := given_at(id_)) else None,
        known=bool(trace.stories),
        messages=[_message(story) for story in trace.stories],
        unknown=[] if trace.stories else unknown(id_, memory, now),
        no_answer=[_silence(unsaid) for unsaid in trace.silent],
        not_asked=[_silence(unsaid) for unsaid in trace.unasked],
        remembered=Remembered(memory.plain, memory.keyed, memory.queued, memory.letters),
    )


def _message(story: Story) -> TracedMessage:
    return TracedMessage(
        recipient=story.recipient,
        where=story.where,
        text=story.text,
        lane=None if story.lane is None else story.lane.name.lower(),
        sequence=story.sequence or None,
        bytes=story.bytes,
        keyed=story.keyed,
        ephemeral=story.ephemeral,
        attempts=story.attempts,
        announced=story.announced,
        ahead=story.ahead,
        events=[_event(one) for one in story.happened],
        held_up_by=[_hold(one) for one in story.holds],
    )


def _event(one: Happening) -> EventView:
    return EventView(timestamp(one.at), one.what, one.text)


def _hold(one: Hold) -> HoldView:
    return HoldView(one.cause, one.text, timestamp(one.since) if one.since else None)


def _silence(unsaid: Unsaid) -> Silence:
    return Silence(unsaid.place.role, unsaid.place.backend, unsaid.why)


def trace_tables(view: TraceView) -> list[Table]:
    """What a person sees."""
    tables = [table for message in view.messages for table in _message_tables(view.id, message)]
    if not view.known:
        given = [f"By its own time the id was given at {view.given_at}."] if view.given_at else []
        tables.append(Table(f"Nothing is known of {view.id}", ["why"], [[text] for text in (*given, *view.unknown)]))
    for title, silences in (("No answer from", view.no_answer), ("Not asked", view.not_asked)):
        if silences:
            tables.append(Table(title, ["what", "why"], [[f"{one.role} ({one.backend})", one.why] for one in silences]))
    return tables


def _message_tables(id_: str, message: TracedMessage) -> list[Table]:
    known: list[tuple[str, str | int | None]] = [
        ("where", message.text),
        ("recipient", message.recipient),
        ("lane", message.lane),
        ("sequence", message.sequence),
        ("size", None if message.bytes is None else size(message.bytes)),
        ("Idempotency-Key", _yes(message.keyed)),
        ("ephemeral", _yes(message.ephemeral)),
        ("deliveries by the ingress", message.attempts),
        ("announced by a push command", _yes(message.announced)),
    ]
    held = [[one.cause, one.since or "-", one.text] for one in message.held_up_by]
    return [
        Table(f"Message {id_}", ["what", "is"], [[name, str(value)] for name, value in known if value is not None]),
        Table("What happened", ["when", "what"], [[one.at, one.text] for one in message.events], "no time is known"),
        Table("What holds it up", ["cause", "since", "what"], held, "nothing"),
    ]


def _yes(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"
