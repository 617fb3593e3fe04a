"""What became of one message, told from what the stores know of it; points in time are µs since 1970."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from router import urn
from router.clock import MICROSECONDS
from router.config.roles import Role
from router.dead_reasons import DeadReason
from router.lifecycle import GONE, IN_HOT, State
from router.message_trace import Attention, Copy, Facts, Letter, Record
from router.messages import Lane

DAY_SECONDS = 86_400
CLOCKS_DIFFER_SECONDS = 300
"""An id whose time is later than this from now was not given by this router."""


class Where(StrEnum):
    """Where a message is; a stable word."""

    WAITING = "waiting"
    """In the ingress, not routed yet."""
    HOT = "hot"
    PENDING = "pending"
    COLD = "cold"
    GONE = "gone"
    """In no queue any more."""
    DEAD_LETTER = "dead-letter"


class What(StrEnum):
    """What happened to a message; a stable word."""

    ACCEPTED = "accepted"
    ROUTED = "routed"
    ANNOUNCED = "announced"
    POKED = "poked"
    REFUSED = "refused"
    LEFT = "left"


class Cause(StrEnum):
    """What holds a message up; a stable word."""

    OUTAGE = "outage"
    NO_ROUTER = "no-router"
    NOT_ROUTED = "not-routed"
    REFUSED = "refused"
    PENDING_WRITE = "pending-write"
    BEHIND_PENDING = "behind-pending"
    MOVING = "moving"
    OFFLINE = "recipient-offline"
    NOT_FETCHED = "not-fetched"
    NOT_ACKNOWLEDGED = "not-acknowledged"
    BEHIND = "behind"
    PUSH_WAITS = "push-waits"


class Happening(Struct, frozen=True):
    at: int
    what: What
    text: str


class Hold(Struct, frozen=True):
    """One of the causes for which the message is where it is."""

    cause: Cause
    text: str
    since: int = 0
    """0 if that is not known."""


class Memory(Struct, frozen=True):
    """How long the router remembers messages, in seconds."""

    plain: float
    """The id of one without an Idempotency-Key, after it has left the queues; 0: not at all."""
    keyed: float
    queued: float
    """``cold.retention_days``."""
    letters: float | None
    """Dead letters; ``None`` where their topic decides."""


class Story(Struct, frozen=True):
    """What became of the message of one recipient."""

    recipient: str
    where: Where
    text: str
    """``where`` in words."""
    lane: Lane | None
    sequence: int
    """0 if it has none, or none is known any more."""
    bytes: int | None
    """Size of the envelope."""
    keyed: bool | None
    ephemeral: bool | None
    attempts: int | None
    """How often the ingress had delivered it when it was routed or refused; 1 means once."""
    announced: bool | None
    """A push command for it was sent."""
    ahead: int
    """Messages of its lane that a fetch returns before it."""
    happened: list[Happening]
    """In the order of their times."""
    holds: list[Hold]
    """What holds it up now; empty where it is in no queue."""


def tell(id_: str, user: str, facts: Facts, memory: Memory, silent: Mapping[Role, str]) -> Story:
    """The story of the message ``id_`` of ``user``. ``silent``: the dependencies that do not answer, and what they are,
    in words."""
    where = _where(facts)
    copy = facts.hot if where is Where.HOT and facts.hot is not None else facts.cold or facts.hot
    record, waiting, letter = facts.record, facts.waiting, facts.letters[-1] if facts.letters else None
    sequence = copy.sequence if copy else record.sequence if record else 0
    waits = where in (Where.HOT, Where.PENDING, Where.COLD)
    return Story(
        recipient=user,
        where=where,
        text=_in_words(where, facts, memory),
        lane=next((one.lane for one in (copy, record, waiting) if one is not None), None),
        sequence=sequence,
        bytes=next((one.bytes for one in (copy, waiting, letter) if one is not None), None),
        keyed=next((one.keyed for one in (copy, record, waiting) if one is not None), None),
        ephemeral=next((one.ephemeral for one in (copy, waiting, record) if one is not None), None),
        attempts=_attempts(copy, letter),
        announced=copy.announced or facts.command_at > 0 if copy else None,
        ahead=facts.hot_ahead + facts.cold_ahead if waits else facts.waiting.ahead if facts.waiting else 0,
        happened=sorted(_happened(id_, where, copy, facts, memory), key=lambda one: one.at),
        holds=list(_holds(urn.short(user), where, copy, facts, silent)),
    )


def _where(facts: Facts) -> Where:
    state = facts.record.state if facts.record is not None else State.UNKNOWN
    if facts.hot is not None or state in IN_HOT:
        return Where.HOT
    if state is State.PENDING:
        return Where.PENDING
    if state in GONE:
        return Where.DEAD_LETTER if facts.letters else Where.GONE
    if state is State.COLD or facts.cold is not None:
        return Where.COLD
    if facts.waiting is not None:
        return Where.WAITING
    return Where.DEAD_LETTER if facts.letters else Where.GONE


def _in_words(where: Where, facts: Facts, memory: Memory) -> str:
    if where is Where.WAITING:
        return "accepted; it waits in the ingress, and is not routed yet"
    if where is Where.HOT:
        return "in the hot queue" + (", with a copy in the cold queue" if facts.cold is not None else "")
    if where is Where.PENDING:
        return "routed; its write to the cold queue is not confirmed"
    if where is Where.COLD:
        unreported = facts.cold is not None and facts.cold.unreported
        return "in the cold queue" + (", while the online store was away when it was written" if unreported else "")
    if where is Where.DEAD_LETTER:
        return f"a dead letter ({facts.letters[-1].reason}): the router does not deliver it"
    return _gone(facts.record, memory)


def _gone(record: Record | None, memory: Memory) -> str:
    if record is None:
        return "in no queue any more; only its push command is left"
    routed_at = record.sequence
    if routed_at and record.left_at - routed_at >= memory.queued * MICROSECONDS:
        return "expired: it waited for cold.retention_days, and was deleted"
    if record.ephemeral:
        return "acknowledged, or dropped since it was ephemeral"
    ephemeral = "" if record.ephemeral is False else "; if it was ephemeral, it may have been dropped"
    return f"acknowledged: a device of its recipient has said that it saved it{ephemeral}"


def _attempts(copy: Copy | None, letter: Letter | None) -> int | None:
    if copy is not None:
        return copy.attempts
    return letter.attempts if letter is not None else None


def _happened(id_: str, where: Where, copy: Copy | None, facts: Facts, memory: Memory) -> Iterator[Happening]:
    record, waiting, attention = facts.record, facts.waiting, facts.attention
    accepted_at = copy.accepted_at if copy else waiting.accepted_at if waiting else given_at(id_)
    if accepted_at:
        yield Happening(accepted_at, What.ACCEPTED, "accepted" + ("" if copy or waiting else ", by the time in its id"))
    routed_at = copy.queued_at if copy else record.sequence if record else 0
    if routed_at:
        yield Happening(routed_at, What.ROUTED, "routed")
    if facts.command_at:
        yield Happening(facts.command_at, What.ANNOUNCED, "its push command was put into the outbox")
    waits = where in (Where.HOT, Where.COLD, Where.PENDING)
    if attention is not None and waits and attention.poked_at >= routed_at > 0:
        yield Happening(attention.poked_at, What.POKED, f"{_connections(attention)} poked, the last time")
    for letter in facts.letters:
        yield Happening(letter.at, What.REFUSED, f"refused: {letter.reason}: {letter.detail}")
    if record is not None and record.left_at:
        yield Happening(record.left_at, What.LEFT, _gone(record, memory).partition(":")[0])


def _connections(attention: Attention) -> str:
    count = len(attention.connections)
    return f"{count} connections were" if count > 1 else "1 connection was" if count else "a connection was"


def _holds(name: str, where: Where, copy: Copy | None, facts: Facts, silent: Mapping[Role, str]) -> Iterator[Hold]:
    for text in silent.values():
        yield Hold(Cause.OUTAGE, text)
    if where is Where.GONE:
        return
    if where is Where.DEAD_LETTER:
        letter = facts.letters[-1]
        yield Hold(Cause.REFUSED, _remedy(letter), letter.at)
        return
    if facts.router_runs is False:
        text = "no `router serve`, `serve-ws` or `process` runs on this data directory"
        yield Hold(Cause.NO_ROUTER, text)
    if where is Where.WAITING:
        yield from _unrouted(facts)
        return
    if where is Where.PENDING:
        yield Hold(Cause.PENDING_WRITE, _pending(copy))
    if facts.pending_ahead:
        text = f"behind {_some(facts.pending_ahead)} that the cold queue has not confirmed"
        yield Hold(Cause.BEHIND_PENDING, text)
    if facts.attention is not None:
        yield from _recipient(name, where, facts.attention, facts.command_at)
    if ahead := facts.hot_ahead + facts.cold_ahead:
        yield Hold(Cause.BEHIND, f"behind {_some(ahead)} of the same lane, which a fetch returns before it")


def _unrouted(facts: Facts) -> Iterator[Hold]:
    waiting = facts.waiting
    assert waiting is not None, "it waits in the ingress"
    tries = f", and has handed it back {waiting.attempts} times" if waiting.attempts else ""
    yield Hold(Cause.NOT_ROUTED, f"no pipeline has routed it yet{tries}", waiting.accepted_at)
    if waiting.ahead:
        yield Hold(Cause.BEHIND, f"behind {_some(waiting.ahead)} of the same recipient in the ingress")


def _pending(copy: Copy | None) -> str:
    if copy is not None:
        return "the cold queue has it, and the online store is not told yet"
    return "a pipeline repeats the write until the cold queue confirms it; until then no fetch returns it"


def _recipient(name: str, where: Where, attention: Attention, command_at: int) -> Iterator[Hold]:
    """What the recipient has not done yet."""
    if attention.move_owner:
        text = f"a migrator ({attention.move_owner}) is moving the recipient's mail to the cold queue"
        yield Hold(Cause.MOVING, text)
    if not attention.connections:
        yield Hold(Cause.OFFLINE, f"{name} is offline", attention.offline_since)
        if command_at:
            text = "no notification service has taken its push command from the outbox"
            yield Hold(Cause.PUSH_WAITS, text, command_at)
    elif where is not Where.PENDING:
        yield _not_done(name, attention)


def _not_done(name: str, attention: Attention) -> Hold:
    count = len(attention.connections)
    connected = f"{name} is connected" if count == 1 else f"{name} has {count} connections"
    since = attention.connections[0].since
    if not attention.poked_at:
        return Hold(Cause.NOT_FETCHED, f"{connected}, and has not fetched it", since)
    # A connection that registers is poked under a mark of the same time.
    if not attention.fetched or 0 < attention.cut_at <= attention.poked_at:
        return Hold(Cause.NOT_FETCHED, f"{connected}, and has not fetched since the last poke", attention.poked_at)
    if attention.cut_at:
        text = f"{connected}, and has fetched or acknowledged a page, and not fetched the rest since"
        return Hold(Cause.NOT_FETCHED, text, attention.cut_at)
    text = f"{connected}, has fetched since the last poke, and has not acknowledged it"
    return Hold(Cause.NOT_ACKNOWLEDGED, text, attention.poked_at)


def _remedy(letter: Letter) -> str:
    if letter.reason in (DeadReason.QUEUE_FULL, DeadReason.INBOUND_EXHAUSTED):
        return f"{letter.detail}; once there is room, `router dead-letters replay` routes it again"
    return f"{letter.detail}; `router dead-letters replay --reason {letter.reason}` would try it again after a day"


def _some(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def given_at(id_: str) -> int:
    """When the router gave ``id_``, to the millisecond; 0 if the id does not say (``router.ids.new_id``)."""
    try:
        parsed = UUID(id_)
    except ValueError:
        return 0
    return (parsed.int >> 80) * 1000 if parsed.version == 7 and str(parsed) == id_ else 0


def unknown(id_: str, memory: Memory, now: int) -> list[str]:
    """What can be said of an id of which nothing is known, a sentence each."""
    at = given_at(id_)
    if at > now + CLOCKS_DIFFER_SECONDS * MICROSECONDS:
        return ["The time in this id is yet to come, so this router has not given it."]
    left = ["was acknowledged", "was dropped, if it was ephemeral"]
    left += [
        text
        for text, seconds in (
            (f"expired after {span(memory.queued)} (cold.retention_days)", memory.queued),
            ("was refused, and its dead letter is gone", memory.letters),
        )
        if seconds is not None and (not at or now - at >= seconds * MICROSECONDS)
    ]
    return [
        f"An id is remembered while its message is queued. {_after(memory)}",
        f"So this router never accepted the message, or it has left the queues since: it {_any(left)}.",
    ]


def _after(memory: Memory) -> str:
    plain = f"for {span(memory.plain)}" if memory.plain else "not at all"
    letters = f" Dead letters are kept for {span(memory.letters)}." if memory.letters is not None else ""
    keyed = span(memory.keyed)
    return f"After that, one with an Idempotency-Key is remembered for {keyed}, any other {plain}.{letters}"


def _any(texts: Sequence[str]) -> str:
    return f"{', '.join(texts[:-1])} or {texts[-1]}"


def span(seconds: float) -> str:
    """``seconds`` in the largest unit that is whole."""
    for size, unit in ((DAY_SECONDS, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}" if count > 1 else f"1 {unit[:-1]}"
    return f"{seconds:g} seconds"
