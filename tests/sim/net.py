"""Between clients and nodes: requests and sockets by ASGI, with what a network does to them."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from router.web.transport.scope import PEER
from tests.sim.loop import Process
from tests.sim.plan import Plan

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

ASGI = {"version": "3.0", "spec_version": "2.3"}
PING_SECONDS = 5.0
"""By then either side has found out that the other one is gone."""


class Lost(Exception):
    """No answer: refused, torn, or too late. Nobody knows what was done."""


class Refused(Exception):
    """The socket was refused before the upgrade."""


class Answer(NamedTuple):
    """What came of one request."""

    status: int
    body: bytes
    fields: tuple[tuple[bytes, bytes], ...]


ASKED_BY: contextvars.ContextVar[str] = contextvars.ContextVar("ASKED_BY", default="")
"""At a server: the name of the request, where it has one."""


class Net:
    """All that travels."""

    def __init__(self, world: World, plan: Plan, chance: random.Random) -> None:
        self._world = world
        self._loop = world.loop
        self._outside = world.outside
        self._rates = plan.net
        self._latency = plan.latency
        self._chance = chance
        self._answers: dict[Process, dict[int, asyncio.Future[Answer]]] = {}
        self._lines: dict[Process, dict[Line, None]] = {}
        self._count = 0

    def fault(self) -> str | None:
        if self._world.weather.calm:
            return None
        draw = self._chance.random()
        for rate in self._rates:
            draw -= rate.share
            if draw < 0:
                return rate.kind
        return None

    def delay(self, fault: str | None = None) -> float:
        return self._chance.random() * (3.0 if fault == "slow" else self._latency)

    async def request(
        self, node: Node, method: str, path: str, token: str, *, query: str = "", body: bytes = b"",
        key: str | None = None, seconds: float = 6.0, name: str = "",
    ) -> Answer:  # fmt: skip
        """The answer; raises ``Lost``."""
        fault = self.fault()
        if not node.listening or fault == "request lost":
            await self._loop.pause(seconds if fault else 0.01)
            raise Lost("nobody listens")
        process = node.process
        self._count += 1
        number = self._count
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._answers.setdefault(process, {})[number] = answer
        headers = [(b"authorization", b"Bearer " + token.encode()), (b"content-type", b"application/json")]
        if key is not None:
            headers.append((b"idempotency-key", key.encode()))
        scope = _scope("http", path, headers, method=method, query_string=query.encode(), name=name)
        self._loop.call_later(
            self.delay(fault), self._arrive, node, process, scope, body, number, fault, context=self._outside.context
        )
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except (TimeoutError, ConnectionError) as error:
            raise Lost(str(error) or "no answer in time") from error
        finally:
            self._answers.get(process, {}).pop(number, None)

    def _arrive(
        self, node: Node, process: Process, scope: dict[str, Any], body: bytes, number: int, fault: str | None
    ) -> None:
        if process.alive and node.listening:
            self._loop.spawn(process, self._serve(node, process, scope, body, number, fault), "request")
        else:
            self._answer(process, number, None)

    async def _serve(
        self, node: Node, process: Process, scope: dict[str, Any], body: bytes, number: int, fault: str | None
    ) -> None:
        status, parts, fields = 0, [], ()
        ASKED_BY.set(scope["name"])
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status, fields
            if message["type"] == "http.response.start":
                status, fields = message["status"], tuple(message["headers"])
            else:
                parts.append(message.get("body", b""))

        assert node.app is not None
        await node.app(scope, receive, send)
        if status == 500:
            self._world.failed(f"{scope['path']} was answered 500", self._world.last_error)
        if fault != "answer lost":
            context = self._outside.context
            self._loop.call_later(
                self.delay(fault),
                self._answer,
                process,
                number,
                Answer(status, b"".join(parts), fields),
                context=context,
            )

    def _answer(self, process: Process, number: int, result: Answer | None) -> None:
        answer = self._answers.get(process, {}).pop(number, None)
        if answer is None or answer.done():
            return
        if result is None:
            answer.set_exception(ConnectionResetError("the connection is reset"))
        else:
            answer.set_result(result)

    def reset(self, node: Node) -> None:
        """A process is gone, and with it its connections."""
        for number in list(self._answers.get(node.process, {})):
            self._answer(node.process, number, None)
        for line in list(self._lines.pop(node.process, ())):
            line.torn(self._chance.random() * (0.1 if self._chance.random() < 0.7 else PING_SECONDS))

    async def connect(self, node: Node, token: str, slow: float) -> Line:
        """An open socket; raises ``Refused`` and ``Lost``."""
        await self._loop.pause(self.delay())
        if not node.listening or self.fault() == "request lost":
            raise Lost("nobody listens")
        line = Line(self, node.process, slow)
        self._lines.setdefault(node.process, {})[line] = None
        headers = [(b"authorization", b"Bearer " + token.encode())]
        scope = _scope("websocket", "/connect", headers, subprotocols=[])
        scope[PEER] = line
        self._loop.spawn(node.process, line.serve(node.app, scope), "socket")
        try:
            async with asyncio.timeout(6.0):
                await line.opened
        except TimeoutError as error:
            line.leave("cut")
            raise Lost("no upgrade in time") from error
        except ConnectionError as error:
            raise Lost(str(error)) from error
        return line

    def later(self, seconds: float, callback: Any, *args: Any) -> None:
        self._loop.call_later(seconds, callback, *args, context=self._outside.context)

    def forget(self, process: Process, line: Line) -> None:
        self._lines.get(process, {}).pop(line, None)


def _scope(kind: str, path: str, headers: list[tuple[bytes, bytes]], **more: Any) -> dict[str, Any]:
    return {
        "type": kind, "asgi": ASGI, "http_version": "1.1", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        "scheme": "http" if kind == "http" else "ws", **more,
    }  # fmt: skip


class Line:
    """One socket, both ends."""

    def __init__(self, net: Net, process: Process, slow: float) -> None:
        self._net = net
        self._process = process
        self._slow = slow
        self._arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._arrived.put_nowait({"type": "websocket.connect"})
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.opened.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.news = asyncio.Event()
        """The client was poked, or the socket is closed."""
        self.pokes = 0
        self.closed = False
        """The client knows that it is."""
        self.dead: Callable[[], None] = lambda: None
        """Called when the server's process dies; the client finds out later."""
        self._gone = asyncio.Event()
        """The server's end knows that the peer is gone."""
        self._vanished = False
        self._pinged_at: float | None = None
        """Since when the peer has owed an answer."""

    def ping(self) -> None:
        """A peer that is there answers at once."""
        if self._vanished and self._pinged_at is None:
            self._pinged_at = asyncio.get_running_loop().time()

    @property
    def silent_seconds(self) -> float:
        return 0.0 if self._pinged_at is None else asyncio.get_running_loop().time() - self._pinged_at

    @property
    def served(self) -> bool:
        """The server's process lives."""
        return self._process.alive

    async def serve(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._arrived.get, self._send)
        finally:
            self._net.forget(self._process, self)
            if not self._vanished:
                self._net.later(self._net.delay(), self._close)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._net.later(self._net.delay(), self._open)
        elif kind == "websocket.http.response.start":
            self._net.later(self._net.delay(), self._refuse, message["status"])
        elif kind == "websocket.send":
            await self._send_frame()
        elif kind == "websocket.close":
            if self._gone.is_set():
                raise RuntimeError("closed already")
            await self._wait_for_peer()
            self._hang_up()
            if not self._vanished:
                self._net.later(self._net.delay(), self._close)

    async def _send_frame(self) -> None:
        if self._gone.is_set():
            raise RuntimeError("closed already")
        await self._wait_for_peer()
        self._net.later(self._net.delay(), self._poke)

    async def _wait_for_peer(self) -> None:
        if self._vanished or self._slow:
            try:
                async with asyncio.timeout(None if self._vanished else self._slow):
                    await self._gone.wait()
            except TimeoutError:
                return
            raise ConnectionResetError("the peer is gone")

    # The client's end.

    def _open(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def _refuse(self, status: int) -> None:
        if not self.opened.done():
            self.opened.set_exception(Refused(str(status)))

    def _poke(self) -> None:
        if not self._vanished and not self.closed:
            self.pokes += 1
            self.news.set()

    def _close(self) -> None:
        self.closed = True
        self.news.set()
        if not self.opened.done():
            self.opened.set_exception(ConnectionResetError("closed"))

    def torn(self, seconds: float) -> None:
        """The server's process is gone; the client finds out by then."""
        self.dead()
        self._net.later(seconds, self._close)

    def leave(self, how: str) -> None:
        """The client closes, is cut off, or says nothing any more."""
        self.closed = True
        if how == "vanish":
            self._vanished = True
            self._net.later(PING_SECONDS * (0.5 + self._net.delay() / 2), self._hang_up)
        else:
            self._net.later(self._net.delay(), self._hang_up)

    def _hang_up(self) -> None:
        if not self._gone.is_set():
            self._gone.set()
            self._arrived.put_nowait({"type": "websocket.disconnect", "code": 1006})
