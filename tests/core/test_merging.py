"""One batch out of two tiers: the rules of order, on pages made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from router.core.merging import fit, merge
from router.messages import ColdPage, HotPage, Lane, Message, Pending, Queued

USER = "urn:sm:user:bob"
MANY = 1 << 30


def queued(sequence: int, lane: Lane = Lane.NORMAL, id_: str | None = None, size: int = 10) -> Queued:
    message = Message(id_ or f"{lane}-{sequence}", USER, b"x" * size, lane, False, 0)
    return Queued(message, sequence, 0)


def hot(messages: Sequence[Queued] = (), *, more: bool = False, pending: Sequence[Pending] = ()) -> HotPage:
    return HotPage(list(messages), more, list(pending), False, 1)


def cold(messages: Sequence[Queued] = (), *, more: bool = False) -> ColdPage:
    return ColdPage(list(messages), more)


def sequences(batch: Sequence[Queued]) -> list[int]:
    return [message.sequence for message in batch]


def test_both_tiers_are_one_order() -> None:
    batch = merge(hot([queued(2), queued(5)]), cold([queued(1), queued(4)]), set(), 50, MANY)
    assert sequences(batch) == [1, 2, 4, 5]


def test_the_express_lane_comes_first() -> None:
    """RACES 33."""
    batch = merge(hot([queued(9, Lane.EXPRESS), queued(5)]), cold([queued(1)]), set(), 50, MANY)
    assert sequences(batch) == [9, 1, 5]


def test_an_id_in_both_tiers_is_returned_once_at_its_first_place() -> None:
    """RACES 21: the migrator died between the cold write and the hot delete; or a copy was placed without the store."""
    both = hot([queued(3, id_="a"), queued(7, id_="b")]), cold([queued(2, id_="b"), queued(8, id_="a")])
    batch = merge(*both, set(), 50, MANY)
    assert [(message.message.id, message.sequence) for message in batch] == [("b", 2), ("a", 3)]


def test_an_acknowledged_copy_in_cold_is_not_returned() -> None:
    """RACES 24."""
    assert merge(hot(), cold([queued(1, id_="gone"), queued(2)]), {"gone"}, 50, MANY) == [queued(2)]


def test_nothing_behind_an_unseen_cold_write_is_returned() -> None:
    """RACES 6: m1 is on its way to cold, m2 went hot."""
    pending = [Pending("m1", Lane.NORMAL, 10)]
    page = hot([queued(1, Lane.EXPRESS), queued(9), queued(11)], pending=pending)
    assert sequences(merge(page, cold(), set(), 50, MANY)) == [1, 9]


def test_a_cold_write_that_was_seen_holds_nothing_back() -> None:
    pending = [Pending("m1", Lane.NORMAL, 10)]
    batch = merge(hot([queued(11)], pending=pending), cold([queued(10, id_="m1")]), set(), 50, MANY)
    assert sequences(batch) == [10, 11]


def test_a_page_that_ends_early_hides_what_may_follow_it() -> None:
    """The cold page is full of acknowledged copies; hot mail must not overtake what cold still holds."""
    page = cold([queued(1, id_="gone"), queued(2, id_="gone too")], more=True)
    assert merge(hot([queued(9)]), page, {"gone", "gone too"}, 50, MANY) == []


def test_a_batch_has_its_limits() -> None:
    page = hot([queued(1, size=60), queued(2, size=60), queued(3, size=60)])
    assert sequences(merge(page, cold(), set(), 2, MANY)) == [1, 2]
    assert sequences(merge(page, cold(), set(), 50, 120)) == [1, 2]
    assert sequences(fit(page.messages, 1)) == [1], "one message always fits"


@given(
    st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=40),
    st.integers(1, 12),
    st.sets(st.integers(0, 39)),
    st.integers(0, 39),
)
def test_a_batch_is_the_head_of_the_queue(
    places: list[tuple[int, bool]], limit: int, acknowledged: set[int], unseen: int
) -> None:
    """Whatever is where: the batch is an unbroken head of each lane of all that is unacknowledged."""
    everything = [queued(number + 1, Lane(lane)) for number, (lane, _) in enumerate(places)]
    in_hot = sorted((m for m, (_, is_hot) in zip(everything, places, strict=True) if is_hot), key=lambda m: m.place)
    in_cold = sorted(
        (m for m, (_, is_hot) in zip(everything, places, strict=True) if not is_hot), key=lambda m: m.place
    )
    acked = {m.message.id for m in in_cold if m.sequence in acknowledged}
    pending = [Pending("on its way", Lane.NORMAL, unseen)] if unseen else []
    batch = merge(
        hot(in_hot[:limit], more=len(in_hot) > limit, pending=pending),
        cold(in_cold[:limit], more=len(in_cold) > limit),
        acked,
        limit,
        MANY,
    )
    wanted = sorted((m for m in everything if m.message.id not in acked), key=lambda m: m.place)
    for lane in Lane:
        own = [m for m in batch if m.message.lane is lane]
        assert own == [m for m in wanted if m.message.lane is lane][: len(own)]
        assert not unseen or lane is Lane.EXPRESS or all(m.sequence < unseen for m in own)
    if not unseen and not acked:
        assert batch == wanted[:limit]


def test_a_copy_in_cold_stands_where_it_is_to_be_written() -> None:
    """RACES 7, 10: it was put there without the online store, while the write that has its place is under way."""
    pending = [Pending("m1", Lane.NORMAL, 10)]
    batch = merge(hot(pending=pending), cold([queued(11, id_="m2"), queued(90, id_="m1")]), set(), 50, MANY)
    assert [(message.message.id, message.sequence) for message in batch] == [("m1", 10), ("m2", 11)]
