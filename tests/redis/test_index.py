"""The indexes over all users: whoever must be found is found, whatever happens at the same moment."""

from __future__ import annotations

import random
from typing import Any

import pytest

from router.backends.redis.index import CLAIM_SECONDS, Index, evenly
from router.backends.redis.keys import SHARDS, Keys, shard_of
from router.backends.redis.maintenance import RedisMaintenance
from router.backends.redis.online import RedisOnlineStore
from router.backends.redis.scripts import Scripts
from router.messages import Outcome
from tests.contract.stage import BOB, Stage

pytestmark = pytest.mark.anyio
USERS = [f"urn:sm:user:u{number}" for number in range(1000)]


@pytest.fixture
async def online(stage: Stage) -> RedisOnlineStore:
    assert isinstance(stage.online, RedisOnlineStore)
    return stage.online


@pytest.fixture
async def index(online: RedisOnlineStore) -> Index:
    return Index("tested", online.state.client, Keys(f"test-{random.getrandbits(64):x}"), Scripts())


async def listed(index: Index, numbers: dict[str, int]) -> None:
    await index._client.run(index.listing(numbers))


async def walked(index: Index, after: str = "", limit: int = 7) -> list[str]:
    return [user async for page in index.pages(after, limit) for user, _ in page]


async def test_a_walk_meets_each_user_once_and_can_be_resumed(index: Index) -> None:
    await listed(index, dict.fromkeys(USERS, 5))
    pages = [[user for user, _ in page] async for page in index.pages("", 50)]
    everyone = [user for page in pages for user in page]
    assert sorted(everyone) == sorted(USERS)
    assert {len(page) for page in pages} == {50}
    for place in (0, 49, 500, 998):
        assert await walked(index, after=everyone[place]) == everyone[place + 1 :]
    assert await walked(index, after=everyone[-1]) == []


async def test_a_walk_past_somebody_who_is_gone(index: Index) -> None:
    await listed(index, dict.fromkeys(USERS[:100], 5))
    everyone = await walked(index)
    await index._client.run(index.relisting([((everyone[40], 5), None)]))
    assert await walked(index, after=everyone[40]) == everyone[41:]


async def test_users_are_spread(index: Index) -> None:
    shards = [shard_of(user) for user in USERS]
    assert set(shards) == set(range(SHARDS))
    assert max(shards.count(shard) for shard in set(shards)) < 40


async def test_who_was_listed_anew_is_not_taken_out(index: Index) -> None:
    await listed(index, {"ann": 1, "bob": 1})
    await listed(index, {"bob": 2})
    await index._client.run(index.relisting([(("ann", 1), None), (("bob", 1), None), (("bob", 1), 99)]))
    assert [seen async for page in index.pages("", 9) for seen in page] == [("bob", 2)]


async def test_what_is_due_is_claimed_by_one_and_returns_if_that_one_dies(index: Index) -> None:
    await listed(index, {"early": 10, "late": 30})
    assert [user for user, _ in await index.claim(20, 100)] == ["early"]
    assert await index.claim(20, 100) == []
    ((again, _), _) = await index.claim(20 + CLAIM_SECONDS * 1_000_000, 100)
    assert again == "early"


@pytest.mark.parametrize(
    ("counts", "limit", "parts"),
    [
        ([0, 5, 1], 9, [0, 5, 1]),
        ([0, 5, 1], 4, [0, 3, 1]),
        ([9, 9, 9], 6, [2, 2, 2]),
        ([9, 9, 9], 2, [0, 1, 1]),
        ([9, 0, 0], 200, [9, 0, 0]),
        ([900, 0, 2], 200, [198, 0, 2]),
        ([9, 9], 0, [0, 0]),
    ],
)
def test_a_part_is_taken_evenly(counts: list[int], limit: int, parts: list[int]) -> None:
    assert evenly(counts, limit) == parts


async def test_a_look_that_is_due_is_not_put_off(index: Index) -> None:
    """By whoever needs one later: else somebody who is always busy would never be looked at."""
    await listed(index, {"ann": 10})
    await index._client.run(index.listing({"ann": 50}, "if-less"))
    assert await index.due(20, 100) == ["ann"]


