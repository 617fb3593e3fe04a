"""One batch out of two tiers: the rules of order, on pages made by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hypothesis import given
from hypothesis import strategies as st

from router.core.page_merge import has_left, merge, passes_over
from router.messages import ColdPage, HotPage, Lane, Message, Pending, Queued
from router.pages import Head, cut, fits

USER = "urn:sm:user:bob"
MANY = 1 << 30


def queued(sequence: int, lane: Lane = Lane.NORMAL, id_: str | None = None, size: int = 10) -> Queued:
    message = Message(id_ or f"{lane}-{sequence}", USER, b"x" * size, lane, False, 0)
    return Queued(message, sequence, 0)


def hot(messages: Sequence[Queued] = (), *, more: Collection[Lane] = (), pending: Sequence[Pending] = ()) -> HotPage:
    return HotPage(list(messages), frozenset(more), list(pending), False, 1)


def cold(messages: Sequence[Queued] = (), *, more: Collection[Lane] = ()) -> ColdPage:
    return ColdPage(list(messages), frozenset(more))


def lane(lane: Lane, count: int, size: int = 10) -> list[Queued]:
    return [queued(number, lane, size=size) for number in range(1, count + 1)]


def counts(page: Sequence[Queued]) -> tuple[int, int]:
    """How many of each lane."""
    express = sum(one.message.lane is Lane.EXPRESS for one in page)
    return express, len(page) - express


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
    page = cold([queued(1, id_="gone"), queued(2, id_="gone too")], more=[Lane.NORMAL])
    assert merge(hot([queued(9)]), page, {"gone", "gone too"}, 50, MANY) == []


def test_a_batch_has_its_limits() -> None:
    page = hot([queued(1, size=60), queued(2, size=60), queued(3, size=60)])
    assert sequences(merge(page, cold(), set(), 2, MANY)) == [1, 2]
    assert sequences(merge(page, cold(), set(), 50, 120)) == [1, 2]
    assert sequences(cut(page.messages, 50, 1)) == [1], "one message always fits"


def test_a_fifth_of_a_page_is_for_normal_mail() -> None:
    express, normal = lane(Lane.EXPRESS, 90), lane(Lane.NORMAL, 90)
    for limit, page in ((50, (40, 10)), (10, (8, 2)), (9, (8, 1)), (3, (2, 1)), (2, (1, 1))):
        assert counts(cut(express + normal, limit, MANY)) == page
    assert counts(cut(express + normal[:4], 50, MANY)) == (46, 4), "what is not used is the other lane's"
    assert counts(cut(express[:30] + normal, 50, MANY)) == (30, 20)
    assert counts(cut(express, 50, MANY)) == (50, 0)
    assert counts(cut(normal, 50, MANY)) == (0, 50)


def test_a_fifth_of_the_bytes_of_a_page_is_for_normal_mail() -> None:
    express, normal = lane(Lane.EXPRESS, 90), lane(Lane.NORMAL, 90)
    assert counts(cut(express + normal, 50, 200)) == (16, 4)
    assert counts(cut(express + lane(Lane.NORMAL, 9, size=39), 50, 200)) == (16, 1)
    assert counts(cut(express + lane(Lane.NORMAL, 9, size=41), 50, 200)) == (15, 1), "one message always fits"
    assert counts(cut(lane(Lane.EXPRESS, 9, size=300) + normal, 50, 200)) == (1, 1)


def test_of_pages_with_one_place_one_in_five_is_for_normal_mail() -> None:
    """Whatever clocks do: they may count in milliseconds, or give no two messages the same distance."""
    for step in (1, 5, 1000, 1_000_000):
        pages = [cut([queued(1_700_000_000_000_000 + step * n, Lane.EXPRESS), queued(7)], 1, MANY) for n in range(1000)]
        normal = sum(counts(page) == (0, 1) for page in pages)
        assert 150 < normal < 250, step
        assert all(len(page) == 1 for page in pages)


def test_what_ends_before_the_batch_does_may_pass_it_over() -> None:
    batch = [queued(3), queued(9)]
    assert not passes_over(batch, hot([queued(3)]))
    assert passes_over(batch, hot([queued(3)], more=[Lane.NORMAL])), "there may be one behind it, before 9"
    assert not passes_over(batch, hot([queued(3)], more=[Lane.EXPRESS]))
    assert not passes_over(batch, hot([queued(9)], more=[Lane.NORMAL]))
    assert passes_over(batch, hot([queued(4)]))


def test_what_is_no_longer_in_hot_has_left() -> None:
    first = hot([queued(3), queued(9)])
    assert has_left([queued(3)], first, hot([queued(9)]))
    assert not has_left([queued(9)], first, hot([queued(9)])), "what the batch does not hold may leave"
    assert not has_left([queued(1), queued(3)], first, hot([queued(3)])), "what was never in hot has not left it"


def heads_of(queue: Sequence[Queued], limit: int, max_bytes: int = MANY) -> Head:
    """What a store reads of a tier."""
    head = Head(limit, max_bytes).take(queue)
    if head.lacks_normal:
        head.begin_normal()
        head.take(one for one in queue if one.message.lane is Lane.NORMAL)
    return head


@given(
    st.lists(st.tuples(st.sampled_from(Lane), st.integers(0, 30)), max_size=30),
    st.integers(1, 14),
    st.integers(1, 200),
)
def test_a_page_is_of_the_heads_of_both_lanes(mail: list[tuple[Lane, int]], limit: int, max_bytes: int) -> None:
    """Cut from the heads that a store reads, it is as if cut from the whole queue; and it keeps the share."""
    queue = [queued(number + 1, lane, size=size) for number, (lane, size) in enumerate(mail)]
    queue.sort(key=lambda one: one.place)
    page = cut(heads_of(queue, limit, max_bytes).messages, limit, max_bytes)
    assert fits(page, limit, max_bytes)
    express, normal = counts(queue)
    taken = counts(page)
    assert page == queue[: taken[0]] + queue[express : express + taken[1]], "a head of each lane, express first"
    if limit > 1:
        assert taken[1] >= min(normal, 1)
    if max_bytes == 200:
        assert len(page) >= min(limit, len(queue), 6), "nothing that fits is left out"
    if sum(size for _, size in mail) <= max_bytes and limit > 1:
        share = max(1, limit // 5)
        assert taken == (min(express, limit - min(share, normal)), min(normal, max(share, limit - express)))


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
    hot_head, cold_head = heads_of(in_hot, limit), heads_of(in_cold, limit)
    batch = merge(
        hot(hot_head.messages, more=hot_head.more, pending=pending),
        cold(cold_head.messages, more=cold_head.more),
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
        assert batch == cut(wanted, limit, MANY)


def test_a_copy_in_cold_stands_where_it_is_to_be_written() -> None:
    """RACES 7, 10: it was put there without the online store, while the write that has its place is under way."""
    pending = [Pending("m1", Lane.NORMAL, 10)]
    batch = merge(hot(pending=pending), cold([queued(11, id_="m2"), queued(90, id_="m1")]), set(), 50, MANY)
    assert [(message.message.id, message.sequence) for message in batch] == [("m1", 10), ("m2", 11)]
