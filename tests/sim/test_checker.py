"""The judge is judged: good histories pass, and each broken promise is found by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import pytest

from tests.sim import history as h
from tests.sim.checker import judge

BOB, EVE = "bob", "eve"


class Story:
    """A history, told in short words. A message's id is ``i`` and its tag."""

    def __init__(self) -> None:
        self.history = h.History()

    def tell(self, *events: h.Event) -> Self:
        for event in events:
            self.history.add(float(len(self.history)), event)
        return self

    def send(self, tag: str, user: str = BOB, *, id_: str = "", express: bool = False, ephemeral: bool = False) -> Self:
        op = self.history.op()
        return self.tell(h.Sending(op, user, tag, express, ephemeral), h.Sent(op, id_ or f"i{tag}"))

    def express(self, *tags: str) -> Self:
        for tag in tags:
            self.send(tag, express=True)
        return self

    def lose(self, tag: str) -> Self:
        op = self.history.op()
        return self.tell(h.Sending(op, BOB, tag), h.NotSent(op, "no answer"))

    def together(self, *tags: str) -> Self:
        """One request; where a tag is empty, the message of that place was refused."""
        sent = [(self.history.op(), place, tag) for place, tag in enumerate(tags)]
        for op, place, tag in sent:
            self.tell(h.Sending(op, BOB, tag or f"refused {op}", batch=f"{tags}", place=place))
        return self.tell(*(h.Sent(op, f"i{tag}") if tag else h.NotSent(op, "503") for op, _, tag in sent))

    def get(self, *tags: str, user: str = BOB, limit: int = 50, clock: float = 0.0) -> Self:
        op = self.history.op()
        batch = tuple(h.Item(f"i{tag}", tag) for tag in tags)
        return self.tell(h.Fetching(op, user, limit, clock), h.Fetched(op, batch))

    def ack(self, *tags: str, user: str = BOB, answered: bool = True) -> Self:
        op = self.history.op()
        ids = tuple(f"i{tag}" for tag in tags)
        return self.tell(h.Acking(op, user, ids), h.Acked(op) if answered else h.NotAcked(op, "503"))

    def follow(self, *tags: str, to: Sequence[str] = (), answered: bool = True) -> Self:
        """One request acknowledges ``tags`` and gets ``to``."""
        acking, op = self.history.op(), self.history.op()
        ids = tuple(f"i{tag}" for tag in tags)
        self.tell(h.Acking(acking, BOB, ids), h.Fetching(op, BOB, 50, without=ids))
        if not answered:
            return self.tell(h.NotAcked(acking, "503"), h.NotFetched(op, "503"))
        return self.tell(h.Acked(acking), h.Fetched(op, tuple(h.Item(f"i{tag}", tag) for tag in to)))

    def end(self, *tags: str) -> Self:
        """At the end ``tags`` are cold and announced, and then read."""
        for tag in tags:
            self.tell(h.Pushed(f"i{tag}", BOB))
        self.tell(h.Final(cold=tuple((BOB, f"i{tag}") for tag in tags)), h.Draining())
        return self.get(*tags).ack(*tags).get().tell(h.End())

    def verdict(self) -> list[str]:
        return [violation.promise for violation in judge(self.history, 10.0)]


