"""What the smart client makes of pokes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from router.client import Received, Refused, RouterClient, Unreachable
from router.client.client import POLL_SECONDS, REPLACED, REPLACED_WAIT_SECONDS
from router.client.requests import LONGEST_WAIT_SECONDS
from tests.support.clock import ManualClock
from tests.support.edge import EVENT_SECONDS, eventually, server

pytestmark = pytest.mark.anyio
POKES = 40
"""More than a WebSocket library keeps unread."""


class Poker:
    """One message, and as many pokes as a test likes; counts fetches."""

    def __init__(self) -> None:
        self.mail = ["one"]
        self.fetches = 0
        self.page = 50
        """A page has so many messages, whatever is asked for."""
        self.strangers = 0
        """So many fetches are answered by somebody else."""
        self.shut = False
        """Each connection is closed as soon as it is open."""
        self.code = 1001
        """With what."""
        self.acknowledged: list[list[str]] = []
        """By a request of its own each."""
        self.followed: list[list[str]] = []
        """With the next page."""
        self.answers: list[Response] = []
        """What the next such requests are answered instead."""
        self.app = Starlette(
            routes=[
                Route("/api/messages", self._messages),
                Route("/api/messages/ack", self._acknowledge, methods=["POST"]),
                Route("/api/messages/next", self._next, methods=["POST"]),
                WebSocketRoute("/connect", self._connect),
            ]
        )
        self._socket: WebSocket | None = None

    async def poke(self) -> None:
        assert self._socket is not None
        await self._socket.send_text("{}")

    async def close(self) -> None:
        assert self._socket is not None
        await self._socket.close(1001)

    async def _messages(self, _: Request) -> Response:
        self.fetches += 1
        if self.strangers:
            self.strangers -= 1
            return Response("<html>Welcome!</html>" if self.strangers else b"\xff")
        return JSONResponse({"messages": [{"id": id_, "envelope": {}} for id_ in self.mail[: self.page]]})

    async def _acknowledge(self, request: Request) -> Response:
        self.acknowledged.append(await self._remove(request))
        return Response(status_code=204)

    async def _next(self, request: Request) -> Response:
        if self.answers:
            return self.answers.pop(0)
        self.followed.append(await self._remove(request))
        return await self._messages(request)

    async def _remove(self, request: Request) -> list[str]:
        ids: list[str] = (await request.json())["messageIds"]
        self.mail = [id_ for id_ in self.mail if id_ not in ids]
        return ids

    async def _connect(self, socket: WebSocket) -> None:
        await socket.accept()
        if self.shut:
            await socket.close(self.code)
            return
        self._socket = socket
        try:
            await socket.receive_text()
        except WebSocketDisconnect:
            return


async def test_pokes_that_come_while_it_drains_are_worth_one_more_fetch() -> None:
    poker, saving, saved, heard = Poker(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    pokes = 0

    async def save(_: Sequence[Received]) -> None:
        saving.set()
        await saved.wait()

    def poked() -> None:
        nonlocal pokes
        pokes += 1
        if pokes == POKES:
            heard.set()

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", lambda: "token") as client,
        asyncio.timeout(EVENT_SECONDS),
    ):
        task = asyncio.create_task(client.listen(save, poked=poked))
        await saving.wait()
        for _ in range(POKES):
            await poker.poke()
        await heard.wait()
        saved.set()
        # What comes now is fetched: the pokes of before have not used up their drain.
        poker.mail.append("two")
        await poker.poke()
        await eventually(lambda: not poker.mail)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert poker.fetches <= 6


async def test_a_socket_that_closes_while_it_is_idle_is_opened_again() -> None:
    poker, connections = Poker(), asyncio.Semaphore(0)

    async def save(_: Sequence[Received]) -> None:
        return

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", lambda: "token") as client,
        asyncio.timeout(EVENT_SECONDS),
    ):
        task = asyncio.create_task(client.listen(save, connected=connections.release))
        await connections.acquire()
        await eventually(lambda: not poker.mail)
        await poker.close()
        await connections.acquire()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Longest(random.Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Waits(ManualClock):
    """Notes each wait, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds == POLL_SECONDS:
            await asyncio.Event().wait()  # No time passes until it is cancelled.
        self.noted.append(seconds)
        await asyncio.sleep(0)


