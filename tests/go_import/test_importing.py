"""Importing what go-routing-service left, from a real Firestore and a real Redis into each kind of router."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from router.errors import Unavailable
from router.go_import import importer
from router.go_import.firestore import GoFirestore
from tests.contract.stage import Stage
from tests.go_import.conftest import Old, Open
from tests.support.pipelines import eventually, running

pytestmark = pytest.mark.anyio
BOB, EVE = "urn:sm:user:bob", "urn:sm:user:eve"


async def mail(stage: Stage, count: int, user: str = BOB) -> list[str]:
    """The ids that wait for ``user``, once ``count`` messages do."""

    async def arrived() -> bool:
        return len(await stage.ids(user)) >= count

    if stage.factory.config.ingress.kind == "pubsub":
        async with running(stage):
            await eventually(stage, arrived)
    return await stage.ids(user)


async def leave_some_everywhere(old: Old) -> list[str]:
    """Mail of bob in all places of the old service; returns the ids in the order in which he is to get them."""
    left = old.left
    await left.document("cold-queue", BOB, "c1", 1)
    await left.document("cold-queue", BOB, "c5", 5)
    await left.document("hot-queue-pending", BOB, "f2", 2)
    await left.document("hot-queue-main", BOB, "f6", 6)
    await left.document("hot-queue-main_high", BOB, "x3", 3, priority=5)
    await left.pushed(f"queue:{BOB}", BOB, "r4", 4)
    await left.pushed(f"queue:{BOB}", BOB, "r7", 7)
    await left.pushed(f"queue:{BOB}:high", BOB, "x8", 8, priority=9)
    await left.fetched(BOB)
    await left.fetched(BOB)
    assert await left._redis.lrange(f"pending:{BOB}", 0, -1), "two were fetched: x8 and r4"
    return ["x3", "x8", "c1", "f2", "r4", "c5", "f6", "r7"]


async def test_mail_is_imported_in_its_order_and_under_its_ids(old: Old, new: Open) -> None:
    expected = await leave_some_everywhere(old)
    await old.left.documents(EVE, ["e1", "e2"])
    before = await old.left.everything()
    async with new() as stage:
        done = await old.run(stage)
        assert (done.users, done.imported, done.before, done.problems, done.held) == (2, 10, 0, [], [])
        assert await mail(stage, 8) == expected
        assert await mail(stage, 2, EVE) == ["e1", "e2"]
        (first, *_) = await stage.queue.fetch(EVE, 1)
        assert json.loads(first.message.envelope) == {
            "recipientId": EVE, "encryptedData": "c2VhbGVk", "encryptedSymmetricKey": "a2V5",
        }  # fmt: skip
    assert await old.left.everything() == before, "the old stores are left as they were"


async def test_a_second_run_imports_nothing_twice(old: Old, new: Open) -> None:
    expected = await leave_some_everywhere(old)
    async with new() as stage:
        await old.run(stage)
        assert await mail(stage, 8) == expected
        done = await old.run(stage)
        assert (done.users, done.imported, done.before) == (0, 0, 8)
        await stage.queue.acknowledge(BOB, expected)
        stage.clock.advance(3 * 86_400)  # beyond what the router remembers of ids
        done = await old.run(stage)
        assert (done.users, done.imported, done.before) == (0, 0, 8)
        assert await stage.ids() == []


async def test_what_comes_later_is_imported_by_a_later_run(old: Old, new: Open) -> None:
    await old.left.documents(BOB, ["m0"])
    async with new() as stage:
        await old.run(stage)
        await old.left.document("cold-queue", BOB, "m1", 9)
        done = await old.run(stage)
        assert (done.users, done.imported, done.before) == (1, 1, 1)
        assert await mail(stage, 2) == ["m0", "m1"]


async def test_a_run_that_breaks_off_leaves_no_second_copy(
    old: Old, new: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a part is published and before its ids are noted. Bob acknowledges a message before the next run."""
    monkeypatch.setattr(importer, "PART", 2)
    await old.left.documents(BOB, ["m0", "m1", "m2", "m3"])
    async with new() as stage:
        with monkeypatch.context() as patch:

            async def lost(*_: object) -> None:
                raise Unavailable("the network is gone")

            patch.setattr(GoFirestore, "note", lost)
            with pytest.raises(Unavailable):
                await old.run(stage)
        assert await mail(stage, 2) == ["m0", "m1"]
        await stage.queue.acknowledge(BOB, ["m0"])
        done = await old.run(stage)
        assert done.imported == 4, "it cannot know what became of the first two"
        assert await mail(stage, 3) == ["m1", "m2", "m3"]


async def test_two_runs_at_once_leave_no_second_copy(old: Old, new: Open) -> None:
    ids = [f"m{number:02}" for number in range(70)]
    await old.left.documents(BOB, ids)
    async with new() as stage:
        await asyncio.gather(old.run(stage), old.run(stage))
        assert await mail(stage, 70) == ids


async def test_a_dry_run_reads_all_and_writes_nothing(old: Old, new: Open) -> None:
    await leave_some_everywhere(old)
    await old.left.bare(BOB, "broken")
    before = await old.left.everything()
    async with new() as stage:
        done = await old.run(stage, dry_run=True)
        assert (done.users, done.imported, len(done.problems)) == (1, 8, 1)
        assert await stage.ids() == []
        assert await old.firestore.imported(BOB) == set()
        assert (await old.run(stage)).imported == 8
    assert await old.left.everything() == before


