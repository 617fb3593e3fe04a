"""What is fuzzed. Each target takes any bytes and raises only where its oracle says that the router is wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jwt

from router import urn
from router.auth.embedded import EmbeddedKey
from router.auth.verifier import Authenticator, Principal
from router.config import Auth
from router.errors import InvalidUrn, Unauthorized
from router.web.bearer_tokens import from_authorization, from_handshake
from router.web.headers import Headers
from tests.support.clock import ManualClock
from tests.support.oracle import judge, laxer
from tests.support.protojson import ENVELOPES

BLANK = " \t"
Target = Callable[[bytes], None]


def envelopes(data: bytes) -> None:
    """A body is judged as protobuf judges it, and what is accepted comes out as protobuf writes it."""
    if not laxer(data):
        judge(data)


def urns(data: bytes) -> None:
    """A text is a URN by the letter of docs/specification.md#urns, or is refused in words that repeat nothing of it."""
    text = data.decode("utf-8", "surrogateescape")
    wanted = text if ":" in text else f"urn:sm:user:{text}"
    try:
        canonical = urn.parse(text)
    except InvalidUrn as error:
        refusal = str(error)
    else:
        refusal = ""
        assert canonical == wanted
        assert urn.parse(canonical) == canonical
    assert _is_urn(wanted) is not bool(refusal), f"{wanted!r}: {refusal}"
    assert len(refusal) < 160


def _is_urn(text: str) -> bool:
    """Without the pattern that the router uses."""
    parts = text.split(":")
    refused = any(c.isspace() or unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp", "Zs"} for c in text)
    return (
        len(parts) == 4
        and parts[0] == "urn"
        and all(parts)
        and not refused
        and len(text.encode("utf-8", "surrogatepass")) <= 256
    )


def tokens(data: bytes) -> None:
    """Whatever was not signed is refused; of what was, only a user and a time are believed.

    The first byte says which: an even one is followed by a whole token, an odd one by claims that are signed.
    """
    signing = data[:1] and data[0] % 2
    if signing:
        token = jwt.api_jws.encode(data[1:], _key()._key, algorithm="RS256", headers={"kid": _key().kid})
    else:
        token = data[1:].decode("latin-1")
    try:
        principal = asyncio.run(Authenticator(_key(), Auth(), ManualClock()).authenticate(token))
    except Unauthorized as error:
        refusal = str(error)
    else:
        refusal = ""
        _believable(json.loads(data[1:] if signing else _signed_payload(token)), principal)
    assert len(token) < 60 or token not in refusal


def _signed_payload(token: str) -> bytes:
    """An RS256 signature holds for what is before it: only what the seeds have signed can be accepted."""
    signed = {seed[1:].decode().rpartition(".")[0] for seed in token_seeds() if seed[0] == 0}
    assert token.rpartition(".")[0] in signed, "accepted, and nobody has signed it"
    return jwt.utils.base64url_decode(token.split(".")[1])


def _believable(claims: dict[str, Any], principal: Principal) -> None:
    name = claims["handle"] if "handle" in claims else claims["sub"]
    assert principal.user == urn.parse(name)
    assert not isinstance(claims["exp"], bool)
    assert math.isfinite(claims["exp"])
    assert principal.expires_at == int(claims["exp"] * 1_000_000) + 30_000_000, "exp and the leeway"
    assert principal.expires_at > ManualClock().now(), "expired"


def handshakes(data: bytes) -> None:
    """The header fields of a request, a line each: a token comes from one place, and the answer is what was offered."""
    pairs = [line.partition(b":") for line in data.split(b"\n")]
    headers = [(name.strip(BLANK.encode()).lower(), value.strip(BLANK.encode())) for name, _, value in pairs]
    fields = Headers({"headers": headers})
    values = {name: [v.decode("latin-1") for n, v in headers if n == name] for name, _ in headers}
    offered = [
        p.strip(BLANK) for v in values.get(b"sec-websocket-protocol", []) for p in v.split(",") if p.strip(BLANK)
    ]
    try:
        token, answer = from_handshake(fields)
    except Unauthorized:
        assert b"authorization" in values or not (len(offered) == 1 and offered[0] != "bearer")
        return
    assert token == token.strip(BLANK) != ""
    assert answer is None or answer in offered, "a subprotocol that was not offered (RFC 6455, section 4.2.2)"
    if b"authorization" in values:
        assert token == from_authorization(fields)
        assert len(values[b"authorization"]) == 1
        assert values[b"authorization"][0].endswith(token)
    else:
        assert token in offered
        assert offered in ([token], ["bearer", token])


# Seeds, and inputs that once broke an oracle.


@cache
def _key() -> EmbeddedKey:
    with tempfile.TemporaryDirectory() as directory:
        return EmbeddedKey.open(Path(directory))


def envelope_seeds() -> list[bytes]:
    vectors = json.loads(ENVELOPES.read_text())
    return [
        base64.b64decode(case["input_base64"]) if "input_base64" in case else case["input"].encode()
        for case in (*vectors["accepted"], *vectors["refused"])
    ]


def urn_seeds() -> list[bytes]:
    return [
        b"bob",
        b"urn:contacts:user:bob",
        b"urn:a:b:c:d",
        b"urn::b:c",
        "urn:a:b:\u2003".encode(),
        b"a" * 250,
        b"{x}/__y__",
    ]


@cache
def token_seeds() -> list[bytes]:
    now = ManualClock().now()
    whole = [_key().sign("bob", now, 600), _key().sign("bob", now, 600, "urn:a:b:c"), _key().sign("bob", now, -600)]
    seconds = now // 1_000_000
    claims = [
        b'{"sub":"bob","exp":%d}' % (seconds + 60),
        b'{"sub":"bob","exp":%d.5,"nbf":%d,"iat":null}' % (seconds + 60, seconds),
        b'{"sub":"eve","handle":"urn:a:b:c","exp":1e10}',
        b'{"sub":"bob","exp":true}',
        b'{"sub":["bob"],"exp":NaN}',
        b"[]",
    ]
    return [*(b"\0" + token.encode() for token in whole), *(b"\1" + payload for payload in claims)]


def handshake_seeds() -> list[bytes]:
    return [
        b"Authorization: Bearer a.b.c",
        b"Sec-WebSocket-Protocol: bearer, a.b.c",
        b"Sec-WebSocket-Protocol: a.b.c",
        b"Sec-WebSocket-Protocol: bearer\nSec-WebSocket-Protocol: a.b.c",
        b"Authorization: Bearer a.b.c\nSec-WebSocket-Protocol: chat, bearer",
        b"Authorization: Basic x\nAuthorization: Bearer y",
    ]


TARGETS: dict[str, tuple[Target, Callable[[], Iterable[bytes]]]] = {
    "envelopes": (envelopes, envelope_seeds),
    "urns": (urns, urn_seeds),
    "tokens": (tokens, token_seeds),
    "handshakes": (handshakes, handshake_seeds),
}
REGRESSIONS: dict[str, list[bytes]] = {
    "envelopes": [],
    "urns": [],
    "tokens": [],
    "handshakes": [b"Authorization: Bearer a.b\x1d", b"Sec-WebSocket-Protocol: bearer\xa0, a.b.c"],
}
