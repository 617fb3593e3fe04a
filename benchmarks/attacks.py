"""What strangers and dishonest people try (docs/proof/bad-input.md), as the bytes that they send."""

from __future__ import annotations

import base64
import hmac
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from benchmarks.abusers import Attack
from benchmarks.load_http import HOST, ack, fetch, get, post
from benchmarks.mail import together, user
from router.auth.embedded import ALGORITHM, ISSUER, EmbeddedKey
from router.data_dir import SIGNING_KEY, key_file
from router.web.api import MAX_ACK_IDS
from router.web.batches import MOST_MESSAGES
from router.web.user_requests import MAX_VALUES

FLOOD_SECONDS = 3.0
DEAF_SECONDS = 14.0
"""Twice as long as a server of this scenario waits, and a little."""
MANY = 2000
FLOOD = 200
"""A flood has a request of each of these under way all the time."""
WIDE = 200
"""Where one connection may hold megabytes."""
READERS = user("deaf", 0)
"""Whose mailbox is full before those come who read nothing."""
NOBODY = user("nobody", 0)
ACK_CONNECTIONS = (16, 64, 200)
WHOLE = 400
STORM = 64
SEND_BYTES = 340_000
_ESCAPES = b'"%b"' % (b"\\u0041" * 50_000)
_PING, _TEXT = 0x9, 0x1  # RFC 6455, section 5.2
_BIG = 10**9
_NEVER = 4_000_000_000
Token = Callable[[str], str]


