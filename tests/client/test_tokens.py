"""Tokens of a client: from a function or a coroutine, kept until refused, and asked for anew once an answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from router.client import Refused, RouterClient, TokenRefused, TokenUnavailable, Unauthorized, Unreachable
from router.client.client import POLL_SECONDS, TOKEN_EXPIRED
from tests.support.clock import ManualClock
from tests.support.edge import EVENT_SECONDS, server

pytestmark = pytest.mark.anyio


class Clock(ManualClock):
    """Whoever sleeps lets time pass, but not for the poll, which nobody waits for here."""

    async def sleep(self, seconds: float) -> None:
        if seconds == POLL_SECONDS:
            await asyncio.Event().wait()
        self.advance(seconds)
        await asyncio.sleep(0)


class Router(httpx.AsyncBaseTransport):
    """Takes the tokens that it is told to, and has no mail."""

    def __init__(self, *taken: str) -> None:
        self.taken = set(taken)
        self.shown: list[str] = []
        """The token of each request."""
        self.together = asyncio.Barrier(1)
        """Requests are answered when so many are there."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.shown.append(token)
        if token not in self.taken:
            await self.together.wait()
            problem = {"type": "urn:sealed-router:problem:unauthorized", "detail": "expired"}
            return httpx.Response(401, json=problem)
        return httpx.Response(200, json={"messages": []})


class Tokens:
    """t1, t2, …; ``asked`` counts them."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        return f"t{self.asked}"

    async def later(self) -> str:
        await asyncio.sleep(0)
        return self()


def client(router: Router, token: Callable[[], str | Awaitable[str]], clock: Clock | None = None) -> RouterClient:
    return RouterClient("http://router", token, clock=clock or Clock(), chance=random.Random(1), transport=router)


@pytest.mark.parametrize("of", [lambda tokens: tokens, lambda tokens: tokens.later], ids=["function", "coroutine"])
async def test_a_token_is_kept_until_it_is_refused_and_then_asked_for_anew(
    of: Callable[[Tokens], Callable[[], str | Awaitable[str]]],
) -> None:
    router, tokens = Router("t1"), Tokens()
    async with client(router, of(tokens)) as c:
        for _ in range(3):
            assert await c.fetch() == []
        assert (tokens.asked, router.shown) == (1, ["t1"] * 3)
        router.taken = {"t2"}
        assert await c.fetch() == []
        assert await c.fetch() == []
    assert (tokens.asked, router.shown[3:]) == (2, ["t1", "t2", "t2"])


async def test_a_new_token_that_is_refused_as_well_ends_the_call() -> None:
    """One error for it, whether as a refusal or as a matter of tokens; the next call asks again."""
    router, tokens = Router(), Tokens()
    async with client(router, tokens) as c:
        with pytest.raises(TokenRefused) as raised:
            await c.fetch()
        assert router.shown == ["t1", "t2"]
        assert (raised.value.status, raised.value.problem, raised.value.detail) == (401, "unauthorized", "expired")
        assert isinstance(raised.value, Refused)
        assert isinstance(raised.value, Unauthorized)
        router.taken = {"t3"}
        assert await c.fetch() == []


async def test_requests_that_are_refused_together_ask_for_one_token() -> None:
    router, tokens = Router("t2"), Tokens()
    router.together = asyncio.Barrier(5)
    async with client(router, tokens.later) as c, asyncio.timeout(EVENT_SECONDS):
        await asyncio.gather(*(c.fetch() for _ in range(5)))
    assert tokens.asked == 2


async def test_a_token_that_cannot_be_had_now_is_asked_for_again() -> None:
    router, clock, failures = Router("token"), Clock(), 3

    async def token() -> str:
        nonlocal failures
        if failures:
            failures -= 1
            raise TokenUnavailable("the identity service does not answer")
        return "token"

    async with client(router, token, clock) as c:
        assert await c.fetch() == []
        assert router.shown == ["token"]
    failures = 1000
    async with client(router, token, clock) as c:
        began = clock.monotonic()
        with pytest.raises(Unreachable, match="no token: the identity service does not answer"):
            await c.fetch()
    assert 50 < clock.monotonic() - began <= 60


async def test_what_cannot_be_a_token_is_not_sent() -> None:
    router = Router()
    for bad in ("", "two words", "line\nbreak", "é"):
        async with client(router, lambda bad=bad: bad) as c:  # type: ignore[misc]  # mypy infers no default
            with pytest.raises(Unauthorized) as raised:
                await c.fetch()
        assert not bad or bad not in str(raised.value)
    assert router.shown == []


async def test_a_send_that_is_given_up_says_under_which_key_to_repeat_it() -> None:
    keys = set[str]()

    def down(request: httpx.Request) -> httpx.Response:
        keys.add(request.headers.get("idempotency-key", "in the body"))
        return httpx.Response(503)

    async with RouterClient("http://router", lambda: "t", clock=Clock(), transport=httpx.MockTransport(down)) as c:
        with pytest.raises(Unreachable) as raised:
            await c.send(b"{}")
        assert keys == {raised.value.idempotency_key}
        outcomes = await c.send_batch([b"{}", b"{}"], ["one", "two"])
    assert [outcome.idempotency_key for outcome in outcomes if isinstance(outcome, Unreachable)] == ["one", "two"]


class Sockets:
    """Takes the tokens that it is told to, and closes each socket when it has said which it was."""

    def __init__(self) -> None:
        self.taken = {"t2"}
        self.shown: list[str] = []
        self.open = asyncio.Semaphore(0)
        self.app = Starlette(
            routes=[
                Route("/api/messages", lambda _: Response('{"messages": []}')),
                WebSocketRoute("/connect", self._connect),
            ]
        )

    async def _connect(self, socket: WebSocket) -> None:
        token = socket.headers["authorization"].removeprefix("Bearer ")
        self.shown.append(token)
        if token not in self.taken:
            await socket.send_denial_response(Response(status_code=401))
            return
        await socket.accept()
        self.open.release()
        if len(self.shown) == 2:
            self.taken = {"t3"}
            await socket.close(TOKEN_EXPIRED)
            return
        await socket.receive()


async def test_a_handshake_that_is_refused_and_a_socket_that_expires_ask_for_a_new_token() -> None:
    sockets, tokens = Sockets(), Tokens()
    async with (
        server(sockets.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", tokens, clock=Clock()) as c,
        asyncio.timeout(EVENT_SECONDS),
    ):
        task = asyncio.create_task(c.listen(lambda _: None))
        for _ in range(2):
            await sockets.open.acquire()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sockets.shown == ["t1", "t2", "t3"]


async def test_two_refused_handshakes_end_it() -> None:
    sockets, tokens = Sockets(), Tokens()
    sockets.taken = set()
    async with (
        server(sockets.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", tokens, clock=Clock()) as c,
        asyncio.timeout(EVENT_SECONDS),
    ):
        with pytest.raises(TokenRefused):
            await c.listen(lambda _: None)
    assert sockets.shown == ["t1", "t2"]
