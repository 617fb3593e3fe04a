"""RACES 40: after a soak, payloads are found inside envelopes only, and senders, tokens and keys nowhere."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from router.auth.embedded import EmbeddedKey
from router.backends.embedded import schema
from router.clock import SystemClock
from tests.support.edge import eventually
from tests.support.service import Router, stop

pytestmark = pytest.mark.anyio
PAYLOAD = b"MARKER-PAYLOAD"
SENDER = "marker-sender"
KEY = "marker-key"
BOGUS = "marker-bogus-token"
SENDERS = 24
CAP = 12
FILE_BYTES = 64 * 1024
"""The size of any file after which a write fails in the phase of errors."""
PAYLOADS = (PAYLOAD, base64.b64encode(PAYLOAD)[:16], PAYLOAD.hex().encode())
"""However a payload might be spelled; base64 is aligned, since a marker begins each field."""
SEALED = {
    ("ingress", "envelope"),
    ("hot", "envelope"),
    ("cold", "envelope"),
    ("outbox", "command"),
    ("dead_letter", "body"),
}


@dataclass
class Soak:
    """A client of many senders and a few recipients; remembers every secret that it ever used."""

    router: Router
    key: EmbeddedKey
    secrets: set[bytes] = field(default_factory=lambda: {SENDER.encode(), KEY.encode(), BOGUS.encode()})
    metrics: list[bytes] = field(default_factory=list)

    def bearer(self, user: str, ttl_seconds: float = 600, handle: str | None = None) -> dict[str, str]:
        token = self.key.sign(user, SystemClock().now(), ttl_seconds, handle)
        self.secrets |= {part.encode() for part in token.split(".")[1:]}
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=self.router.url, timeout=30) as client:
            yield client

    async def ask(self, client: httpx.AsyncClient, method: str, path: str, **more: object) -> int:
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
        await soak.ask(client, "POST", "/api/send", content=content, headers=own)
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
        assert await soak.ask(client, "POST", "/api/send", content=sealed("x"), headers=headers) == 401
        assert await soak.ask(client, "GET", f"/api/messages?token={token[:100]}", headers=headers) == 401
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
            assert await soak.ask(client, "POST", "/api/send", content=body, headers=headers) == status, body
    headers = {**soak.bearer(f"{SENDER}-a"), "idempotency-key": f"{KEY} {KEY}"}
    assert await soak.ask(client, "POST", "/api/send", content=sealed("x"), headers=headers) == 400
    headers = {**soak.bearer(f"{SENDER}-b"), "content-type": text}
    assert await soak.ask(client, "POST", "/api/send", content=sealed("x"), headers=headers) == 415
    for path in (f"/{text}", f"/api/messages?limit={text}", "/api/messages?limit=0"):
        assert await soak.ask(client, "GET", path, headers=soak.bearer("online-0")) in (400, 404)
    ids = json.dumps({"messageIds": [text], text: SENDER}).encode()
    assert await soak.ask(client, "POST", "/api/messages/ack", content=ids, headers=soak.bearer("online-0")) == 204


async def misuse_sockets(soak: Soak) -> None:
    """What is said on a socket, and what a handshake brings, is as secret."""
    url = soak.router.ws_url
    for token in (BOGUS, f"{BOGUS}.x.y"):
        with pytest.raises(InvalidHandshake):
            await connect(f"{url}?token={token}", subprotocols=[Subprotocol(token)])
    token = soak.bearer("online-0")["authorization"][7:]
    async with connect(url, subprotocols=[Subprotocol("bearer"), Subprotocol(token)]) as socket:
        await socket.send(PAYLOAD.decode() + SENDER)
        await socket.ping(PAYLOAD)
        await socket.send(PAYLOAD * 1000)
        await socket.wait_closed()


async def receive(soak: Soak, client: httpx.AsyncClient) -> None:
    """Each recipient fetches, and acknowledges half."""
    for user in (f"{kind}-{number}" for kind in ("online", "offline") for number in range(3)):
        response = await client.get("/api/messages?limit=500", headers=soak.bearer(user))
        ids = [message["id"] for message in response.json()["messages"]]
        assert ids
        assert SENDER.encode() not in response.content
        body = json.dumps({"messageIds": ids[::2]}).encode()
        assert await soak.ask(client, "POST", "/api/messages/ack", content=body, headers=soak.bearer(user)) == 204


async def soak_once(soak: Soak) -> None:
    """Everything that people do, right and wrong, at one running router."""
    async with soak.client() as client:
        online = [connect(soak.router.ws_url, additional_headers=soak.bearer(f"online-{n}")) for n in range(3)]
        async with online[0], online[1], online[2]:
            await asyncio.gather(*(send_all_kinds(soak, client, number) for number in range(SENDERS)))
            await eventually(lambda: nothing_waits(soak))
            await be_refused(soak, client)
            await misuse_sockets(soak)
            await receive(soak, client)
            scan_files(soak, {"hot", "cold", "outbox", "dead_letter"})
        soak.metrics.append((await client.get("/metrics")).content)


def nothing_waits(soak: Soak) -> bool:
    """All that was accepted is routed."""
    database = schema.open_reader(soak.router.data_dir / schema.FILE_NAME)
    (waiting,) = database.execute("SELECT count(*) FROM ingress").fetchone()
    database.close()
    return bool(waiting == 0)


@contextmanager
def small_files() -> Iterator[None]:
    """A child inherits that no file of its may grow beyond ``FILE_BYTES``: as on a full disk, its writes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def fill_the_disk(soak: Soak) -> None:
    """Send until nothing can be stored any more, and then some."""
    async with soak.client() as client:
        statuses = [
            await soak.ask(
                client, "POST", "/api/send", content=sealed(f"offline-{n}", 300), headers=soak.bearer(f"{SENDER}-e{n}")
            )
            for n in range(60)
        ]
        assert set(statuses) == {202, 503}


