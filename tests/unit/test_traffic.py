"""The judge of the acceptance tests sees what is wrong."""

from __future__ import annotations

import pytest

from tests.support.traffic import Inbox, Sent, judge


def inbox(user: str, *messages: tuple[str, tuple[str, int, str]]) -> Inbox:
    made = Inbox(user)
    made.messages = dict(messages)
    return made


SENT = [Sent("ann", 0, "bob", "a"), Sent("ann", 1, "bob", "b")]
FIRST, SECOND = ("a", ("ann", 0, "bob")), ("b", ("ann", 1, "bob"))


def test_judge_accepts_traffic_that_arrived_in_order() -> None:
    judge(SENT, [inbox("bob", FIRST, SECOND), inbox("eve")])
    judge(SENT[:1], [inbox("bob", FIRST, SECOND)])


@pytest.mark.parametrize(
    ("inboxes", "words"),
    [
        ([inbox("bob", FIRST)], "what was answered 202 arrives"),
        ([inbox("bob", SECOND, FIRST)], "got number 0 of ann after 1"),
        ([inbox("bob", FIRST, SECOND, ("c", ("ann", 1, "bob")))], "got number 1 of ann after 1"),
        ([inbox("bob", FIRST, SECOND), inbox("eve", FIRST)], "nobody else's mail"),
        ([inbox("bob", ("a", ("ann", 1, "bob")), ("b", ("ann", 2, "bob")))], "its own content"),
    ],
)
def test_what_is_wrong_is_seen(inboxes: list[Inbox], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        judge(SENT, inboxes)
