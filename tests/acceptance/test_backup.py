"""A backup of a router at work, restored on another machine: another directory, with its own keys."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from router.cli.exits import Code
from router.client import Received, RouterClient
from tests.acceptance.test_serve import sealed
from tests.support.service import Router

pytestmark = pytest.mark.anyio
UNLIMITED = {f"ROUTER_LIMITS__{name}": "0" for name in ("SEND_RATE", "PAIR_RATE", "OUTBOUND_BYTES", "WORK_RATE")}
WAITS, READS, SLOW = "bob", "carol", "dave"
"""Who fetches nothing, who fetches and acknowledges all the time, and who fetches and does not acknowledge."""
EVENT_SECONDS = 60.0


class Load:
    """Sends to three users, one message after another to each, and reads for two of them."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.accepted: defaultdict[str, list[str]] = defaultdict(list)
        self.acknowledged: set[str] = set()
        self.asked: set[str] = set()
        """Ids that are acknowledged, or may be."""
        self.more = asyncio.Condition()

    async def send(self, user: str) -> None:
        token = self.router.token("alice")
        async with RouterClient(self.router.url, lambda: token) as client:
            while True:
                self.accepted[user].append(await client.send(sealed(user, len(self.accepted[user]))))
                async with self.more:
                    self.more.notify_all()

    async def read(self, user: str, *, acknowledges: bool) -> None:
        token = self.router.token(user)
        async with RouterClient(self.router.url, lambda: token) as client:
            while True:
                ids = [received.id for received in await client.fetch(5)]
                if acknowledges and ids:
                    self.asked |= set(ids)
                    await client.acknowledge(ids)
                    self.acknowledged |= set(ids)

    async def until(self, count: int) -> None:
        """Return when each user has got ``count`` messages, and some of them are acknowledged."""
        async with asyncio.timeout(EVENT_SECONDS), self.more:
            await self.more.wait_for(
                lambda: all(len(self.accepted[user]) >= count for user in (WAITS, READS, SLOW)) and self.acknowledged
            )


async def delivered(router: Router, user: str) -> list[str]:
    """What a client of ``user`` gets, in order."""
    found: list[str] = []
    token = router.token(user)

    async def save(batch: Sequence[Received]) -> None:
        found.extend(received.id for received in batch)

    async with RouterClient(router.url, lambda: token) as client:
        await client.drain(save)
    return found


async def test_a_backup_under_load_has_all_that_was_accepted_and_not_acknowledged(tmp_path: Path) -> None:
    source, target = Router(tmp_path / "data", UNLIMITED), Router(tmp_path / "other" / "data", UNLIMITED)
    file = tmp_path / "router.backup"
    with source.running():
        load = Load(source)
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(asyncio.TaskGroup())
            work = [load.send(WAITS), load.send(READS), load.send(SLOW)]
            work += [load.read(READS, acknowledges=True), load.read(SLOW, acknowledges=False)]
            tasks = [group.create_task(one) for one in work]
            await load.until(30)
            before = {user: list(ids) for user, ids in load.accepted.items()}
            acknowledged_before = set(load.acknowledged)
            made = json.loads(await asyncio.to_thread(source.cli, "backup", str(file), "--json"))
            perhaps = set(load.asked)
            await load.until(len(load.accepted[WAITS]) + 5)  # it went on meanwhile, and goes on
            for task in tasks:
                task.cancel()
        refused = source.command("restore", str(file), "--overwrite")
        assert (refused.returncode, b"a router uses" in refused.stderr) == (Code.CONFIG, True)
    restored = json.loads(target.cli("restore", str(file), "--json"))
    assert {name: restored[name] for name in ("hot", "cold", "made_at")} == {
        name: made[name] for name in ("hot", "cold", "made_at")
    }
    with target.running():
        for user, sent in before.items():
            got = await delivered(target, user)
            expected = [id_ for id_ in load.accepted[user] if id_ in set(got)]
            assert [id_ for id_ in got if id_ in set(expected)] == expected, "in order"
            owed = [id_ for id_ in sent if id_ not in perhaps]
            assert set(owed) <= set(got), f"{user} lacks mail that was accepted before the backup"
            assert not acknowledged_before & set(got), "what was acknowledged before does not come again"


async def test_what_was_acknowledged_since_the_backup_comes_again_and_what_came_since_is_lost(tmp_path: Path) -> None:
    router, file = Router(tmp_path / "data", UNLIMITED), tmp_path / "router.backup"
    with router.running():
        first = router.cli("send", "--as", "alice", "--to", "bob", "--data", "1").strip()
        router.cli("backup", str(file))
        assert await delivered(router, "bob") == [first]
        lost = router.cli("send", "--as", "alice", "--to", "bob", "--data", "2").strip()
    told = router.cli("restore", str(file), "--overwrite")
    assert "acknowledged since then is delivered again" in told
    with router.running():
        later = router.cli("send", "--as", "alice", "--to", "bob", "--data", "3").strip()
        got = await delivered(router, "bob")
    assert got == [first, later]
    assert lost not in got