GOOD = {
    "in order, read, acknowledged": Story().send("a").send("b").get("a", "b").ack("a", "b").get().end(),
    "not read before the end": Story().send("a").send("b").end("a", "b"),
    "not routed yet": Story().send("a").get().get("a").ack("a").end(),
    "a page": Story().send("a").send("b").get("a", limit=1).ack("a").get("b", limit=1).ack("b").end(),
    "sent at once": Story()
    .tell(h.Sending(101, BOB, "a"), h.Sending(102, BOB, "b"), h.Sent(102, "ib"), h.Sent(101, "ia"))
    .get("b", "a")
    .ack("a", "b")
    .end(),
    "sent together": Story().together("a", "b").together("c", "").get("a", "b", "c").ack("a", "b", "c").end(),
    "sent together, in two lanes": Story()
    .tell(h.Sending(101, BOB, "a", batch="x"), h.Sending(102, BOB, "b", express=True, batch="x", place=1))
    .tell(h.Sent(101, "ia"), h.Sent(102, "ib"))
    .get("b", "a")
    .end("b", "a"),
    "sent together, and the first one was refused": Story().together("", "b").get("b").ack("b").end(),
    "sent together, and what was refused came late": Story()
    .tell(h.Sending(101, BOB, "a", batch="x"), h.Sending(102, BOB, "b", batch="x", place=1))
    .tell(h.NotSent(101, "no answer"), h.Sent(102, "ib"))
    .get("b")
    .get("b", "a")
    .ack("a", "b")
    .end(),
    "an unanswered send may come": Story().lose("a").get("a").ack("a").end(),
    "an unanswered send may be lost": Story().lose("a").get().end(),
    "the express lane first": Story().send("a").send("b", express=True).get("b", "a").ack("a", "b").end(),
    "a fifth of a page for normal mail": Story()
    .express(*"defghijklm")
    .send("a")
    .send("b")
    .send("c")
    .get(*"defghijklm", "a", "b", "c")
    .get(*"defghijk", "a", "b", limit=10)
    .get("d", "a", limit=2)
    .get("a", limit=1)
    .get("d", limit=1)
    .end(*"defghijklm", "a", "b", "c"),
    "an unanswered acknowledgement may have worked": Story().send("a").get("a").ack("a", answered=False).get().end(),
    "or not": Story().send("a").get("a").ack("a", answered=False).get("a").ack("a").get().end(),
    "the next page with the acknowledgement": Story()
    .send("a")
    .send("b")
    .get("a", limit=1)
    .follow("a", to="b")
    .follow("b")
    .end(),
    "an unanswered request for the next page may have acknowledged": Story()
    .send("a")
    .get("a")
    .follow("a", answered=False)
    .get()
    .end(),
    "or not at all": Story().send("a").get("a").follow("a", answered=False).get("a").follow("a").end(),
    "a fetch that began before the acknowledgement ended": Story()
    .send("a")
    .get("a")
    .tell(h.Fetching(101, BOB, 50))
    .ack("a")
    .tell(h.Fetched(101, (h.Item("ia", "a"),)))
    .end(),
    "a push command may go out for what is damaged and a dead letter since": Story()
    .send("a")
    .tell(h.Flipped("ia"), h.Buried("ia", "damaged"), h.Pushed("ia", BOB, found=False))
    .end(),
    "ephemeral mail may be dropped": Story().send("a", ephemeral=True).get().end(),
    "ephemeral mail that was routed again may be late": Story()
    .send("a", ephemeral=True)
    .send("b")
    .tell(h.RoutedAgain("ia"))
    .get("b", "a")
    .ack("a", "b")
    .end(),
    "a dead letter that was routed again may be late": Story()
    .send("a")
    .send("b")
    .tell(h.Buried("ia", "queue-full"), h.RoutedAgain("ia"))
    .get("b", "a")
    .ack("a", "b")
    .end(),
    "a damaged copy became a dead letter, and a whole one that was sent again may be late": Story()
    .send("a")
    .send("b")
    .tell(h.Flipped("ia"), h.Buried("ia", "damaged"))
    .get("b", "a")
    .ack("a", "b")
    .end(),
    "a dead letter may be late that is routed again without the store": Story()
    .send("a")
    .send("b")
    .tell(h.Buried("ia", "attempts-exhausted"), h.Unsettled(("ia",)))
    .get("b", "a")
    .ack("a", "b")
    .end(),
    "a dead letter is not delivered": Story().send("a").tell(h.Buried("ia", "queue-full")).send("b").end("b"),
    "out of sight in an outage, after an acknowledgement that nobody answered": Story()
    .send("a")
    .tell(h.Unsettled(("ia",)))
    .get("a")
    .ack("a", answered=False)
    .get()
    .tell(h.Settled(("ia",)))
    .get("a")
    .ack("a")
    .end(),
    "out of sight in an outage": Story()
    .send("a")
    .tell(h.Unsettled(("ia",)))
    .get("a")
    .get()
    .tell(h.Settled(("ia",)))
    .get("a")
    .ack("a")
    .end(),
    "routed again after a power failure": Story().send("a").get("a").tell(h.PowerLost()).get().get("a").ack("a").end(),
    "a store that forgot what was read and not acknowledged": Story()
    .send("a")
    .get("a")
    .tell(h.Forgotten(("ia",)))
    .ack("a")
    .get("a")
    .ack("a")
    .end(),
    "a store that forgot what was on its way to cold": Story()
    .send("a")
    .send("b")
    .tell(h.Forgotten(under_way=("ia",)))
    .get("b")
    .tell(h.Pushed("ia", BOB))
    .get("a", "b")
    .ack("a", "b")
    .end(),
    "a store that forgot that it was acknowledged": Story()
    .send("a")
    .get("a")
    .ack("a")
    .tell(h.Forgotten())
    .get("a")
    .ack("a")
    .end(),
}

