"""Between the client and a real router: passes everything on, and does what a moment has planted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import httpx
from msgspec import Struct

from router.conformance.wire import CLOSE, HEAD_BYTES, TEXT, Answer, Request, close_frame, read_frame, read_request

HOST = "127.0.0.1"
TOKENS = "GET /conformance/token"
"""Gives the client a fresh token, as text."""


class Exchange:
    """One request, and the connection on which it is answered."""

    def __init__(self, proxy: Proxy, request: Request, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.request = request
        self._writer = writer
        self.closed = False

    async def forward(self) -> Answer:
        """What the router answers; it has done what was asked."""
        return await self.proxy.forward(self.request)

    async def reply(self, answer: Answer, part: float = 1.0) -> None:
        """Answer, or break off after a ``part`` of the body."""
        encoded = answer.encoded()
        missing = int(len(answer.body) * (1 - part))
        with contextlib.suppress(ConnectionError):
            self._writer.write(encoded[: len(encoded) - missing])
            await self._writer.drain()
        if part == 1 and pages(self.request) and answer.status == 200 and not answer.ids():
            self.proxy.emptied = self.proxy.elapsed()
        self.proxy.note(self.request, f"{answer.status}" if part == 1 else f"{answer.status}, cut")
        if part < 1:
            # Closed, not reset: a reset could overtake the part.
            self._writer.close()
            self.closed = True

    def abort(self, what: str) -> None:
        """Break the connection without an answer."""
        self._writer.transport.abort()
        self.closed = True
        self.proxy.note(self.request, what)


Fault = Callable[[Exchange], Awaitable[None]]
"""Answers a request in its own way."""


class _Planted(Struct):
    fault: Fault
    on: Callable[[Request], bool]
    times: float


class Socket:
    """An open WebSocket of the client, and the one of the router behind it."""

    def __init__(self, token: str, here: asyncio.StreamWriter, there: asyncio.StreamWriter) -> None:
        self.token = token
        self.open = True
        self._here = here
        self._there = there

    async def close(self, code: int | None) -> None:
        """End it as a router does with ``code``, or as a network does that fails (``None``)."""
        self.open = False
        with contextlib.suppress(ConnectionError):
            if code is not None:
                self._here.write(close_frame(code))
                await self._here.drain()
        self._there.transport.abort()
        if code is None:
            self._here.transport.abort()


class Proxy:
    """One moment's way to the router. Its state is what it has seen so far; ``changed`` is set on each event."""

    def __init__(self, router: httpx.URL, tokens: Callable[[], str]) -> None:
        """``tokens`` makes a fresh one for the moment's user."""
        self.router = router
        self.tokens = tokens
        self.changed = asyncio.Event()
        self.requests: list[Request] = []
        self.log: list[str] = []
        """What happened, a line for each event."""
        self.acknowledged: dict[str, None] = {}
        """Ids whose deletion the router has confirmed, in order."""
        self.handshakes: list[float] = []
        """When the client asked for a socket, in seconds since the moment began."""
        self.emptied = 0.0
        """When the client last got an empty page."""
        self.sockets: list[Socket] = []
        self.lets_in = asyncio.Event()
        """While it is not set, handshakes wait."""
        self.lets_in.set()
        self.swallow_pokes = False
        self.pokes = 0
        """How many the client got."""
        self.page_limit: int | None = None
        self._planted: list[_Planted] = []
        self._since = asyncio.get_running_loop().time()
        self._http = httpx.AsyncClient(base_url=router, trust_env=False, timeout=60)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks = set[asyncio.Task[None]]()
        self._writers = set[asyncio.StreamWriter]()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def elapsed(self) -> float:
        """Seconds since the moment began."""
        return asyncio.get_running_loop().time() - self._since

    def plant(self, fault: Fault, on: Callable[[Request], bool], times: float = 1) -> None:
        """Answer the next ``times`` requests for which ``on`` holds by ``fault``; the first that fits counts."""
        self._planted.append(_Planted(fault, on, times))

    def connected(self) -> bool:
        """Whether the client has an open socket."""
        return any(socket.open for socket in self.sockets)

    def note(self, request: Request | None, what: str) -> None:
        """Add a line to the log. It holds no token and no payload."""
        self.log.append(f"{self.elapsed():7.3f} s  {request.route if request else '':24}  {what}".rstrip())
        self.changed.set()

    async def start(self) -> None:
        """Listen, on the port of before if there was one."""
        self._server = await asyncio.start_server(self._serve, HOST, self._port, limit=HEAD_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be away, as a machine is that was switched off: no connection lives on, and none is accepted."""
        if self._server is not None:
            self._server.close()
        for socket in self.sockets:
            socket.open = False
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def aclose(self) -> None:
        await self.stop()
        await self._http.aclose()

    async def forward(self, request: Request) -> Answer:
        """What the router answers."""
        if self.page_limit is not None:
            request.limited(self.page_limit)
        headers = [(name, value) for name, value in request.headers if name not in ("host", "connection", "upgrade")]
        headers = [(name, value) for name, value in headers if name not in ("content-length", "transfer-encoding")]
        answered = await self._http.request(request.method, request.target, headers=headers, content=request.body)
        if answered.is_success:
            self.acknowledged.update(dict.fromkeys(request.acknowledged()))
        return Answer(answered.status_code, answered.headers.multi_items(), answered.content)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while (request := await read_request(reader, writer, self._since)) is not None:
                exchange = Exchange(self, request, writer)
                self.requests.append(request)
                if request.wants_socket:
                    self.handshakes.append(request.at)
                fault = self._fault(request)
                if fault is not None:
                    await fault(exchange)
                elif request.wants_socket:
                    await self._tunnel(request, reader, writer)
                    break
                elif request.route == TOKENS:
                    await exchange.reply(Answer(200, [("content-type", "text/plain")], self.tokens().encode()))
                else:
                    await exchange.reply(await exchange.forward())
                if exchange.closed or request.header("connection").lower() == "close":
                    break
        except (ConnectionError, httpx.TransportError, asyncio.CancelledError):
            # The client left, or the moment is over.
            self.changed.set()
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    def _fault(self, request: Request) -> Fault | None:
        for planted in self._planted:
            if planted.times > 0 and planted.on(request):
                planted.times -= 1
                return planted.fault
        return None

    async def _tunnel(self, request: Request, here: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Pass a handshake and its frames on, both ways."""
        assert self.router.port is not None
        await self.lets_in.wait()
        there, router = await asyncio.open_connection(self.router.host, self.router.port)
        self._writers.add(router)
        socket = Socket(request.token(), client, router)
        try:
            lines = [f"GET {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers)]
            router.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            head = await there.readuntil(b"\r\n\r\n")
            client.write(head)
            status = head.split(b" ", 2)[1].decode()
            self.note(request, status)
            if status != "101":
                client.write(await there.read(HEAD_BYTES))
                return
            self.sockets.append(socket)
            self.changed.set()
            upward = asyncio.create_task(_copy(here, router))
            try:
                await self._pass_frames(there, client, socket)
            finally:
                upward.cancel()
                await asyncio.gather(upward, return_exceptions=True)
        except (asyncio.IncompleteReadError, ConnectionError):
            # One end of it is gone, and so is the other now.
            return
        finally:
            socket.open = False
            self._writers.discard(router)
            router.close()
            self.note(request, "the socket is closed")

    async def _pass_frames(self, there: asyncio.StreamReader, client: asyncio.StreamWriter, socket: Socket) -> None:
        while True:
            opcode, frame = await read_frame(there)
            if opcode == TEXT and self.swallow_pokes:
                self.note(None, "a poke is lost")
                continue
            client.write(frame)
            await client.drain()
            if opcode == TEXT:
                self.pokes += 1
                self.note(None, "poke")
            if opcode == CLOSE:
                socket.open = False


async def _copy(here: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
    while data := await here.read(4096):
        there.write(data)
        await there.drain()
    there.transport.abort()


def routed(*routes: str) -> Callable[[Request], bool]:
    """Whether a request is to one of ``routes``."""
    return lambda request: request.route in routes


def pages(request: Request) -> bool:
    """Whether it asks for a page."""
    return request.route in ("GET /api/messages", "POST /api/messages/next")


def acknowledgements(request: Request) -> bool:
    """Whether it acknowledges something."""
    return bool(request.acknowledged())


sends = routed("POST /api/send", "POST /api/send/batch")
handshakes = routed("GET /connect")


async def lose(exchange: Exchange) -> None:
    """The router does what was asked, and its answer never arrives."""
    answer = await exchange.forward()
    exchange.abort(f"{answer.status}, lost")


async def drop(exchange: Exchange) -> None:
    """The request never arrives."""
    exchange.abort("dropped")


async def cut(exchange: Exchange) -> None:
    """The connection breaks in the middle of the answer."""
    await exchange.reply(await exchange.forward(), part=0.5)


def instead(status: int, body: bytes, headers: Sequence[tuple[str, str]]) -> Fault:
    """Something before the router answers."""

    async def fault(exchange: Exchange) -> None:
        await exchange.reply(Answer(status, list(headers), body))

    return fault


def changed(change: Callable[[Answer], Answer]) -> Fault:
    """The answer, changed."""

    async def fault(exchange: Exchange) -> None:
        await exchange.reply(change(await exchange.forward()))

    return fault


def asked(change: Callable[[Request], None]) -> Fault:
    """The answer to another request, which ``change`` makes of it."""

    async def fault(exchange: Exchange) -> None:
        change(exchange.request)
        await exchange.reply(await exchange.forward())

    return fault