def scan(soak: Soak, text: bytes, where: str) -> None:
    """No payload, no sender, no token and no key is in ``text``."""
    for secret in (*PAYLOADS, *soak.secrets):
        assert secret not in text, f"{secret!r} is in {where}"


def scan_table(soak: Soak, database: sqlite3.Connection, table: str) -> int:
    """Every value of every row; returns how many payloads were found where they belong."""
    found = 0
    cursor = database.execute(f"SELECT * FROM {table}")
    columns = [column[0] for column in cursor.description]
    for row in cursor:
        for column, value in zip(columns, row, strict=True):
            text = value if isinstance(value, bytes) else str(value).encode()
            if (table, column) in SEALED:
                found += PAYLOADS[1] in text
                assert not [secret for secret in soak.secrets if secret in text]
            else:
                scan(soak, text, f"{table}.{column}")
    return found


def scan_files(soak: Soak, table_is_used: set[str]) -> None:
    """All tables, and all bytes of all files: free pages and the log keep what no table shows any more."""
    database = sqlite3.connect(soak.router.data_dir / schema.FILE_NAME)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    used = {table for table in tables if scan_table(soak, database, table)}
    assert used >= table_is_used
    database.close()
    for path in soak.router.data_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in soak.secrets if secret in content], path


def scan_words(soak: Soak) -> None:
    """The logs, in both formats, and the metrics; after a look that they say something."""
    logs = [soak.router.log(service).encode() for service in ("serve", "serve-api")]
    everything = b"".join([*logs, *soak.metrics])
    assert b'{"service": "serve"' in logs[0]
    assert b"[info     ] ready" in logs[0]
    for word in (b"queue-full", b"id-conflict", b"invalid-envelope", b"rate-limited", b"unavailable", b"bad-frame"):
        assert word in everything, word
    scan(soak, everything, "a log or a metric")


async def test_secrets_stay_secret(tmp_path: Path) -> None:
    settings = {
        "ROUTER_SERVER__LOG_LEVEL": "debug",
        "ROUTER_LIMITS__SEND_RATE": "0.001",
        "ROUTER_LIMITS__SEND_BURST": "5",
        "ROUTER_LIMITS__QUEUE_MESSAGES": str(CAP),
        "ROUTER_LIMITS__ENVELOPE_BYTES": "1000",
    }
    router = Router(tmp_path / "data", settings)
    soak = Soak(router, EmbeddedKey.open(router.data_dir))
    for log_format in ("json", "text"):
        router.environment["ROUTER_SERVER__LOG_FORMAT"] = log_format
        with router.running() as process:
            await soak_once(soak)
            assert await asyncio.to_thread(stop, process) == 0
    with small_files():
        process = router.start("serve-api")
    try:
        await fill_the_disk(soak)
        scan_files(soak, {"ingress", "cold", "outbox", "dead_letter"})
    finally:
        process.kill()
        process.wait()
    scan_words(soak)