async def test_a_socket_that_closes_at_once_is_opened_less_and_less_often() -> None:
    """One that has lived for a while is opened again at once."""
    poker, clock = Poker(), Waits()
    poker.shut, poker.mail = True, []

    async def save(_: Sequence[Received]) -> None:
        return

    def connected() -> None:
        if len(clock.noted) == 8:
            clock.advance(LONGEST_WAIT_SECONDS + 1)

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", lambda: "token", clock=clock, chance=Longest()) as client,
    ):
        task = asyncio.create_task(client.listen(save, connected=connected))
        await eventually(lambda: len(clock.noted) >= 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    longest = LONGEST_WAIT_SECONDS
    assert clock.noted[:10] == [0.2, 0.4, 0.8, 1.6, 3.2, longest, longest, longest, 0.2, 0.4]


async def test_a_client_whose_place_was_taken_gives_the_other_one_time() -> None:
    """RACES 51: it lives after all. At once, and however long its socket lasted, it would only push out the other."""
    poker, clock = Poker(), Waits()
    poker.shut, poker.mail, poker.code = True, [], REPLACED

    async def save(_: Sequence[Received]) -> None:
        return

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", lambda: "token", clock=clock, chance=Longest()) as client,
    ):
        connected = lambda: clock.advance(LONGEST_WAIT_SECONDS + 1)  # noqa: E731 - a word for it
        task = asyncio.create_task(client.listen(save, connected=connected))
        await eventually(lambda: len(clock.noted) >= 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert clock.noted[:3] == [REPLACED_WAIT_SECONDS] * 3


async def test_an_answer_of_somebody_else_is_no_answer() -> None:
    """A network that wants its page to be seen first answers everything with 200."""
    poker, clock = Poker(), Waits()
    troubles = list[str]()
    poker.strangers = 4

    async def save(_: Sequence[Received]) -> None:
        return

    async with (
        server(poker.app) as listening,
        RouterClient(
            f"http://127.0.0.1:{listening.port}", lambda: "token", clock=clock, trouble=troubles.append
        ) as client,
    ):
        assert await client.drain(save) == 1
    assert len(clock.noted) == len(troubles) == 4
    assert "is not a router" in troubles[0]


@pytest.mark.parametrize("failing", ["save", "connected", "poked", "token"])
@pytest.mark.parametrize("error", [OSError("the disk is full"), Unreachable("another router")])
async def test_an_error_of_the_caller_is_no_trouble_of_the_socket(failing: str, error: Exception) -> None:
    poker, troubles = Poker(), list[str]()

    def fail(what: str) -> None:
        if what == failing:
            raise error

    async def save(_: Sequence[Received]) -> None:
        fail("save")

    async def poke() -> None:
        await eventually(lambda: not poker.mail)
        await poker.poke()

    def token() -> str:
        fail("token")
        return "token"

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", token, trouble=troubles.append) as client,
        asyncio.timeout(EVENT_SECONDS),
    ):
        poking = asyncio.create_task(poke())
        with pytest.raises(type(error)) as raised:
            await client.listen(save, connected=lambda: fail("connected"), poked=lambda: fail("poked"))
        poking.cancel()
        await asyncio.gather(poking, return_exceptions=True)
    assert raised.value is error
    assert raised.value.__context__ is None
    assert troubles == []


async def test_a_page_is_acknowledged_with_the_request_for_the_next() -> None:
    poker, saved = Poker(), list[str]()
    poker.mail, poker.page = [str(number) for number in range(5)], 2

    async def save(batch: Sequence[Received]) -> None:
        saved.extend(received.id for received in batch)

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", lambda: "token") as client,
    ):
        assert await client.drain(save) == 5
    assert saved == ["0", "1", "2", "3", "4"]
    assert (poker.followed, poker.acknowledged) == ([["0", "1"], ["2", "3"], ["4"]], [])
    assert poker.fetches == 4


@pytest.mark.parametrize("status", [404, 405])
async def test_at_a_router_that_has_no_next_it_acknowledges_and_fetches(status: int) -> None:
    """And asks for it again when it has a new connection: it may be to another router."""
    poker, saved, connections = Poker(), list[str](), asyncio.Semaphore(0)
    poker.mail, poker.page, poker.answers = ["0", "1", "2"], 1, [Response(status_code=status)]

    async def save(batch: Sequence[Received]) -> None:
        saved.extend(received.id for received in batch)

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", lambda: "token", clock=Waits()) as client,
        asyncio.timeout(EVENT_SECONDS),
    ):
        assert await client.drain(save) == 3
        assert saved == ["0", "1", "2"]
        assert (poker.acknowledged, poker.followed, poker.answers) == ([["0"], ["1"], ["2"]], [], [])
        poker.mail = ["3"]
        task = asyncio.create_task(client.listen(save, connected=connections.release))
        await connections.acquire()
        await eventually(lambda: not poker.mail)
        assert poker.followed == [["3"]]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_next_that_is_refused_or_fails_is_no_reason_to_do_without() -> None:
    poker, clock, saved = Poker(), Waits(), list[str]()
    poker.mail, poker.page = ["0", "1"], 1
    poker.answers = [Response(status_code=503), Response("<html>Welcome!</html>")]
    poker.answers += [Response(status_code=401), Response(status_code=401)]

    async def save(batch: Sequence[Received]) -> None:
        saved.extend(received.id for received in batch)

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", lambda: "token", clock=clock) as client,
    ):
        with pytest.raises(Refused, match="401"):
            await client.drain(save)
        assert (poker.mail, saved, len(clock.noted)) == (["0", "1"], ["0"], 2)
        assert await client.drain(save) == 2
    assert (poker.followed, poker.acknowledged) == ([["0"], ["1"]], [])


async def test_mail_is_fetched_from_time_to_time_though_nothing_was_poked() -> None:
    """A proxy may have lost the poke, or the socket without a word."""
    poker, clock, saved = Poker(), ManualClock(), list[str]()

    async with (
        server(poker.app) as listening,
        RouterClient(f"http://127.0.0.1:{listening.port}", lambda: "token", clock=clock) as client,
        asyncio.timeout(EVENT_SECONDS),
    ):
        # A function that is no coroutine may save, too.
        task = asyncio.create_task(client.listen(lambda batch: saved.extend(received.id for received in batch)))
        await eventually(lambda: saved == ["one"] and not poker.mail)
        await eventually(lambda: clock.sleepers == 1)
        poker.mail = ["two"]
        clock.advance(POLL_SECONDS)
        await eventually(lambda: saved == ["one", "two"] and not poker.mail)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
