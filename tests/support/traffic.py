"""Traffic for acceptance tests, and the judge of what came of it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import defaultdict
from collections.abc import Callable, Sequence

from msgspec import Struct

from router.client import Received, RouterClient

PACE_SECONDS = 0.02
"""Each sender rests this long between sends: the machine is to be busy, not full."""


class Sent(Struct, frozen=True):
    """What a sender was answered 202 for."""

    sender: str
    number: int
    recipient: str
    id: str


def sealed(sender: str, number: int, recipient: str) -> bytes:
    """An envelope that only tests can open."""
    data = base64.b64encode(json.dumps([sender, number, recipient]).encode()).decode()
    return json.dumps({"recipientId": recipient, "encryptedData": data}).encode()


def opened(received: Received) -> tuple[str, int, str]:
    """(sender, number, recipient)"""
    sender, number, recipient = json.loads(base64.b64decode(json.loads(bytes(received.envelope))["encryptedData"]))
    return sender, number, recipient


class Inbox:
    """All that one user's client saved, each id once, in the order of its first arrival."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.messages: dict[str, tuple[str, int, str]] = {}
        self._grown = asyncio.Event()

    async def save(self, batch: Sequence[Received]) -> None:
        for received in batch:
            self.messages.setdefault(received.id, opened(received))
        self._grown.set()

    async def holds(self, ids: set[str]) -> None:
        """Return when all of ``ids`` are here."""
        while not ids <= self.messages.keys():
            self._grown.clear()
            await self._grown.wait()


class Senders:
    """Each sends numbered messages to every recipient in turn, one after another, until told to stop."""

    def __init__(self, client: Callable[[str], RouterClient], names: Sequence[str], recipients: Sequence[str]) -> None:
        self._client = client
        self._names = names
        self._recipients = recipients
        self._stop = asyncio.Event()
        self._grown = asyncio.Event()
        self.sent: list[Sent] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in self._names:
                group.create_task(self._send(name))

    async def _send(self, sender: str) -> None:
        async with self._client(sender) as client:
            number = 0
            while not self._stop.is_set():
                recipient = self._recipients[(number + self._names.index(sender)) % len(self._recipients)]
                id_ = await client.send(sealed(sender, number, recipient))
                self.sent.append(Sent(sender, number, recipient, id_))
                self._grown.set()
                number += 1
                await asyncio.sleep(PACE_SECONDS)

    def stop(self) -> None:
        self._stop.set()

    async def more(self, count: int) -> None:
        """Return when ``count`` more messages were accepted."""
        wanted = len(self.sent) + count
        while len(self.sent) < wanted:
            self._grown.clear()
            await self._grown.wait()

    def ids(self, recipient: str) -> set[str]:
        return {sent.id for sent in self.sent if sent.recipient == recipient}


def judge(sent: Sequence[Sent], inboxes: Sequence[Inbox]) -> None:
    """Nothing lost, nothing reordered, nothing twice, nothing of anybody else's."""
    accepted = {one.id: one for one in sent}
    assert len(accepted) == len(sent), "an id stands for one message"
    arrived = {id_ for inbox in inboxes for id_ in inbox.messages}
    assert accepted.keys() - arrived == set(), "what was answered 202 arrives"
    ids: dict[tuple[str, int], set[str]] = defaultdict(set)
    for inbox in inboxes:
        last: dict[str, int] = defaultdict(lambda: -1)
        for id_, (sender, number, recipient) in inbox.messages.items():
            assert recipient == inbox.user, "nobody else's mail"
            assert number > last[sender], f"{inbox.user} got number {number} of {sender} after {last[sender]}"
            last[sender] = number
            ids[sender, number].add(id_)
            if id_ in accepted:
                one = accepted[id_]
                assert (one.sender, one.number, one.recipient) == (sender, number, recipient), "its own content"
    assert [known for known in ids.values() if len(known) > 1] == [], "one id for life"
