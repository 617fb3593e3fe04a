"""What became of a message, told from facts alone."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from router.clock import MICROSECONDS
from router.config.roles import Role
from router.core.message_story import Cause, Hold, Memory, Story, What, Where, given_at, span, tell, unknown
from router.ids import keyed_id, new_id
from router.lifecycle import State
from router.message_trace import NOTHING, Attention, Copy, Facts, Letter, Record, Waiting, merged
from router.messages import Connection, Lane

BOB = "urn:sm:user:bob"
NOW = 1_800_000_000_000_000
DAY = 86_400 * MICROSECONDS
MEMORY = Memory(plain=3600, keyed=86_400, queued=30 * 86_400, letters=30 * 86_400)
COPY = Copy(Lane.NORMAL, NOW, NOW, NOW - 5, False, False, 100, 1, False)
COLD = Facts(record=Record(State.COLD, Lane.NORMAL, False, NOW), cold=COPY)
PHONE = Connection(BOB, "phone", "node", NOW - 100)
LETTER = Letter("queue-full", "the recipient's queue holds limits.queue_messages", NOW + 3, 1, 100)


def story(facts: Facts, id_: str = "m1", **silent: str) -> Story:
    return tell(id_, BOB, facts, MEMORY, {Role(role): text for role, text in silent.items()})


def hold(facts: Facts) -> Hold:
    (only,) = story(facts).holds
    return only


def hot(**attention: object) -> Facts:
    record = Record(State.HOT, Lane.NORMAL, False, NOW)
    return Facts(record=record, hot=COPY, attention=Attention([PHONE], **attention))  # type: ignore[arg-type]  # of any field


@pytest.mark.parametrize(
    ("attention", "cause", "since"),
    [
        ({"poked_at": NOW, "fetched": False}, Cause.NOT_FETCHED, NOW),
        ({"poked_at": NOW, "fetched": True}, Cause.NOT_ACKNOWLEDGED, NOW),
        # A connection that registers is poked, and marked as one whose page was cut short, at once.
        ({"poked_at": NOW, "fetched": True, "cut_at": NOW}, Cause.NOT_FETCHED, NOW),
        ({"poked_at": NOW, "fetched": True, "cut_at": NOW + 9}, Cause.NOT_FETCHED, NOW + 9),
        ({}, Cause.NOT_FETCHED, NOW - 100),
    ],
)
def test_what_a_connected_recipient_has_not_done(attention: dict[str, object], cause: Cause, since: int) -> None:
    found = hold(hot(**attention))
    assert (found.cause, found.since) == (cause, since)
    assert found.text.startswith("bob is connected")


def test_an_offline_recipient_is_named_with_the_time_since_when() -> None:
    found = hold(replace(COLD, attention=Attention([], offline_since=NOW + 7)))
    assert found == Hold(Cause.OFFLINE, "bob is offline", NOW + 7)


def test_what_stands_in_front_of_it_is_counted_over_both_tiers() -> None:
    told = story(replace(COLD, hot_ahead=1, cold_ahead=2))
    assert told.ahead == 3
    assert [one.text for one in told.holds] == ["behind 3 messages of the same lane, which a fetch returns before it"]


def test_a_dependency_that_does_not_answer_comes_first() -> None:
    pending = Facts(record=Record(State.PENDING, Lane.EXPRESS, False, NOW), attention=Attention([]))
    told = story(pending, cold="the cold queue does not answer")
    assert told.where is Where.PENDING
    assert [one.cause for one in told.holds] == [Cause.OUTAGE, Cause.PENDING_WRITE, Cause.OFFLINE]
    assert "repeats the write" in told.holds[1].text
    assert "not told yet" in story(replace(pending, cold=COPY)).holds[0].text


def test_a_router_that_is_stopped_holds_up_what_waits() -> None:
    waiting = Facts(waiting=Waiting(NOW, Lane.NORMAL, False, True, 9, 2, 4), router_runs=False)
    told = story(waiting)
    assert (told.where, told.ahead, told.attempts, told.ephemeral) == (Where.WAITING, 4, None, True)
    assert [one.cause for one in told.holds] == [Cause.NO_ROUTER, Cause.NOT_ROUTED, Cause.BEHIND]
    assert "handed it back 2 times" in told.holds[1].text
    assert [one.cause for one in story(replace(waiting, router_runs=True)).holds] == [Cause.NOT_ROUTED, Cause.BEHIND]


def test_what_is_gone_is_held_up_by_nothing() -> None:
    gone = Record(State.ACKED, Lane.NORMAL, True, NOW, left_at=NOW + 60)
    told = story(Facts(record=gone, attention=Attention([]), router_runs=False))
    assert (told.where, told.holds) == (Where.GONE, [])
    assert told.text.startswith("acknowledged: a device of its recipient")
    assert [(one.at, one.what) for one in told.happened] == [(NOW, What.ROUTED), (NOW + 60, What.LEFT)]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (Record(State.ACKED, Lane.NORMAL, True, NOW, False, NOW + 30 * DAY), "expired"),
        (Record(State.ACKED, Lane.NORMAL, True, NOW, False, NOW + 29 * DAY), "acknowledged: a device"),
        (Record(State.ACKED_OWED, Lane.NORMAL, True, 0, False, NOW), "acknowledged: a device"),
        (Record(State.ACKED, Lane.NORMAL, True, NOW, True, NOW + 9), "acknowledged, or dropped"),
    ],
)
def test_why_it_is_gone(record: Record, text: str) -> None:
    assert story(Facts(record=record)).text.startswith(text)


def test_a_dead_letter_says_what_to_do() -> None:
    told = story(Facts(letters=[LETTER], router_runs=False))
    assert (told.where, told.bytes, told.attempts) == (Where.DEAD_LETTER, 100, 1)
    assert [one.cause for one in told.holds] == [Cause.REFUSED]
    assert "router dead-letters replay" in told.holds[0].text
    damaged = story(Facts(letters=[replace(LETTER, reason="damaged")]))
    assert "replay --reason damaged" in damaged.holds[0].text


def test_a_replayed_message_is_where_it_is_now() -> None:
    """Its earlier letter has happened, and holds up nothing."""
    told = story(replace(COLD, letters=[LETTER]))
    assert told.where is Where.COLD
    assert What.REFUSED in {one.what for one in told.happened}
    assert Cause.REFUSED not in {one.cause for one in told.holds}


def test_a_copy_that_the_store_does_not_know() -> None:
    told = story(Facts(cold=replace(COPY, unreported=True)))
    assert told.where is Where.COLD
    assert "online store was away" in told.text


def test_what_is_acknowledged_stays_so_while_a_copy_is_left() -> None:
    """A sweeper deletes the orphan."""
    owed = Record(State.ACKED_OWED, Lane.NORMAL, False, NOW, left_at=NOW + 1)
    assert story(Facts(record=owed, cold=COPY)).where is Where.GONE


def test_an_id_tells_when_it_was_given_unless_it_is_of_a_key() -> None:
    id_ = new_id(NOW, bytes(10))
    assert given_at(id_) == NOW
    assert given_at(keyed_id(b"secret", "alice", BOB, "key")) == given_at("m1") == given_at(id_.upper()) == 0
    happened = story(Facts(letters=[LETTER]), id_).happened
    assert [(one.at, one.what) for one in happened] == [(NOW, What.ACCEPTED), (NOW + 3, What.REFUSED)]


@pytest.mark.parametrize(("age", "may_be_expired"), [(29 * DAY, False), (30 * DAY, True)])
def test_of_an_unknown_id_it_says_how_long_it_would_be_remembered(age: int, may_be_expired: bool) -> None:
    said = " ".join(unknown(new_id(NOW - age, bytes(10)), MEMORY, NOW))
    assert "with an Idempotency-Key is remembered for 1 day, any other for 1 hour" in said
    assert "Dead letters are kept for 30 days" in said
    assert ("expired after 30 days" in said) == may_be_expired


def test_an_unknown_id_of_the_future_is_none_of_this_router() -> None:
    (said,) = unknown(new_id(NOW + DAY, bytes(10)), MEMORY, NOW)
    assert "has not given it" in said


def test_an_id_that_is_forgotten_at_once() -> None:
    assert "any other not at all" in " ".join(unknown("m1", replace(MEMORY, plain=0, letters=None), NOW))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86_400, "1 day"), (7200, "2 hours"), (90, "90 seconds"), (60, "1 minute"), (0.5, "0.5 seconds")],
)
def test_spans_in_words(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_facts_of_several_backends_add_up() -> None:
    ingress = Facts(letters=[LETTER], router_runs=False)
    together = merged(merged(NOTHING, ingress), COLD)
    assert (together.letters, together.router_runs, together.cold) == ([LETTER], False, COPY)
    assert merged(ingress, NOTHING) == ingress
