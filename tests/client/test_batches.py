"""Several messages in few requests: what a client does with the outcome of each."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from router.client import Outcome, Refused, RouterClient, Unreachable
from router.client.client import BATCH_BYTES, BATCH_MESSAGES
from router.errors import InvalidIdempotencyKey
from tests.support.clock import ManualClock

pytestmark = pytest.mark.anyio


class Clock(ManualClock):
    """Whoever sleeps lets time pass."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


class Router(httpx.AsyncBaseTransport):
    """Answers each message as it is told, or with its key as the id."""

    def __init__(self, *, batches: bool = True) -> None:
        self.batches = batches
        self.requests: list[list[str]] = []
        """What each request carried, by name."""
        self.accepted: list[str] = []
        self.refusals: dict[str, list[int]] = {}
        """By name, with which statuses a message is refused before it is accepted."""
        self.whole: list[int] = []
        """With which statuses the next requests are refused."""
        self.retry_after: str | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        if request.url.path == "/api/send/batch":
            if not self.batches:
                return httpx.Response(404, json={"detail": "not served here"})
            sends = [(one["envelope"], one["idempotencyKey"]) for one in json.loads(body)["messages"]]
        else:
            try:
                sends = [(json.loads(body), request.headers["idempotency-key"])]
            except ValueError:
                return httpx.Response(400, json={"detail": "no JSON"})
        self.requests.append([envelope["name"] for envelope, _ in sends])
        if self.whole:
            return httpx.Response(self.whole.pop(0), json={"detail": "not now"})
        results = [self._result(envelope["name"], key) for envelope, key in sends]
        headers = {"retry-after": self.retry_after} if self.retry_after else {}
        if request.url.path == "/api/send/batch":
            return httpx.Response(202, json={"results": results}, headers=headers)
        problem = results[0].get("error")
        return httpx.Response(problem["status"] if problem else 202, json=problem or results[0], headers=headers)

    def _result(self, name: str, key: str) -> dict[str, Any]:
        if self.refusals.get(name):
            return {"error": {"type": "x", "title": "x", "status": self.refusals[name].pop(0), "detail": f"no {name}"}}
        self.accepted.append(name)
        return {"id": key}


def named(names: str) -> list[bytes]:
    return [json.dumps({"name": name}).encode() for name in names]


def shown(outcomes: Sequence[Outcome]) -> list[str]:
    return [one if isinstance(one, str) else str(one) for one in outcomes]


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(router: Router, clock: Clock) -> Callable[[], RouterClient]:
    return lambda: RouterClient(
        "http://router", lambda: "token", budget_seconds=20, clock=clock, chance=random.Random(1), transport=router
    )


async def test_one_request_and_an_id_for_each(router: Router, client: Callable[[], RouterClient]) -> None:
    async with client() as c:
        assert await c.send_batch(named("abc"), ["k1", "k2", "k3"]) == ["k1", "k2", "k3"]
        assert len(set(shown(await c.send_batch(named("de"))))) == 2
        assert await c.send_batch([]) == []
    assert router.requests == [["a", "b", "c"], ["d", "e"]]


async def test_what_may_be_accepted_later_is_sent_again_in_its_order(
    router: Router, client: Callable[[], RouterClient], clock: Clock
) -> None:
    """RACES 53."""
    router.refusals = {"b": [503, 429], "c": [400], "d": [503]}
    router.retry_after = "3"
    async with client() as c:
        began = clock.monotonic()
        outcomes = await c.send_batch(named("abcde"), list("12345"))
    assert shown(outcomes) == ["1", "2", "400: no c", "4", "5"]
    assert isinstance(outcomes[2], Refused)
    assert router.requests == [["a", "b", "c", "d", "e"], ["b", "d"], ["b"]]
    assert clock.monotonic() - began >= 6