async def test_a_message_in_both_queues_is_one(old: Old, new: Open) -> None:
    """A migration of the old service broke off between its write to cold and its removal from hot."""
    await old.left.pushed(f"queue:{BOB}", BOB, "m1", 1)
    await old.left.document("cold-queue", BOB, "m2", 2)
    await old.left.document("cold-queue", BOB, "m1", 3)
    async with new() as stage:
        assert (await old.run(stage)).imported == 2
        assert await mail(stage, 2) == ["m1", "m2"]
        assert (await old.run(stage)).before == 2


async def test_ephemeral_mail_is_left_out(old: Old, new: Open) -> None:
    await old.left.document("hot-queue-main", BOB, "typing", 1, ephemeral=True)
    await old.left.pushed(f"queue:{BOB}", BOB, "typing2", 2, isEphemeral=True)
    await old.left.document("hot-queue-main", BOB, "text", 3)
    async with new() as stage:
        done = await old.run(stage)
        assert (done.imported, done.ephemeral) == (1, 2)
        assert await mail(stage, 1) == ["text"]


async def test_what_cannot_be_imported_is_named_and_holds_nobody_up(old: Old, new: Open) -> None:
    left = old.left
    await left.bare(BOB, "bare")
    path = await left.document("cold-queue", BOB, "large", 1, data=b"x" * 2000)
    await left.document("cold-queue", BOB, "strangers", 2, recipient=EVE)
    await left.document("cold-queue", BOB, "good", 3)
    await left._redis.lpush(f"queue:{BOB}", "no JSON")
    async with new(envelope_bytes=1000) as stage:
        done = await old.run(stage)
        assert done.imported == 1
        assert await mail(stage, 1) == ["good"]
    found = {problem.place.rpartition("/")[2]: problem.why for problem in done.problems}
    assert set(found) == {"bare", "large", "strangers", f"queue:{BOB}"}
    assert path in {problem.place for problem in done.problems}
    assert "2003 bytes" in found["large"]


async def test_mail_beyond_the_limits_waits_for_another_run(old: Old, new: Open) -> None:
    """Or it would become dead letters, and those behind it would overtake it."""
    await old.left.documents(BOB, [f"m{number}" for number in range(5)])
    async with new(queue_messages=3) as stage:
        done = await old.run(stage)
        assert (done.imported, done.held) == (3, [BOB])
        assert await mail(stage, 3) == ["m0", "m1", "m2"]
        await stage.queue.acknowledge(BOB, ["m0", "m1", "m2"])
        done = await old.run(stage)
        assert (done.imported, done.before, done.held) == (2, 3, [])
        assert await mail(stage, 2) == ["m3", "m4"]
        assert await stage.letters() == []


async def test_delete_removes_what_is_imported_and_nothing_else(old: Old, new: Open) -> None:
    await leave_some_everywhere(old)
    await old.left.document("hot-queue-main", BOB, "typing", 1, ephemeral=True)
    async with new() as stage:
        await old.run(stage)
        await old.left.document("cold-queue", BOB, "late", 20)
        await old.left.pushed(f"queue:{BOB}", BOB, "later", 21)
        assert await old.delete(stage) == 9
        kept = json.dumps(await old.left.everything(), default=bytes.decode)
        assert ("late" in kept, "later" in kept, "c1" in kept, "r4" in kept) == (True, True, False, False)
        assert await old.firestore.imported(BOB) == set(), "and the notes"
        assert (await old.run(stage)).imported == 2
        assert (await mail(stage, 10))[-2:] == ["late", "later"]
        assert await old.delete(stage) == 2
    assert await old.left.everything() == []


async def test_a_list_that_changes_while_it_is_deleted_is_left(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    """What go-routing-service, still running, has just added would be lost with it."""
    await old.left.pushed(f"queue:{BOB}", BOB, "m1", 1)
    lrange: Any = Redis.lrange

    async def and_another_comes(self: Redis, key: str, *bounds: int) -> object:
        values = await lrange(self, key, *bounds)
        if key == f"queue:{BOB}":
            await old.left.pushed(key, BOB, "m2", 2)
        return values

    with monkeypatch.context() as patch:
        patch.setattr("redis.asyncio.client.Pipeline.lrange", and_another_comes)
        with pytest.raises(Unavailable, match="still running"):
            await old.redis.delete(BOB, {"m1"})
    places, _ = await old.redis.places(BOB)
    assert [each.id for place in places for each in place] == ["m1", "m2"]


async def test_more_than_a_page_of_each_is_found(old: Old, new: Open) -> None:
    ids = [f"m{number:03}" for number in range(320)]
    await old.left.documents(BOB, ids)
    users = [f"urn:sm:user:{uuid4()}" for _ in range(310)]
    for user in users:
        await old.left.pushed(f"queue:{user}", user, "one", 1)
    async with new() as stage:
        done = await old.run(stage)
        assert (done.users, done.imported) == (311, 630)
        assert await mail(stage, 320) == ids
        assert await mail(stage, 1, users[0]) == ["one"]
        assert await old.delete(stage) == 630
