"""``router token check`` judges as the services do, says why, and keeps the token to itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from router.auth.embedded import ISSUER, EmbeddedKey
from router.cli.exits import Code
from router.clock import MICROSECONDS, SystemClock
from tests.cli.conftest import ALICE, BOB, Router
from tests.support.identity import Identity, identity_service
from tests.support.service import Router as Service

LEEWAY_SECONDS = 30
"""``auth.leeway_seconds`` unless configured."""


def _now() -> int:
    return SystemClock().now() // MICROSECONDS


def _signed(key: EmbeddedKey, claims: Mapping[str, object], kid: str | None = None) -> str:
    good = {"iss": ISSUER, "sub": BOB, "iat": _now(), "exp": _now() + 3600}
    return jwt.encode({**good, **claims}, key._key, algorithm="RS256", headers={"kid": kid or key.kid})


def _verdict(router: Router, token: str, **environ: str) -> Any:
    ended = router("token", "check", token, "--json", **environ)
    verdict = json.loads(ended.stdout)
    assert ended.returncode == (Code.OK if verdict["accepted"] else Code.DENIED)
    return verdict


def _tokens(key: EmbeddedKey, stranger: EmbeddedKey) -> dict[str, str]:
    """By the reason for which the router refuses it; ``""``: it does not."""
    head, body, _ = _signed(key, {}).split(".")
    return {
        "": _signed(key, {"handle": ALICE}),
        "expired": _signed(key, {"exp": _now() - LEEWAY_SECONDS - 60}),
        "not_yet_valid": _signed(key, {"nbf": _now() + 3600}),
        "subject": _signed(key, {"sub": 7}),
        "claims": _signed(key, {"exp": True}),
        "unknown_key": _signed(stranger, {}),
        "signature": f"{head}.{body}.{_signed(stranger, {}).split('.')[2]}",
        "algorithm": jwt.encode({"sub": BOB}, "secret" * 8, algorithm="HS256"),
        "invalid_token": "not-a-token",
    }


def test_it_judges_each_token_as_the_services_do(tmp_path: Path, router: Router, data_dir: Path) -> None:
    service = Service(data_dir)
    with service.running():
        tokens = _tokens(EmbeddedKey.open(data_dir), EmbeddedKey.open(tmp_path / "stranger"))
        for reason, token in tokens.items():
            answer = httpx.get(f"{service.url}/api/messages", headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == (401 if reason else 200), reason
            verdict = _verdict(router, token)
            assert (verdict["reason"] or "") == reason
            assert verdict["why"] == (answer.json()["detail"] if reason else None)
            assert verdict["accepted"] == (not reason)


def test_what_an_accepted_token_is(router: Router, data_dir: Path) -> None:
    key = EmbeddedKey.open(data_dir)
    expires = _now() + 3600
    verdict = _verdict(router, _signed(key, {"handle": ALICE, "exp": expires}))
    assert verdict["user"] == ALICE
    assert verdict["key"] == {"kid": key.kid, "algorithm": "RS256"}
    assert verdict["trusted_keys"] == [verdict["key"]]
    assert verdict["claims"]["sub"] == BOB
    assert verdict["header"]["kid"] == key.kid
    assert 3600 < verdict["remaining_seconds"] <= 3600 + LEEWAY_SECONDS
    shown = router("token", "check", _signed(key, {}))
    assert f"accepted: it is {BOB} until " in shown.stdout
    assert f"signed by the key {key.kid} (RS256)" in shown.stdout


def test_a_refused_one_is_shown_with_the_keys_that_would_do(tmp_path: Path, router: Router, data_dir: Path) -> None:
    key, stranger = EmbeddedKey.open(data_dir), EmbeddedKey.open(tmp_path / "stranger")
    shown = router("token", "check", _signed(stranger, {"device": "\x1b[2Jphone"}))
    assert shown.returncode == Code.DENIED
    assert "refused (unknown_key): the token is not signed by a trusted key" in shown.stdout
    assert key.kid in shown.stdout
    assert stranger.kid in shown.stdout
    assert "\x1b" not in shown.stdout
    assert r"\u001b[2Jphone" in shown.stdout


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Identity]:
    with identity_service(tmp_path / "identity") as identity:
        yield identity


def test_the_keys_of_an_identity_service(router: Router, identity: Identity) -> None:
    configured = {"ROUTER_AUTH__IDENTITY_SERVICE_URL": identity.url, "ROUTER_AUTH__AUDIENCE": "router"}
    accepted = _verdict(router, _signed(identity.key, {"aud": "router"}), **configured)
    assert (accepted["user"], accepted["key"]["kid"]) == (BOB, identity.key.kid)
    assert _verdict(router, identity.token(BOB), **configured)["reason"] == "claims"
    assert _verdict(router, _signed(identity.key, {"aud": "other"}), **configured)["reason"] == "audience"
    identity.documents["/jwks"] = {"keys": []}
    ended = router("token", "check", identity.token(BOB), **configured)
    assert (ended.returncode, ended.stderr) == (Code.DENIED, f"looking at the keys of {identity.url}\n")
    assert "Trusted keys: none" in ended.stdout


def test_an_identity_service_that_is_down_refuses_nothing(router: Router, identity: Identity) -> None:
    identity.statuses["/jwks"] = 500
    ended = router("token", "check", identity.token(BOB), ROUTER_AUTH__JWKS_URL=f"{identity.url}/jwks")
    assert (ended.returncode, ended.stdout) == (Code.UNAVAILABLE, "")
    assert "no key of the identity service is known yet: the key set cannot be fetched: status 500" in ended.stderr


def test_it_makes_no_key_where_there_is_none(router: Router, data_dir: Path) -> None:
    ended = router("token", "check", "a.b.c")
    assert (ended.returncode, ended.stdout) == (Code.CONFIG, "")
    assert ended.stderr.startswith(f"error: there is no {data_dir}/keys/token-key.pem, so no router has signed")
    assert not data_dir.exists()


def test_the_token_may_come_from_standard_input_and_goes_nowhere(tmp_path: Path) -> None:
    service = Service(tmp_path / "data", {"ROUTER_SERVER__LOG_LEVEL": "debug"})
    token = service.token("bob")
    for given in (token, token[:-4] + "AAAA"):
        ended = service.command("token", "check", "-", "--json", stdin=f" {given}\n".encode())
        assert ended.returncode == (Code.OK if given == token else Code.DENIED)
        for part in given.split("."):
            assert part.encode() not in ended.stdout + ended.stderr
    assert service.command("token", "check", "-", stdin=b"\xff\x00").returncode == Code.DENIED


def test_a_user_may_have_the_name_of_the_command(router: Router) -> None:
    token = router("token", "urn:sm:user:check").stdout.strip()
    assert _verdict(router, token)["user"] == "urn:sm:user:check"
    assert router("token", "check").returncode == Code.USAGE