def attacks(token: Token, key: Path, count: Callable[[int], int]) -> Iterator[tuple[str, Attack]]:
    """Each with its name; ``key`` is that of the server, ``count`` makes a quick run smaller."""
    held, wide, flood = count(MANY), count(WIDE), count(FLOOD)
    bearer = token(user("abuser", 0))
    yield "connections that say nothing", Attack(held, [b""])
    yield "headers that drip", Attack(held, [_get("/healthz") + b"x-slow: "], drip=b"x")
    yield "headers just below 64 KiB that do not end", Attack(held, [_get("/healthz") + b"x: " + b"x" * 65_000])
    yield "half WebSocket handshakes", Attack(held, [upgrade(bearer)[:-2]])
    yield "bodies that drip", Attack(held, [_open(bearer, "/api/send", 1000) + b"{"], drip=b" ")
    yield "acknowledgements of 1 MB without their end", Attack(wide, [_unfinished(bearer)])
    yield "pages of 8 MB that nobody reads", Attack(wide, [fetch(token(READERS), 500)], deaf_seconds=DEAF_SECONDS)
    tokens = [token(user("deaf-socket", number)) for number in range(held // 20)]
    yield "sockets that read nothing", Attack(held, [upgrade(one) for one in tokens], deaf_seconds=DEAF_SECONDS)
    yield "sockets of one user", Attack(held, [upgrade(bearer)])
    yield "sockets that send 200 pings", _frames(token, flood, _PING, b"x" * 125)
    yield "sockets that send 200 texts", _frames(token, flood, _TEXT, b"hello")
    yield from ((name, _flood(flood, requests)) for name, requests in _requests(bearer, key))


def users(token: Token, count: Callable[[int], int]) -> Iterator[tuple[str, Attack]]:
    """One account that asks for what it may, as much as it can; each with its name."""
    bearer, reader = token(user("abuser", 0)), token(READERS)
    for connections in ACK_CONNECTIONS:
        yield f"acknowledgements of {MAX_ACK_IDS} ids each", _insisting(count(connections), [_acks(bearer)])
    unknown = [ack(reader, [str(uuid.uuid4())]) for _ in range(count(STORM))]
    yield "acknowledgements of an unknown id, with a full mailbox", _insisting(len(unknown), unknown)
    yield "acknowledgements of 1 MB, whole", _insisting(count(WHOLE), [post("/api/messages/ack", bearer, b" " * 2**20)])
    yield "envelopes of 256 KiB, whole", _insisting(count(WHOLE), [post("/api/send", bearer, large(NOBODY, 2**18))])
    yield "fetches of 8 MB", _insisting(count(STORM), [fetch(reader, 500)])
    yield "fetches of nothing", _insisting(count(FLOOD), [fetch(bearer, 500)])
    yield (
        "connections that come and go",
        Attack(count(STORM), [upgrade(bearer)], seconds=FLOOD_SECONDS, stays=False, user=True),
    )
    for name, value in (("objects", b'{"a":1}'), ("floats", b"1e1"), ("numbers of 4,000 digits", b"9" * 4000)):
        yield f"envelopes with {name} beside", _insisting(count(STORM), [post("/api/send", bearer, _beside(value))])
    yield "envelopes with escapes beside", _insisting(count(STORM), [post("/api/send", bearer, _beside(_ESCAPES))])
    members = together(large(user("member", number), 1024) for number in range(MOST_MESSAGES))
    yield f"batches of {MOST_MESSAGES}", _insisting(count(STORM), [post("/api/send/batch", bearer, members)])
    own = post("/api/send", bearer, large(user("abuser", 0), 1024))
    yield "sends to oneself, and fetches", _insisting(count(FLOOD), [own, own, own, fetch(bearer, 500)])


def _insisting(count: int, requests: list[bytes]) -> Attack:
    return Attack(count, requests, seconds=FLOOD_SECONDS, keeps=True, user=True)


def _acks(bearer: str) -> bytes:
    return ack(bearer, [str(uuid.uuid4()) for _ in range(MAX_ACK_IDS)])


def _beside(value: bytes) -> bytes:
    """An envelope with a list of so many of ``value`` as the router may read."""
    times = min(MAX_VALUES // (2 + value.count(b"{")), SEND_BYTES // (len(value) + 1))
    return b'{"recipientId":"%b","x":[%b]}' % (NOBODY.encode(), b",".join([value] * times))


def _requests(bearer: str, key: Path) -> Iterator[tuple[str, list[bytes]]]:
    open_to_all = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json")
    yield "questions for health, readiness, metrics and the document", [get(path, "") for path in open_to_all]
    yield "headers of 70 kB", [_get("/healthz") + b"x: " + b"x" * 70_000 + b"\r\n\r\n"]
    yield "bodies of 1 GB, declared", [_open(bearer, "/api/send", _BIG)]
    yield "bodies of 600 kB, in chunks", [_chunked(bearer, 600_000)]
    for name, bad in forged(key):
        yield f"tokens: {name}", [get("/api/messages", bad)]
    urns = ["urn:sm:user:" + "x" * 10_000, "urn:sm:user:a\nb", "urn:sm:user:a\0b", "urn:sm:user:{}/__x__:"]
    yield "URNs of 10 kB, with line breaks, NULs, braces", [_send(bearer, {"recipientId": urn}) for urn in urns]
    yield (
        "JSON 15,000 deep",
        [
            post("/api/send", bearer, b'{"recipientId":"bob","x":' + b"[" * 15_000),
            post("/api/messages/ack", bearer, b'{"messageIds":' + b"[" * 15_000),
        ],
    )


def forged(key: Path) -> Iterator[tuple[str, str]]:
    """Tokens that nobody should believe: ``none``, HS256 by the public key, unknown kid, expired, long."""
    owner = EmbeddedKey.open(key)
    private = serialization.load_pem_private_key(key_file(key, SIGNING_KEY).read_bytes(), password=None)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claims: dict[str, str | int] = {"iss": ISSUER, "sub": user("abuser", 0), "iat": 1, "exp": _NEVER}
    yield "alg none", _signed({"alg": "none", "kid": owner.kid}, claims, None)
    yield "HS256 by the public key", _signed({"alg": "HS256", "kid": owner.kid}, claims, public)
    yield "unknown kid", _signed({"alg": ALGORITHM, "kid": "another"}, claims, public)
    yield "expired", owner.sign(user("abuser", 0), 0, 1)
    yield "of 60 kB", _long(owner, 40_000)
    yield "of 1 MB", _long(owner, 750_000)


def _signed(head: dict[str, str], claims: dict[str, str | int], secret: bytes | None) -> str:
    """By hand, since no library signs like this: HMAC whatever ``head`` says, or nothing at all."""
    said = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, claims))
    signature = b"" if secret is None else hmac.digest(secret, said, "sha256")
    return (said + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def _long(owner: EmbeddedKey, size: int) -> str:
    """Rightly signed, but for a letter in the middle."""
    token = owner.sign("x" * size, 0, _NEVER)
    return token[: size // 2] + ("A" if token[size // 2] != "A" else "B") + token[size // 2 + 1 :]


def upgrade(token: str) -> bytes:
    """A handshake (RFC 6455, section 4.1)."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    return (
        _get("/connect")
        + (
            f"Authorization: Bearer {token}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    )


def large(recipient: str, size: int) -> bytes:
    """An envelope whose sealed data has ``size`` bytes."""
    sealed = base64.b64encode(os.urandom(size)).decode()
    return json.dumps({"recipientId": recipient, "encryptedData": sealed}).encode()


def _frames(token: Token, count: int, opcode: int, data: bytes) -> Attack:
    frame = bytes([0x80 | opcode, 0x80 | len(data), 0, 0, 0, 0]) + data
    handshakes = [upgrade(token(user("flooder", number))) for number in range(count)]
    return Attack(count, handshakes, then=frame * 200, seconds=FLOOD_SECONDS)


def _flood(count: int, requests: list[bytes]) -> Attack:
    return Attack(count, requests, seconds=FLOOD_SECONDS, stays=False)


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n".encode()


def _send(bearer: str, envelope: dict[str, str]) -> bytes:
    return post("/api/send", bearer, json.dumps({"encryptedData": "eA==", **envelope}).encode())


def _open(bearer: str, path: str, length: int) -> bytes:
    """A POST without its body."""
    head = post(path, bearer, b"").replace(b"Content-Length: 0\r\n", f"Content-Length: {length}\r\n".encode())
    assert str(length).encode() in head
    return head


def _unfinished(bearer: str) -> bytes:
    return _open(bearer, "/api/messages/ack", 1_000_000) + b'{"messageIds":["' + b"x" * 990_000


def _chunked(bearer: str, size: int) -> bytes:
    head = post("/api/send", bearer, b"").replace(b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n")
    return head + b"%x\r\n" % size + b" " * size + b"\r\n0\r\n\r\n"