BAD: dict[str, tuple[Story, str]] = {
    "lost": (Story().send("a").end(), "accepted is durable"),
    "never returned": (
        Story().send("a").tell(h.Pushed("ia", BOB), h.Final(cold=((BOB, "ia"),)), h.Draining()).get().tell(h.End()),
        "at least once",
    ),
    "missing from a later fetch": (Story().send("a").get("a").get().end("a"), "at least once"),
    "overtaken": (Story().send("a").send("b").get("b").end("a", "b"), "in order"),
    "overtaken in a full page": (Story().send("a").send("b").get("b", limit=1).end("a", "b"), "in order"),
    "reordered within a batch": (Story().send("a").send("b").get("b", "a").end("a", "b"), "in order"),
    "reordered of those sent together": (Story().together("a", "b").get("b", "a").end("a", "b"), "in order"),
    "overtaken of those sent together": (Story().together("a", "", "b").get("b").end("a", "b"), "in order"),
    "normal before express": (Story().send("a").send("b", express=True).get("a", "b").end("a", "b"), "in order"),
    "express left out of a full page": (
        Story().send("e", express=True).get("e").send("a").send("b").get("a", "b", limit=2).end("e", "a", "b"),
        "a lane's part",
    ),
    "normal mail left out of a full page": (
        Story().send("a").get("a").express("d", "e").get("d", "e", limit=2).end("d", "e", "a"),
        "a lane's part",
    ),
    "normal mail with less than a fifth of a full page": (
        Story()
        .send("a")
        .send("b")
        .get("a", "b")
        .express(*"defghijkl")
        .get(*"defghijkl", "a", limit=10)
        .end(*"defghijkl", "a", "b"),
        "a lane's part",
    ),
    "ephemeral mail has its order": (Story().send("a", ephemeral=True).send("b").get("b", "a").end("b"), "in order"),
    "mail of an outage has its order": (
        Story().send("a").send("b").tell(h.Unsettled(("ia",))).get("b", "a").end("a", "b"),
        "in order",
    ),
    "a dead letter has its order that was written before": (
        Story().send("a").send("b").tell(h.Unsettled(("ia",)), h.Buried("ia", "queue-full")).get("b", "a").end("b"),
        "in order",
    ),
    "twice in a batch": (Story().send("a").get("a", "a").end("a"), "one id for life"),
    "a second id": (
        Story().send("a").tell(h.Fetching(101, BOB, 50), h.Fetched(101, (h.Item("other", "a"),))).end("a"),
        "one id for life",
    ),
    "a second id for a repeated key": (Story().send("a").send("a", id_="other").end("a"), "one id for life"),
    "one id for two": (Story().send("a").send("b", id_="ia").end("a"), "one id for life"),
    "left over": (Story().send("a").get("a").ack("a").end().tell(h.End(("cold: ia",))), "one id for life"),
    "acknowledged and back": (Story().send("a").get("a").ack("a").get("a").end(), "acknowledged stays away"),
    "in the page that it is acknowledged with": (
        Story().send("a").get("a").follow("a", to="a").get().end(),
        "acknowledged stays away",
    ),
    "acknowledged with a page and back": (
        Story().send("a").send("b").get("a", "b").follow("a", to="b").get("a", "b").end("b"),
        "acknowledged stays away",
    ),
    "behind an acknowledgement, missing": (
        Story().send("a").send("b").get("a", "b").follow("a").end("b"),
        "at least once",
    ),
    "acknowledged and back, though a store forgot others": (
        Story().send("a").get("a").tell(h.Forgotten(("ib",))).ack("a").get("a").end(),
        "acknowledged stays away",
    ),
    "gone and back": (
        Story().send("a").get("a").ack("a", answered=False).get().get("a").ack("a").end(),
        "acknowledged stays away",
    ),
    "gone and back, though the store knew": (
        Story()
        .send("a")
        .tell(h.Unsettled(("ia",)), h.Settled(("ia",)))
        .get("a")
        .ack("a", answered=False)
        .get()
        .get("a")
        .ack("a")
        .end(),
        "acknowledged stays away",
    ),
    "missing though it had come to cold": (
        Story().send("a").send("b").tell(h.Forgotten(under_way=("ia",)), h.Pushed("ia", BOB)).get("b").end(),
        "in order",
    ),
    "not routed": (
        Story().send("a").tell(h.Final(ingress=("ia",), cold=((BOB, "ia"),)), h.Pushed("ia", BOB)),
        "nothing is stuck",
    ),
    "hot of an offline user": (Story().send("a").tell(h.Final(hot=((BOB, "ia"),))), "nothing is stuck"),
    "not announced": (Story().send("a").tell(h.Final(cold=((BOB, "ia"),))), "nothing is stuck"),
    "not fetched by one who reads": (
        Story().send("a").tell(h.Pushed("ia", BOB), h.Final(cold=((BOB, "ia"),), online=(BOB,))),
        "nothing is stuck",
    ),
    "still under way": (Story().tell(h.Final(owed=("ia in state 1",))), "nothing is stuck"),
    "ephemeral in cold": (
        Story().send("a", ephemeral=True).tell(h.Pushed("ia", BOB), h.Final(cold=((BOB, "ia"),))),
        "ephemeral",
    ),
    "ephemeral and late": (Story().send("a", ephemeral=True).get("a", clock=10.0).ack("a").end(), "ephemeral"),
    "another's mail": (Story().send("a", EVE).get("a").end(), "nobody else's mail"),
    "told of another's mail": (
        Story().send("a").tell(h.Pushed("ia", EVE)).get("a").ack("a").end(),
        "nobody else's mail",
    ),
    "acknowledged by another": (Story().send("a").get("a").ack("a", user=EVE).get().end("a"), "at least once"),
    "what nobody sent": (Story().get("x").end(), "sealed as sent"),
    "too many": (Story().send("a").send("b").get("a", "b", limit=1).end("a", "b"), "within the limit"),
    "a push command before the write": (
        Story().send("a").tell(h.Pushed("ia", BOB, found=False)).end("a"),
        "push after commit",
    ),
    "a fault of its own": (Story().tell(h.Failed("a task failed")).end(), "sound"),
}


