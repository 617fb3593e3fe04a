"""All that people do at a router, right and wrong, with a marker in everything secret; and how to look for the markers.

Payloads are found inside envelopes only, and senders, tokens and keys nowhere (RACES 40).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

PAYLOAD = b"MARKER-PAYLOAD"
SENDER = "marker-sender"
KEY = "marker-key"
BOGUS = "marker-bogus-token"
SENDERS = 24
CAP = 12
"""For ``limits.queue_messages``: less than the soak sends to anybody."""
PAYLOADS = (PAYLOAD, base64.b64encode(PAYLOAD)[:16], PAYLOAD.hex().encode())
"""However a payload might be spelled; base64 is aligned, since a marker begins each field."""
RECIPIENTS = tuple(f"{kind}-{number}" for kind in ("online", "offline") for number in range(3))
SETTINGS = {
    "ROUTER_SERVER__LOG_LEVEL": "debug",
    "ROUTER_LIMITS__SEND_RATE": "0.001",
    "ROUTER_LIMITS__SEND_BURST": "5",
    "ROUTER_LIMITS__QUEUE_MESSAGES": str(CAP),
    "ROUTER_LIMITS__ENVELOPE_BYTES": "1000",
}
"""With these, everything that the soak does is answered as it expects."""
REFUSALS = (b"queue-full", b"invalid-envelope", b"rate-limited", b"bad-frame")
"""What logs and metrics say after a soak, so that a scan of them is a scan of something."""

Sign = Callable[[str, float, str | None], str]
"""A token for (user, seconds that it is good for, handle)."""


@dataclass
class Soak:
    """A client of many senders and a few recipients; remembers every secret that it ever used."""

    url: str
    ws_url: str
    sign: Sign
    secrets: set[bytes] = field(default_factory=lambda: {SENDER.encode(), KEY.encode(), BOGUS.encode()})

    def bearer(self, user: str, ttl_seconds: float = 600, handle: str | None = None) -> dict[str, str]:
        token = self.sign(user, ttl_seconds, handle)
        self.secrets |= {part.encode() for part in token.split(".")[1:]}
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            yield client

    @asynccontextmanager
    async def online(self) -> AsyncIterator[None]:
        """Half of the recipients have a socket."""
        sockets = [connect(self.ws_url, additional_headers=self.bearer(f"online-{number}")) for number in range(3)]
        async with sockets[0], sockets[1], sockets[2]:
            yield

    def found(self, text: bytes) -> list[bytes]:
        """What must not even be where payloads may be."""
        return [secret for secret in self.secrets if secret in text]

    def scan(self, text: bytes, where: str) -> None:
        """No payload, no sender, no token and no key is in ``text``."""
        for secret in (*PAYLOADS, *self.secrets):
            assert secret not in text, f"{secret!r} is in {where}"

    def scan_words(self, texts: Iterable[bytes], *more: bytes) -> None:
        """Logs and metrics; after a look that they say something."""
        everything = b"\n".join(texts)
        for word in (*REFUSALS, *more):
            assert word in everything, word
        self.scan(everything, "a log or a metric")


async def ask(client: httpx.AsyncClient, method: str, path: str, **more: object) -> int:
    response = await client.request(method, path, **more)  # type: ignore[arg-type]  # passes on keyword arguments
    return response.status_code


def sealed(recipient: str, size: int = 60, **more: object) -> bytes:
    data = base64.b64encode(PAYLOAD.ljust(size, b"."))
    fields = dict.fromkeys(("encryptedData", "encryptedSymmetricKey", "signature"), data.decode())
    return json.dumps({"recipientId": recipient, **fields, **more}).encode()


async def send_all_kinds(soak: Soak, client: httpx.AsyncClient, number: int) -> None:
    """One sender: every lane, ephemeral, with a key, the key again for somebody else, and one too many."""
    handle = f"urn:sm:user:{SENDER}-{number}" if number % 2 else None
    headers = soak.bearer(f"{SENDER}-{number}", handle=handle)
    keyed = {**headers, "idempotency-key": f"{KEY}-{number}"}
    online, offline = f"online-{number % 3}", f"offline-{number % 3}"
    statuses = [
        await ask(client, "POST", "/api/send", content=content, headers=own)
        for content, own in (
            (sealed(online), headers),
            (sealed(offline, priority=9), headers),
            (sealed(online, isEphemeral=True), headers),
            (sealed(offline), keyed),
            (sealed(online), keyed),
            (sealed(offline), headers),
        )
    ]
    assert statuses == [202] * 5 + [429]


async def be_refused(soak: Soak, client: httpx.AsyncClient) -> None:
    """Tokens that are not believed and bodies that are not taken, each with a marker in it."""
    bad_tokens = [
        BOGUS,
        f"{BOGUS}.{BOGUS}.{BOGUS}",
        BOGUS * 900,
        soak.bearer(SENDER, -100)["authorization"][7:],
        SENDER,
    ]
    for token in bad_tokens:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        assert await ask(client, "POST", "/api/send", content=sealed("x"), headers=headers) == 401
        assert await ask(client, "GET", f"/api/messages?token={token[:100]}", headers=headers) == 401
    text = PAYLOAD.decode()
    bodies = {
        400: [
            b'{"recipientId":"x","encryptedData":"%b!"}' % PAYLOAD,
            b'{"recipientId":"%b %b"}' % (PAYLOAD, PAYLOAD),
            b'{"encryptedData":"%b"}' % PAYLOAD,
            b'{"%b"' % PAYLOAD,
            sealed("x")[:-9],
            sealed("x", isEphemeral=text),
            b'{"x":%b' % (b'{"%b":' % PAYLOAD * 500),
            b"\xff" + PAYLOAD,
        ],
        413: [sealed("x", 2000)],
    }
    for status, wrong in bodies.items():
        for number, body in enumerate(wrong):
            headers = soak.bearer(f"{SENDER}-wrong-{status}-{number}")
            assert await ask(client, "POST", "/api/send", content=body, headers=headers) == status, body
    headers = {**soak.bearer(f"{SENDER}-a"), "idempotency-key": f"{KEY} {KEY}"}
    assert await ask(client, "POST", "/api/send", content=sealed("x"), headers=headers) == 400
    headers = {**soak.bearer(f"{SENDER}-b"), "content-type": text}
    assert await ask(client, "POST", "/api/send", content=sealed("x"), headers=headers) == 415
    for path in (f"/{text}", f"/api/messages?limit={text}", "/api/messages?limit=0"):
        assert await ask(client, "GET", path, headers=soak.bearer("online-0")) in (400, 404)
    ids = json.dumps({"messageIds": [text], text: SENDER}).encode()
    assert await ask(client, "POST", "/api/messages/ack", content=ids, headers=soak.bearer("online-0")) == 204


async def misuse_sockets(soak: Soak) -> None:
    """What is said on a socket, and what a handshake brings, is as secret."""
    for token in (BOGUS, f"{BOGUS}.x.y"):
        with pytest.raises(InvalidHandshake):
            await connect(f"{soak.ws_url}?token={token}", subprotocols=[Subprotocol(token)])
    token = soak.bearer("online-0")["authorization"][7:]
    async with connect(soak.ws_url, subprotocols=[Subprotocol("bearer"), Subprotocol(token)]) as socket:
        await socket.send(PAYLOAD.decode() + SENDER)
        await socket.ping(PAYLOAD)
        await socket.send(PAYLOAD * 1000)
        await socket.wait_closed()


async def send(soak: Soak, client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(send_all_kinds(soak, client, number) for number in range(SENDERS)))


async def receive(soak: Soak, client: httpx.AsyncClient) -> None:
    """Each recipient fetches, and acknowledges half."""
    for user in RECIPIENTS:
        response = await client.get("/api/messages?limit=500", headers=soak.bearer(user))
        ids = [message["id"] for message in response.json()["messages"]]
        assert ids
        assert SENDER.encode() not in response.content
        body = json.dumps({"messageIds": ids[::2]}).encode()
        assert await ask(client, "POST", "/api/messages/ack", content=body, headers=soak.bearer(user)) == 204