async def test_what_is_not_accepted_in_time_is_unreachable(
    router: Router, client: Callable[[], RouterClient], clock: Clock
) -> None:
    """Also what would go in later requests: it must not overtake."""
    router.refusals = {"b": [503] * 100}
    many = [json.dumps({"name": name, "x": "x" * (BATCH_BYTES - 50)}).encode() for name in "de"]
    async with client() as c:
        began = clock.monotonic()
        outcomes = await c.send_batch([*named("abc"), *many], list("12345"))
    assert [type(outcome) for outcome in outcomes] == [str, Unreachable, str, Unreachable, Unreachable]
    assert "503: no b" in str(outcomes[1])
    assert clock.monotonic() - began <= 21
    assert "d" not in router.accepted


async def test_time_begins_again_where_something_was_accepted(
    router: Router, client: Callable[[], RouterClient]
) -> None:
    """A limit that lets some through each second is no outage."""
    router.refusals = {name: [429] * number for number, name in enumerate("abcdefghij")}
    router.retry_after = "9"
    async with client() as c:
        assert await c.send_batch(named("abcdefghij"), list("0123456789")) == list("0123456789")


async def test_a_batch_that_fails_whole_is_sent_again(router: Router, client: Callable[[], RouterClient]) -> None:
    router.whole = [503, 502]
    async with client() as c:
        assert await c.send_batch(named("ab"), ["1", "2"]) == ["1", "2"]
        router.whole = [401, 401]
        assert shown(await c.send_batch(named("cd"))) == ["401: not now"] * 2
    assert router.requests == [["a", "b"]] * 3 + [["c", "d"]] * 2


async def test_an_earlier_router_gets_one_at_a_time(client: Callable[[], RouterClient], router: Router) -> None:
    router.batches = False
    router.refusals = {"b": [400]}
    async with client() as c:
        assert shown(await c.send_batch(named("abc"), ["1", "2", "3"])) == ["1", "400: no b", "3"]
        assert await c.send_batch(named("de"), ["4", "5"]) == ["4", "5"]
    assert router.requests == [["a"], ["b"], ["c"], ["d"], ["e"]]


async def test_behind_one_that_does_not_go_nothing_goes(client: Callable[[], RouterClient], router: Router) -> None:
    router.batches = False
    router.refusals = {"b": [503] * 100}
    async with client() as c:
        outcomes = await c.send_batch(named("abc"))
    assert [type(outcome) for outcome in outcomes] == [str, Unreachable, Unreachable]
    assert router.accepted == ["a"]


@pytest.mark.parametrize("status", [400, 413])
async def test_a_body_that_is_not_taken_goes_in_its_parts(
    client: Callable[[], RouterClient], router: Router, status: int
) -> None:
    router.whole = [status]
    async with client() as c:
        assert await c.send_batch(named("ab"), ["1", "2"]) == ["1", "2"]
        assert await c.send_batch(named("cd"), ["3", "4"]) == ["3", "4"]
    assert router.requests == [["a", "b"], ["a"], ["b"], ["c", "d"]]


async def test_what_is_no_json_spoils_no_others(client: Callable[[], RouterClient], router: Router) -> None:
    broken = b'{"name": "x"}}, {"envelope": {"name": "y"}'
    async with client() as c:
        outcomes = await c.send_batch([*named("ab"), broken, *named("cd")], list("12345"))
    assert shown(outcomes) == ["1", "2", "400: no JSON", "4", "5"]
    assert router.requests == [["a", "b"], ["c", "d"]]


async def test_as_much_goes_together_as_fits(client: Callable[[], RouterClient], router: Router) -> None:
    large = json.dumps({"name": "L", "x": "x" * BATCH_BYTES}).encode()
    async with client() as c:
        await c.send_batch([*named("a"), large, *named("b"), *named("c") * (BATCH_MESSAGES + 1)])
    assert [len(request) for request in router.requests] == [1, 1, BATCH_MESSAGES, 2]


async def test_a_key_that_is_none_is_an_error_before_anything_is_sent(
    client: Callable[[], RouterClient], router: Router
) -> None:
    async with client() as c:
        with pytest.raises(InvalidIdempotencyKey):
            await c.send_batch(named("ab"), ["good", "not good"])
    assert router.requests == []
