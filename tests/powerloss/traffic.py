"""A real router with mail of all kinds in it, its disk noted; and what was confirmed when."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import websockets
from msgspec import Struct

from router.auth.embedded import EmbeddedKey
from router.backends.embedded.schema import FILE_NAME
from router.clock import SystemClock
from tests.support.service import Router

USERS = tuple(f"urn:sm:user:u{number}" for number in range(4))
SENDERS = 3
SIZES = (10, 400, 3000, 20_000)
TOKEN_SECONDS = 3600
SETTINGS = {
    "ROUTER_LIMITS__SEND_RATE": "0",
    "ROUTER_ONLINE__REPOKE_SECONDS": "0.5",
    "ROUTER_ONLINE__PUSH_AFTER_SECONDS": "1",
    "ROUTER_ONLINE__SWEEP_AFTER_SECONDS": "2",
    "ROUTER_SERVER__LOG_LEVEL": "warning",
}


class Mail(Struct):
    """One message. ``at`` is a length of the journal, in bytes; -1 where that moment never came."""

    user: str
    tag: str
    began: float
    """Seconds, by one clock for all."""
    id: str = ""
    confirmed: float = -1.0
    confirmed_at: int = -1
    ack_began_at: int = -1
    acked_at: int = -1


class Recorded(Struct):
    """A whole run: the journal, all mail, and what else lies in the data directory."""

    journal: bytes
    mail: list[Mail]
    others: Mapping[str, bytes]


class _Run:
    def __init__(self, router: Router, journal: Path, seed: int, messages: int) -> None:
        self._router = router
        self._journal = journal
        self._seed = seed
        self._left = messages
        self._ends = False
        self._key = EmbeddedKey.open(router.data_dir)
        self.mail: list[Mail] = []
        self._by_id: dict[str, Mail] = {}

    async def play(self) -> None:
        """All of it, to the end."""
        async with httpx.AsyncClient(base_url=self._router.url, timeout=30) as self._client:
            readers = [asyncio.create_task(self._read(user)) for user in USERS[:-1]]
            await asyncio.gather(*map(self._send, range(SENDERS)))
            self._ends = True
            await asyncio.gather(*readers)

    def _headers(self, user: str) -> dict[str, str]:
        token = self._key.sign(user, SystemClock().now(), TOKEN_SECONDS)
        return {"Authorization": f"Bearer {token}"}

    def _at(self) -> int:
        return self._journal.stat().st_size

    async def _send(self, sender: int) -> None:
        chance = random.Random(f"{self._seed} {sender}")
        headers = self._headers(f"sender{sender}")
        while self._left:
            self._left -= 1
            mail = Mail(chance.choice(USERS), f"{sender}.{self._left}", time.monotonic())
            self.mail.append(mail)
            body = {"recipientId": mail.user, "encryptedData": sealed(mail.tag, chance.choice(SIZES))}
            answer = await self._client.post("/api/send", json=body, headers=headers)
            assert answer.status_code == 202, answer.text
            mail.confirmed_at, mail.confirmed, mail.id = self._at(), time.monotonic(), answer.json()["id"]
            self._by_id[mail.id] = mail

    async def _read(self, user: str) -> None:
        """Come, read some of it, go; with a socket or without."""
        chance = random.Random(f"{self._seed} {user}")
        headers = self._headers(user)
        while not self._ends:
            if chance.random() < 0.7:
                url = f"{self._router.url.replace('http', 'ws', 1)}/connect"
                async with websockets.connect(url, additional_headers=headers):
                    for _ in range(chance.randrange(1, 8)):
                        await self._page(headers, chance)
            else:
                await self._page(headers, chance)
            await asyncio.sleep(chance.random() * 0.05)

    async def _page(self, headers: Mapping[str, str], chance: random.Random) -> None:
        found = await self._client.get("/api/messages?limit=20", headers=headers)
        assert found.status_code == 200, found.text
        ids = [message["id"] for message in found.json()["messages"] if chance.random() < 0.8]
        # An answer to its send may still be on its way to its sender.
        mail = [self._by_id[id_] for id_ in ids if id_ in self._by_id]
        for one in mail:
            one.ack_began_at = self._at() if one.ack_began_at < 0 else one.ack_began_at
        body = {"messageIds": [one.id for one in mail]}
        acked = await self._client.post("/api/messages/ack", json=body, headers=headers)
        assert acked.status_code == 204, acked.text
        for one in mail:
            one.acked_at = self._at() if one.acked_at < 0 else one.acked_at


def sealed(tag: str, size: int) -> str:
    """What a message of ``size`` bytes and some holds, in base64."""
    return base64.b64encode(json.dumps([tag, "x" * size]).encode()).decode()


def tag_of(envelope: bytes) -> str:
    """The tag that ``sealed`` put into it."""
    tag, _ = json.loads(base64.b64decode(json.loads(envelope)["encryptedData"]))
    return str(tag)


def record(folder: Path, library: Path, *, seed: int, messages: int) -> Recorded:
    """Run a router in ``folder``, which is empty, through ``messages`` sends, and stop it."""
    folder = folder.resolve()
    data, journal = folder / "data", folder / "journal"
    noted = {
        "LD_PRELOAD": str(library),
        "POWERLOSS_PREFIX": str(data / FILE_NAME),
        "POWERLOSS_JOURNAL": str(journal),
    }
    router = Router(data, SETTINGS | noted)
    with router.running():
        run = _Run(router, journal, seed, messages)
        asyncio.run(run.play())
    others = [path for path in data.iterdir() if path.is_file() and not path.name.startswith(FILE_NAME)]
    return Recorded(journal.read_bytes(), run.mail, {path.name: path.read_bytes() for path in others})
