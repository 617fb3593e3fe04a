"""Asking several backends, of which some do not answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from router.config.roles import Place, Role
from router.core.message_story import Cause, Memory, Where
from router.core.message_tracer import MessageTracer, Source, Unsaid
from router.errors import Unavailable
from router.interfaces import Place as QueuePlace
from router.lifecycle import State
from router.message_trace import Attention, Copy, Facts, Record
from router.messages import Lane

pytestmark = pytest.mark.anyio
BOB = "urn:sm:user:bob"
MEMORY = Memory(3600, 86_400, 30 * 86_400, None)
ONLINE, COLD, INGRESS = (
    Place(role, kind, "") for role, kind in zip((Role.ONLINE, Role.COLD, Role.INGRESS), "ocp", strict=True)
)
PENDING = Record(State.PENDING, Lane.EXPRESS, False, 7)


class Known:
    """A backend that knows one message, and notes at which place it was asked for it."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.asked: list[QueuePlace | None] = []

    async def recipients(self, id_: str, looked: Callable[[int], None]) -> list[str]:
        looked(1)
        return [BOB] if id_ == "m1" else []

    async def facts(self, user: str, id_: str, place: QueuePlace | None) -> Facts:
        self.asked.append(place)
        return self._facts if (user, id_) == (BOB, "m1") else Facts()


class Down:
    """A backend that does not answer."""

    calls = 0

    async def recipients(self, id_: str, looked: Callable[[int], None]) -> list[str]:
        self.calls += 1
        raise Unavailable("nobody listens")

    async def facts(self, user: str, id_: str, place: QueuePlace | None) -> Facts:
        self.calls += 1
        raise Unavailable("nobody listens")


def tracer(*sources: Source, silent: tuple[Unsaid, ...] = ()) -> MessageTracer:
    return MessageTracer(sources, MEMORY, silent=silent, untraceable=[Unsaid(INGRESS, "no search")])


async def test_what_does_not_answer_is_named_and_holds_the_message_up() -> None:
    online = Source([ONLINE], Known(Facts(record=PENDING, attention=Attention([]))), True)
    down = Down()
    trace = await tracer(online, Source([COLD], down, False)).trace("m1", None, lambda _: None)
    (story,) = trace.stories
    assert (story.where, story.lane) == (Where.PENDING, Lane.EXPRESS)
    assert story.holds[0].cause is Cause.OUTAGE
    assert "the cold queue (c) does not answer: nobody listens" in story.holds[0].text
    assert trace.silent == [Unsaid(COLD, "nobody listens")]
    assert trace.unasked == [Unsaid(INGRESS, "no search")]
    assert down.calls == 1, "each of its time-outs would be waited for"


async def test_a_queue_that_cannot_search_is_asked_at_the_place_on_record() -> None:
    copy = Copy(Lane.EXPRESS, 7, 7, 6, False, False, 1, 1, True)
    cold = Known(Facts(cold=copy, cold_ahead=3))
    sources = Source([ONLINE], Known(Facts(record=PENDING)), True), Source([COLD], cold, False)
    (story,) = (await tracer(*sources).trace("m1", BOB, lambda _: None)).stories
    assert cold.asked == [(Lane.EXPRESS, 7)]
    assert story.ahead == 3


async def test_nothing_known_and_who_needs_the_recipient() -> None:
    source = Source([COLD], Known(Facts()), False)
    trace = await tracer(source, silent=(Unsaid(ONLINE, "away"),)).trace("m2", None, lambda _: None)
    assert trace.stories == []
    assert [unsaid.place for unsaid in trace.silent] == [ONLINE]
    assert [unsaid.place for unsaid in trace.unasked] == [INGRESS, COLD]
    named = await tracer(source).trace("m2", BOB, lambda _: None)
    assert [unsaid.place for unsaid in named.unasked] == [INGRESS]
