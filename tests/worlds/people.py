"""The stranger, who sees; the victims, who differ; and whoever else there is."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from router.envelope import read
from tests.support.stores import CAP
from tests.worlds.client import TEXT, Answer, Connection, Socket, request
from tests.worlds.service import LARGE_BYTES, LARGE_COUNT, STEP_SECONDS, Running

STRANGER, VICTIM, FRIEND = (f"urn:sm:user:{name}" for name in ("stranger", "victim", "friend"))
JSON = ("content-type", "application/json")
POKE = (TEXT, b"{}")


class Account:
    """Whoever has a token."""

    def __init__(self, running: Running, user: str) -> None:
        self.running = running
        self.user = user
        self._connection = Connection(running.port)

    @property
    def token(self) -> str:
        return self.running.token(self.user)

    async def exchange(self, *requests: bytes) -> list[Answer]:
        return await self._connection.exchange(*requests)

    def sending(self, to: str, key: str, **more: object) -> bytes:
        """The request that sends one message."""
        fields = [JSON, *([("idempotency-key", key)] if key else [])]
        body = json.dumps({"recipientId": to, "encryptedData": "aGVsbG8=", **more}).encode()
        return request("POST", "/api/send", fields, body, self.token)

    async def send(self, to: str, key: str = "", **more: object) -> str:
        """The id of the message; empty where it was refused."""
        (answer,) = await self.exchange(self.sending(to, key, **more))
        return str(json.loads(answer.body).get("id", ""))

    async def fetch(self, limit: int = 500) -> list[str]:
        (answer,) = await self.exchange(request("GET", f"/api/messages?limit={limit}", token=self.token))
        return [message["id"] for message in json.loads(answer.body)["messages"]]

    async def acknowledge(self, ids: Sequence[str]) -> None:
        body = json.dumps({"messageIds": list(ids)}).encode()
        await self.exchange(request("POST", "/api/messages/ack", [JSON], body, self.token))

    async def follow(self, ids: Sequence[str], limit: int = 500) -> list[str]:
        """Acknowledge ``ids`` and fetch, in one request; nothing where it was refused."""
        body = json.dumps({"messageIds": list(ids), "limit": limit}).encode()
        (answer,) = await self.exchange(request("POST", "/api/messages/next", [JSON], body, self.token))
        return [message["id"] for message in json.loads(answer.body).get("messages", ())]

    async def connect(self) -> Socket:
        socket = Socket()
        await socket.open(self.running.port, self.token)
        return socket

    async def leave(self) -> None:
        """Close what is open."""
        await self._connection.close()


class Victim(Account):
    """Somebody of whom nothing is to be learned; each subclass is a state. In this one the router has never heard of
    them."""

    def __init__(self, running: Running) -> None:
        super().__init__(running, VICTIM)
        self.friend = Account(running, FRIEND)
        self._sockets: list[Socket] = []

    async def prepare(self) -> None:
        """Come into this state."""

    async def react(self) -> None:
        """Do what somebody in this state does now and then."""

    async def come(self) -> None:
        """Connect one more device."""
        self._sockets.append(await self.connect())

    async def go(self) -> None:
        """Close all connections; return when the router knows."""
        online = await self.running.factory.online_store()
        for socket in self._sockets:
            await socket.close()
        self._sockets.clear()

        async def gone() -> bool:
            return not await online.connections(VICTIM)

        await self.running.until(gone)

    async def get_mail(self, count: int) -> None:
        """A friend sends so many messages."""
        for number in range(count):
            await self.friend.send(VICTIM, f"key-{number}" if number % 2 else "")
        await self.running.settled()

    async def get_large(self) -> None:
        """A friend sends a message of ``LARGE_BYTES``, as it is stored."""
        small = len(read(json.dumps({"recipientId": VICTIM, "encryptedData": "AAAA"}).encode(), 4).canonical)
        await self.friend.send(VICTIM, encryptedData="A" * (LARGE_BYTES - small + 4))
        await self.running.settled()

    async def read(self) -> None:
        """Fetch and acknowledge all there is."""
        ids = await self.fetch()
        while ids:
            ids = await self.follow(ids)

    async def leave(self) -> None:
        for socket in self._sockets:
            await socket.close()
        await self.friend.leave()
        await super().leave()


class Known(Victim):
    """Offline, with an empty queue, after a visit."""

    async def prepare(self) -> None:
        await self.come()
        await self.get_mail(3)
        await self.read()
        await self.go()


class Away(Victim):
    """Offline, with mail in the queue."""

    async def prepare(self) -> None:
        await self.get_mail(CAP // 2)


class Full(Victim):
    """Offline, and no message more fits."""

    async def prepare(self) -> None:
        await self.get_mail(CAP + 2)


class FullOfBytes(Victim):
    """Offline, with one message; no other fits beside it."""

    async def prepare(self) -> None:
        await self.get_large()


class Spent(Victim):
    """Offline, with an empty queue; nothing more may come to them for a while."""

    async def prepare(self) -> None:
        for _ in range(LARGE_COUNT):
            await self.get_large()
            await self.read()


class Online(Victim):
    """Connected, and has fetched all there was."""

    async def prepare(self) -> None:
        await self.come()
        assert await self.fetch() == []


class Silent(Victim):
    """Connected on two devices, and fetches nothing; no message more fits."""

    async def prepare(self) -> None:
        await self.come()
        await self.come()
        await self.get_mail(CAP)


class Reader(Victim):
    """Connected; fetches and acknowledges all the while."""

    async def prepare(self) -> None:
        await self.come()

    async def react(self) -> None:
        await self.read()


class Guest(Victim):
    """Comes, reads some, and goes."""

    async def react(self) -> None:
        await self.come()
        await self.acknowledge((await self.fetch())[:2])
        await self.go()


VICTIMS: Sequence[type[Victim]] = (Victim, Known, Away, Full, FullOfBytes, Spent, Online, Silent, Reader, Guest)


class Seen(Struct, frozen=True):
    """One thing that the stranger saw, and in which step."""

    step: str
    what: Answer | list[Answer] | list[tuple[int, bytes]] | bool


class Stranger(Account):
    """Keeps all that comes to them."""

    def __init__(self, running: Running, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """``meanwhile``: what others do after each step."""
        super().__init__(running, STRANGER)
        self.seen: list[Seen] = []
        self._meanwhile = meanwhile
        self._pokes_are_late = running.factory.config.online.kind == "firestore"
        self._step = ""

    async def begin(self, step: str) -> None:
        """Others have their turn; then ``step`` begins."""
        await self.running.settled()
        await self._meanwhile()
        self._step = step

    def note(self, what: Answer | list[Answer] | list[tuple[int, bytes]] | bool) -> None:
        self.seen.append(Seen(self._step, what))

    def _tick(self, seconds: float = STEP_SECONDS) -> None:
        self.running.begin(f"{self._step} {len(self.seen)}", seconds)

    async def exchange(self, *requests: bytes) -> list[Answer]:
        self._tick()
        answers = await super().exchange(*requests)
        self.note(answers)
        return answers

    async def connect(self) -> Socket:
        self._tick()
        socket = Socket()
        self.note(await socket.open(self.running.port, self.token))
        return socket

    async def say_goodbye(self, socket: Socket) -> None:
        """Close a socket, when all that was sent to it has come. A poke may be repeated, by the sweeper's beat: how
        often is not compared; nor, over Pub/Sub, which brings pokes late and twice, whether there was one."""
        await socket.flushed()
        frames = list(dict.fromkeys(socket.frames))
        self.note([frame for frame in frames if not (self._pokes_are_late and frame == POKE)])
        await socket.close()

    async def quiet(self, sockets: Sequence[Socket]) -> None:
        """All that was sent so far is heard, and forgotten."""
        for socket in sockets:
            await socket.flushed()
            socket.take()

    async def hear(self, sockets: Sequence[Socket]) -> None:
        """What has come since the last time, exactly; not where pokes may be late."""
        if self._pokes_are_late:
            return
        for socket in sockets:
            await socket.flushed()
            self.note(socket.take())

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        self._tick(seconds)
