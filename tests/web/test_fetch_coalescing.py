"""Fetches of one user that come while others are under way."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from router.errors import Unavailable
from router.web.fetch_coalescing import FETCHES_AT_ONCE, FetchCoalescer, SharedFetch

pytestmark = pytest.mark.anyio


class Pages:
    """Fetches that end when they are told to; the body is the user, the limit, and which fetch of all it is."""

    def __init__(self) -> None:
        self.fetches: FetchCoalescer[bytes] = FetchCoalescer(self._fetch)
        self.begun: list[tuple[str, int]] = []
        self.ends: list[asyncio.Future[None]] = []
        self.keeps = False
        """Whether those who ask leave their fetches later."""
        self.kept: list[SharedFetch[bytes]] = []

    async def _fetch(self, user: str, limit: int) -> bytes:
        self.begun.append((user, limit))
        number = len(self.begun)
        end = asyncio.get_running_loop().create_future()
        self.ends.append(end)
        await end
        return f"{user} {limit} {number}".encode()

    async def ask(self, *requests: tuple[str, int]) -> list[asyncio.Task[bytes]]:
        asked = [asyncio.create_task(self._joined(user, limit)) for user, limit in requests]
        await turn()
        return asked

    async def _joined(self, user: str, limit: int) -> bytes:
        joined = await self.fetches.join(user, limit)
        if self.keeps:
            self.kept.append(joined)
        else:
            joined.leave()
        return joined.page


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_meanwhile_shares_what_begins_afterwards() -> None:
    pages = Pages()
    first = await pages.ask(*[("bob", 50)] * FETCHES_AT_ONCE)
    later = await pages.ask(("bob", 50), ("bob", 3), ("bob", 50), ("eve", 50))
    assert pages.begun == [("bob", 50)] * FETCHES_AT_ONCE + [("eve", 50)]
    pages.ends[0].set_result(None)
    await turn()
    assert pages.begun[3:] == [("bob", 50)], "one for all who ask for the same"
    latest = await pages.ask(("bob", 50))
    for _ in range(3):
        for end in pages.ends:
            if not end.done():
                end.set_result(None)
        await turn()
    assert [task.result() for task in first] == [b"bob 50 1", b"bob 50 2"]
    assert [task.result() for task in later] == [b"bob 50 4", b"bob 3 5", b"bob 50 4", b"eve 50 3"]
    assert [task.result() for task in latest] == [b"bob 50 6"], "what began before it came may lack its mail"


async def test_a_page_that_is_not_answered_keeps_its_turn() -> None:
    """Else hundreds of pages of one user wait in memory to be sent, each of megabytes."""
    pages = Pages()
    pages.keeps = True
    await pages.ask(*[("bob", 50)] * FETCHES_AT_ONCE)
    shared = await pages.ask(("bob", 50), ("bob", 50))
    for end in pages.ends:
        end.set_result(None)
    await turn()
    assert len(pages.begun) == FETCHES_AT_ONCE
    pages.kept[0].leave()
    await turn()
    pages.ends[-1].set_result(None)
    await turn()
    assert [task.result() for task in shared] == [b"bob 50 3"] * 2
    await pages.ask(("bob", 50))
    for number, joined in enumerate(pages.kept[2:]):
        assert len(pages.begun) == FETCHES_AT_ONCE + 1, "one has left the page, another one has it still"
        joined.leave()
        assert len(pages.begun) == FETCHES_AT_ONCE + 1, number
        await turn()
    assert len(pages.begun) == FETCHES_AT_ONCE + 2
    pages.ends[-1].set_result(None)
    await turn()
    for joined in (pages.kept[1], pages.kept[-1]):
        joined.leave()
    await turn()
    assert nothing_is_kept(pages)


async def test_a_failure_is_everybodys_and_the_next_one_has_its_turn() -> None:
    pages = Pages()
    await pages.ask(*[("bob", 50)] * FETCHES_AT_ONCE)
    shared = await pages.ask(("bob", 50), ("bob", 50), ("bob", 3))
    pages.ends[0].set_result(None)
    await turn()
    pages.ends[2].set_exception(Unavailable("simulated"))
    await turn()
    assert [type(task.exception()) for task in shared[:2]] == [Unavailable, Unavailable]
    pages.ends[3].set_result(None)
    await turn()
    assert shared[2].result() == b"bob 3 4"


async def test_whoever_gives_up_takes_nothing_from_the_others() -> None:
    pages = Pages()
    first = await pages.ask(*[("bob", 50)] * FETCHES_AT_ONCE)
    gone, stays = await pages.ask(("bob", 50), ("bob", 50))
    gone.cancel()
    for task in first:
        task.cancel()
    await turn()
    pages.ends[2].set_result(None)
    await turn()
    assert stays.result() == b"bob 50 3"
    assert nothing_is_kept(pages)


def nothing_is_kept(pages: Pages) -> bool:
    """Nothing is kept of users whose fetches have ended."""
    return not (pages.fetches._going or pages.fetches._waiting or pages.fetches._serving)


async def test_what_several_share_belongs_to_the_request_of_none() -> None:
    """What is logged and traced in it would name the one that happened to be before it."""
    request = ContextVar("request", default="none")
    pages, seen = Pages(), list[str]()
    fetch = pages._fetch

    async def seeing(user: str, limit: int) -> bytes:
        seen.append(request.get())
        return await fetch(user, limit)

    pages.fetches = FetchCoalescer(seeing)
    for number in range(FETCHES_AT_ONCE + 2):
        request.set(f"r{number}")
        await pages.ask(("bob", 50))
    request.set("another")
    pages.ends[0].set_result(None)
    await turn()
    assert seen == [*(f"r{number}" for number in range(FETCHES_AT_ONCE)), "none"]
    for end in pages.ends[1:]:
        end.set_result(None)
    await turn()
