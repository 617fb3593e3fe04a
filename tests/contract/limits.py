"""Who asks for a part gets no more than that, and parts on end are the whole. Part of ``QueueContract``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest
from msgspec.structs import replace

from router.clock import MICROSECONDS
from router.messages import Connection, Lane, Move, Outcome, Queued, Settled
from tests.contract.stage import BOB, PAGE_BYTES, Stage, names

T = TypeVar("T")
LIMIT = 3
USERS = [f"urn:sm:user:u{number}" for number in range(10)]
"""Many more than a part, and spread over whatever a store keeps apart."""
IDS = [f"m{number}" for number in range(10)]


async def parts(
    find: Callable[[int], Awaitable[Sequence[T]]], finish: Callable[[Sequence[T]], Awaitable[object]]
) -> list[T]:
    """All that ``find`` returns, by parts, until it finds nothing; ``finish`` takes each from what is found."""
    whole: list[T] = []
    while part := await find(LIMIT):
        assert len(part) <= LIMIT
        assert len(whole) < 2 * len(USERS), "what is finished is found again"
        whole += part
        await finish(part)
    return whole


async def nothing(_: Sequence[object]) -> None: ...


def by_user(whole: Sequence[Queued]) -> list[tuple[str, str]]:
    return sorted((queued.message.recipient, queued.message.id) for queued in whole)


async def mail(stage: Stage, among: str) -> list[tuple[str, str]]:
    """Messages that wait for one user, or one for each of many: (user, id)."""
    sent = [(BOB, id_) for id_ in IDS] if among == "one" else [(user, f"to {user}") for user in USERS]
    for user, id_ in sent:
        await stage.go(id_, user)
    return sorted(sent)


class LimitContract:
    """Every call with a ``limit``, but for those that read a page (``LaneContract``)."""

    async def test_no_more_users_go_offline_than_are_asked_for(self, stage: Stage) -> None:
        """Also those whose leases are of a clock that was a year ahead."""
        await stage.online.expire(LIMIT)
        for user in USERS:
            await stage.connect(user)
        stage.clock.advance(stage.factory.config.online.lease_seconds + 1)
        assert sorted(await parts(stage.online.expire, nothing)) == USERS
        assert (await stage.online.online()).messages == 0

    async def test_leases_of_a_clock_that_was_ahead_end_by_parts(self, stage: Stage) -> None:
        year, lease = 365 * 86_400, stage.factory.config.online.lease_seconds
        stage.clock.time += year * MICROSECONDS
        for user in USERS:
            await stage.connect(user)
        stage.clock.time -= year * MICROSECONDS
        for _ in range(len(USERS)):
            assert await stage.online.expire(LIMIT) == []
            stage.clock.advance(1)
        stage.clock.advance(2 * lease)
        assert sorted(await parts(stage.online.expire, nothing)) == USERS

    @pytest.mark.parametrize("among", ["one", "many"])
    async def test_no_more_orphans_than_are_asked_for(self, stage: Stage, among: str) -> None:
        sent = await mail(stage, among)
        for user, id_ in sent:
            assert await stage.online.ack(user, [id_]) == [id_]
        stage.clock.advance(61)

        async def delete(orphans: Sequence[tuple[str, str]]) -> None:
            for user, id_ in orphans:
                await stage.cold.delete(user, [id_])
                await stage.online.forget_orphans(user, [id_])

        assert sorted(await parts(stage.online.orphans, delete)) == sent

    @pytest.mark.parametrize("among", ["one", "many"])
    async def test_no_more_mail_is_past_its_retention_than_is_asked_for(self, stage: Stage, among: str) -> None:
        sent, now = await mail(stage, among), stage.clock.now()
        stage.clock.advance(61)

        async def expired(limit: int) -> list[Queued]:
            return await stage.cold.expired(now, limit)

        assert by_user(await parts(expired, stage.cold.expire)) == sent
        assert (await stage.cold.totals(None)).messages == 0

    @pytest.mark.parametrize("among", ["one", "many"])
    async def test_no_more_unreported_mail_than_is_asked_for(self, stage: Stage, among: str) -> None:
        now = stage.clock.now()
        sent = [(BOB, id_) for id_ in IDS] if among == "one" else [(user, f"to {user}") for user in USERS]
        left = [Queued(stage.message(id_, user), now + n, now, unreported=True) for n, (user, id_) in enumerate(sent)]
        assert await stage.cold.put(left) == []

        async def unreported(limit: int) -> list[Queued]:
            return await stage.cold.unreported(now, limit)

        async def tell(found: Sequence[Queued]) -> None:
            assert await stage.online.settle(found) == Settled([], [])
            await stage.cold.update_places([replace(queued, unreported=False) for queued in found])

        assert by_user(await parts(unreported, tell)) == sorted(sent)

    async def test_no_more_is_to_be_announced_than_is_asked_for(self, stage: Stage) -> None:
        await stage.connect()
        await mail(stage, "one")
        now = stage.clock.now()

        async def unannounced(limit: int) -> list[Queued]:
            return await stage.online.unannounced(BOB, now, limit)

        assert names(await parts(unannounced, stage.online.mark_announced)) == IDS

    async def test_a_move_takes_no_more_than_is_asked_for(self, stage: Stage) -> None:
        await stage.connect()
        await mail(stage, "one")
        move = await stage.online.begin_move(BOB, "mover", LIMIT, PAGE_BYTES, online_too=True)
        assert isinstance(move, Move)
        assert (names(move.messages), move.more) == (IDS[:LIMIT], True)

    async def test_no_more_of_a_queue_is_shown_than_is_asked_for(self, stage: Stage) -> None:
        await stage.connect()
        for lane in Lane:
            for number in range(LIMIT + 2):
                await stage.go(f"{lane.name} {number}", lane=lane)
        shown = names(await stage.online.inspect(BOB, LIMIT))
        assert shown == [f"{Lane.EXPRESS.name} {number}" for number in range(LIMIT)]

    async def test_the_oldest_queues_are_as_many_as_are_asked_for(self, stage: Stage) -> None:
        for user in USERS:
            assert await stage.go(f"to {user}", user) is Outcome.COLD
            stage.clock.advance(1)
        assert [user for user, _ in await stage.cold.oldest(LIMIT)] == USERS[:LIMIT]

    async def test_the_longest_queues_are_as_many_as_are_asked_for(self, stage: Stage) -> None:
        for number, user in enumerate(USERS):
            for each in range(1 + number % 3):
                await stage.go(f"m{number}-{each}", user)
        found = await stage.cold.longest(LIMIT)
        assert len(found) == LIMIT
        lengths = sorted((1 + number % 3 for number in range(len(USERS))), reverse=True)
        assert [totals.messages for _, totals in found] == lengths[:LIMIT]
        for user, totals in found:
            assert totals == await stage.cold.totals(user)

    async def test_what_is_past_its_time_goes_by_steps_of_any_size(self, stage: Stage) -> None:
        """Ephemeral mail, and what is remembered of other mail."""
        for user in USERS:
            await stage.online.connect(Connection(user, "phone", "node", 0), 20)
            await stage.go("typing", user, ephemeral=True)
            await stage.go("gone", user)
            await stage.queue.acknowledge(user, ["gone"])
        stage.clock.advance(2 * stage.factory.config.online.tombstone_seconds)
        dropped = 0
        for _ in USERS:
            dropped += await stage.online.purge(LIMIT, stage.clock.now())
        assert dropped == len(USERS)
        assert (await stage.online.totals(None)).messages == 0
        assert {await stage.go("gone", user) for user in USERS} == {Outcome.COLD}, "their tombstones are forgotten"
