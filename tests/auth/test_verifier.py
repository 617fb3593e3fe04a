"""RACES 38: tokens that must not be believed."""

from __future__ import annotations

import base64
import errno
import hmac
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from router.auth.embedded import EmbeddedKey, kept_secret
from router.auth.verifier import Authenticator
from router.config import Auth
from router.data_dir import KEYS, SIGNING_KEY, key_file
from router.errors import Unauthorized
from tests.support.clock import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedKey:
    return EmbeddedKey.open(tmp_path_factory.mktemp("key"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def signed(key: EmbeddedKey, clock: ManualClock, **claims: Any) -> str:
    now = clock.now() // 1_000_000
    every = {"sub": "bob", "exp": now + 60, **claims}
    kept = {name: value for name, value in every.items() if value is not None}
    return jwt.encode(kept, key._key, algorithm="RS256", headers={"kid": key.kid})


def raw_token(key: EmbeddedKey, claims: dict[str, Any], **header: Any) -> str:
    """What a library that encodes would not."""
    parts = [{"alg": "RS256", "kid": key.kid, **header}, claims]
    text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = key._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    return b".".join([text, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def authenticator(key: EmbeddedKey, clock: ManualClock, **rules: Any) -> Authenticator:
    return Authenticator(key, Auth(**rules), clock)


async def refused(authenticator: Authenticator, token: str) -> str:
    with pytest.raises(Unauthorized) as refusal:
        await authenticator.authenticate(token)
    assert token not in str(refusal.value)
    return refusal.value.reason


async def test_the_user_is_the_handle_or_else_the_subject(key: EmbeddedKey, clock: ManualClock) -> None:
    verifier = authenticator(key, clock)
    assert (await verifier.authenticate(signed(key, clock))).user == "urn:sm:user:bob"
    assert (await verifier.authenticate(signed(key, clock, handle="urn:a:b:c"))).user == "urn:a:b:c"


@pytest.mark.parametrize(
    "odd",
    [
        {"handle": None},
        {"jti": 5},
        {"jti": None},
        {"jti": ["x"]},
        {"iss": None, "aud": None},
        {"iss": 5, "aud": 5},
        {"nbf": None, "iat": None},
        {"nbf": 1.5, "iat": 1.5},
        {"azp": 5, "scope": None, "use": None, "alg": 5},
    ],
    ids=str,
)
async def test_what_other_claims_hold_is_nobodys_business(
    key: EmbeddedKey, clock: ManualClock, odd: dict[str, Any]
) -> None:
    """Null is absent, and a claim that is not asked for may be anything."""
    token = raw_token(key, {"sub": "bob", "exp": clock.now() // 1_000_000 + 60, **odd})
    assert (await authenticator(key, clock).authenticate(token)).user == "urn:sm:user:bob"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"handle": 5}, "subject"),
        ({"handle": ["bob"]}, "subject"),
        ({"handle": None, "sub": None}, "subject"),
        ({"exp": None}, "claims"),
        ({"iss": 5}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": None}, "claims"),
        ({"aud": 5}, "audience"),
        ({"aud": ["router", 5]}, "audience"),
        ({"aud": {}}, "claims"),
    ],
    ids=str,
)
async def test_what_is_asked_for_must_be_there(
    key: EmbeddedKey, clock: ManualClock, claims: dict[str, Any], reason: str
) -> None:
    """In the form that it has to have: a refusal with its reason, and no bug."""
    good = {"sub": "bob", "exp": clock.now() // 1_000_000 + 60, "iss": "https://id", "aud": "router"}
    verifier = authenticator(key, clock, issuer="https://id", audience="router")
    await verifier.authenticate(raw_token(key, good))
    assert await refused(verifier, raw_token(key, {**good, **claims})) == reason


@pytest.mark.parametrize("odd", [{"alg": None}, {"alg": 5}, {"alg": ["RS256"]}, {"kid": 5}, {"crit": None}], ids=str)
async def test_what_a_header_must_hold(key: EmbeddedKey, clock: ManualClock, odd: dict[str, Any]) -> None:
    claims = {"sub": "bob", "exp": clock.now() // 1_000_000 + 60}
    assert await refused(authenticator(key, clock), raw_token(key, claims, **odd))


async def test_header_fields_that_are_not_asked_for(key: EmbeddedKey, clock: ManualClock) -> None:
    token = raw_token(key, {"sub": "bob", "exp": clock.now() // 1_000_000 + 60}, typ=None, use=5, jku=None)
    assert (await authenticator(key, clock).authenticate(token)).user == "urn:sm:user:bob"


async def test_several_audiences(key: EmbeddedKey, clock: ManualClock) -> None:
    verifier = authenticator(key, clock, audience=["router", "router-beta"])
    for audience in ("router", "router-beta", ["other", "router-beta"]):
        assert (await verifier.authenticate(signed(key, clock, aud=audience))).user == "urn:sm:user:bob"
    assert await refused(verifier, signed(key, clock, aud=["other"])) == "audience"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": 5}, "subject"),
        ({"sub": "a b"}, "subject"),
        ({"handle": ""}, "subject"),
        ({"handle": None, "sub": "urn:x"}, "subject"),
        ({"exp": None}, "claims"),
        ({"exp": "soon"}, "invalid_token"),
        ({"exp": 1e300}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": 1000}, "expired"),
        ({"nbf": 4_000_000_000}, "not_yet_valid"),
        ({"iat": 4_000_000_000}, "not_yet_valid"),
    ],
    ids=str,
)
async def test_a_token_with_wrong_claims_is_refused(
    key: EmbeddedKey, clock: ManualClock, claims: dict[str, Any], reason: str
) -> None:
    found = await refused(authenticator(key, clock), signed(key, clock, **claims))
    assert found in (reason, "claims"), found


async def test_issuer_and_audience(key: EmbeddedKey, clock: ManualClock) -> None:
    verifier = authenticator(key, clock, issuer="https://id", audience="router")
    good = signed(key, clock, iss="https://id", aud=["router", "other"])
    assert (await verifier.authenticate(good)).user == "urn:sm:user:bob"
    assert await refused(verifier, signed(key, clock, iss="https://evil", aud="router")) == "issuer"
    assert await refused(verifier, signed(key, clock, iss="https://id", aud="other")) == "audience"
    assert await refused(verifier, signed(key, clock, iss="https://id")) in ("audience", "claims")


async def test_a_cached_token_expires(key: EmbeddedKey, clock: ManualClock) -> None:
    verifier, token = authenticator(key, clock, leeway_seconds=5), signed(key, clock)
    await verifier.authenticate(token)
    clock.advance(64)
    await verifier.authenticate(token)
    clock.advance(1)
    assert await refused(verifier, token) == "expired"


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, ""])


async def test_algorithms_are_pinned(key: EmbeddedKey, clock: ManualClock) -> None:
    verifier, claims = authenticator(key, clock), {"sub": "bob", "exp": 4_000_000_000}
    assert await refused(verifier, unsigned({"alg": "none"}, claims)) == "algorithm"
    public = key._key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # By hand, since PyJWT refuses to make such a token.
    with_public_key = unsigned({"alg": "HS256", "kid": key.kid}, claims)
    mac = hmac.digest(public, with_public_key.rstrip(".").encode(), "sha256")
    with_public_key += base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    assert await refused(verifier, with_public_key) == "algorithm"
    lax = authenticator(key, clock, algorithms=["RS256", "HS256"])
    assert await refused(lax, with_public_key) == "unknown_key"


async def test_another_key_is_not_trusted(key: EmbeddedKey, clock: ManualClock, tmp_path: Path) -> None:
    other = EmbeddedKey.open(tmp_path)
    assert await refused(authenticator(key, clock), signed(other, clock)) == "unknown_key"
    other.kid = key.kid
    assert await refused(authenticator(key, clock), signed(other, clock)) == "signature"


@pytest.mark.parametrize(
    "token", ["", "a", "a.b", "a.b.c", "ä.b.c", "\0", "x" * 1_000_000, ".".join(["e30"] * 3), "W10.e30.e30"],
    ids=lambda token: repr(token[:9]),
)  # fmt: skip
async def test_what_is_not_a_token_is_refused(key: EmbeddedKey, clock: ManualClock, token: str) -> None:
    with pytest.raises(Unauthorized):
        await authenticator(key, clock).authenticate(token)


async def test_a_critical_extension_is_refused(key: EmbeddedKey, clock: ManualClock) -> None:
    claims = {"sub": "bob", "exp": 4_000_000_000}
    token = jwt.encode(claims, key._key, algorithm="RS256", headers={"kid": key.kid, "crit": ["x"], "x": 1})
    assert await refused(authenticator(key, clock), token) in ("critical", "invalid_token")


def test_the_key_is_private_and_stays(tmp_path: Path) -> None:
    first, second = EmbeddedKey.open(tmp_path), EmbeddedKey.open(tmp_path)
    assert first.kid == second.kid
    assert key_file(tmp_path, SIGNING_KEY).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / KEYS).iterdir()) == ["keys.lock", SIGNING_KEY]


def test_one_key_is_made_by_many_at_once_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every file system has them: FAT, CIFS, and what some virtual machines share."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    together = threading.Barrier(8)

    def keep(content: bytes) -> bytes:
        together.wait()
        return kept_secret(tmp_path / "secret", lambda: content)

    with ThreadPoolExecutor(8) as threads:
        kept = set(threads.map(keep, [bytes([number]) for number in range(8)]))
    assert kept == {(tmp_path / "secret").read_bytes()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.lock", "secret"]