async def test_a_listing_with_less_holds_against_a_claim(index: Index) -> None:
    await listed(index, {"ann": 10})
    claimed = await index.claim(20, 100)
    await index._client.run(index.listing({"ann": 50}, "if-less"))
    await index._client.run(index.relisting([(seen, None) for seen in claimed]))
    assert await index.due(50, 100) == ["ann"]


async def test_mail_that_comes_while_a_sweeper_looks_is_not_forgotten(
    stage: Stage, online: RedisOnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper finds nothing, mail comes, and only then the sweeper takes the user off its list."""
    await stage.connect()
    await stage.go("m1")
    await stage.queue.acknowledge(BOB, await stage.ids())
    assert isinstance(online.maintenance, RedisMaintenance)
    retire = online.maintenance._retire

    async def mail_first(idle: Any) -> None:
        assert await stage.go("m2") is Outcome.HOT
        await retire(idle)

    monkeypatch.setattr(online.maintenance, "_retire", mail_first)
    assert await online.hot_users("", 10) == []
    monkeypatch.setattr(online.maintenance, "_retire", retire)
    assert [user.user for user in await online.hot_users("", 10)] == [BOB]


async def test_a_registration_while_a_sweeper_expires_is_not_forgotten(
    stage: Stage, online: RedisOnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old lease is removed, the user connects anew, and only then the sweeper puts its list right."""
    await stage.connect(name="old")
    stage.clock.advance(61)
    relisting = online.state.live.relisting

    async def expire() -> None:
        run = online.state.client.run

        async def connect_first(*phases: Any, **how: Any) -> list[Any]:
            if len(phases) == 2:  # the lists, which come last
                monkeypatch.setattr(online.state.client, "run", run)
                await stage.connect(name="new")
            return await run(*phases, **how)

        monkeypatch.setattr(online.state.client, "run", connect_first)
        assert await online.expire(10) == [BOB]

    assert relisting is not None
    await expire()
    stage.clock.advance(61)
    assert await online.expire(10) == [BOB], "the new lease ran out, and somebody noticed"


async def test_users_whose_last_call_failed_midway_are_found_by_its_repetition(
    stage: Stage, online: RedisOnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline dies between the script and the list: the ingress delivers again, and that lists the user."""
    await stage.connect()
    assert await stage.ids() == []
    assert await online.hot_users("", 10) == [], "the poke of the connection is answered"
    message = stage.message("m1")
    with monkeypatch.context() as patch:
        patch.setattr(online.state, "list_busy", lambda _: [])
        await stage.route(message)
    assert await online.hot_users("", 10) == []
    (again,) = await stage.route(message, attempt=2)
    assert again.outcome is Outcome.DUPLICATE
    assert [user.user for user in await online.hot_users("", 10)] == [BOB]


async def test_a_heartbeat_lists_whom_the_index_has_lost(stage: Stage, online: RedisOnlineStore) -> None:
    phone = await stage.connect()
    await stage.go("m1")
    await online.state.client.run([("DEL", key) for key in online.state.busy._keys])
    assert await online.hot_users("", 10) == []
    assert await online.renew([phone]) == []
    assert [user.user for user in await online.hot_users("", 10)] == [BOB]


async def test_an_idle_system_is_cheap_to_sweep(stage: Stage, online: RedisOnlineStore, monkeypatch: Any) -> None:
    """A thousand users who are online and have read everything cost a sweep nothing each."""
    for user in USERS[:200]:
        await stage.connect(user)
        await stage.go(f"m-{user}", user)
        await stage.queue.acknowledge(user, await stage.ids(user))
    while await online.hot_users("", 100):
        pass
    calls = 0
    run = online.state.client.run

    async def counted(*phases: Any, **how: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        assert all(len(phase) <= SHARDS for phase in phases)
        return await run(*phases, **how)

    monkeypatch.setattr(online.state.client, "run", counted)
    await stage.sweeper.sweep()
    assert calls <= 10