CAME = (h.Connected(BOB, "phone"), h.Waiting(BOB, "phone"))
ROUSED, LEFT, HOT = h.Roused(BOB, "phone"), h.Left(BOB, "phone"), h.Hot(((BOB, "ia"),))
LATER = [h.Note("", "a second goes by")] * 3
MUCH_LATER = [h.Note("", "a second goes by")] * 10

PROMPT = {
    "poked at once": Story().tell(*CAME).send("a").tell(ROUSED, *LATER),
    "read by another device": Story()
    .tell(*CAME, h.Fetching(101, BOB, 50))
    .send("a")
    .tell(h.Fetched(101, (h.Item("ia", "a"),)), *LATER),
    "it left before it could be poked": Story().tell(*CAME).send("a").tell(LEFT, *LATER),
    "it did not wait yet": Story().tell(CAME[0]).send("a").tell(CAME[1], *LATER),
    "another device goes on reading": Story()
    .tell(CAME[0])
    .send("a")
    .tell(CAME[1], *LATER)
    .get()
    .tell(*LATER)
    .get("a")
    .tell(*MUCH_LATER),
    "hot, and there": Story().tell(*CAME).send("a").tell(ROUSED, *MUCH_LATER, HOT),
    "hot, and just gone": Story().tell(*CAME).send("a").tell(ROUSED, *MUCH_LATER, LEFT, HOT),
    "a process died that may have known": Story().send("a").tell(*MUCH_LATER, h.Died("n1"), HOT),
}
LATE = {
    "not poked": (Story().tell(*CAME).send("a").tell(*LATER), "told at once"),
    "poked late": (Story().tell(*CAME).send("a").tell(*LATER, ROUSED), "told at once"),
    "left waiting for the rest": (Story().tell(CAME[0]).send("a").get().tell(CAME[1], *MUCH_LATER), "told at once"),
    "hot, and gone": (Story().tell(*CAME).send("a").tell(ROUSED, LEFT, *MUCH_LATER, HOT), "nothing is stuck"),
}


def late(story: Story) -> list[str]:
    return [violation.promise for violation in judge(story.history, 10.0, plain=True)]


@pytest.mark.parametrize("name", PROMPT)
def test_the_judge_accepts_prompt_delivery(name: str) -> None:
    assert late(PROMPT[name]) == []


@pytest.mark.parametrize("name", LATE)
def test_what_is_late_is_found_in_plain_runs(name: str) -> None:
    story, promise = LATE[name]
    assert late(story) == [promise]
    assert story.verdict() == []


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name: str) -> None:
    assert GOOD[name].verdict() == []


@pytest.mark.parametrize("name", BAD)
def test_a_broken_promise_is_found(name: str) -> None:
    story, promise = BAD[name]
    assert only(story.verdict()) == promise


def only(promises: Sequence[str]) -> str:
    """The promise that broke first; nothing else may break before it."""
    assert promises, "nothing was found"
    return promises[0]
