"""RACES 50: keys that an identity service withdraws, and answers of which it is to be told whether they do."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from structlog.testing import capture_logs

from router.auth.authenticator import open_authenticator
from router.auth.embedded import EmbeddedKey
from router.auth.jwks import FETCH_SECONDS
from router.auth.verifier import Authenticator
from router.config import Auth, Config
from router.errors import Unauthorized, Unavailable
from router.factory import OwnedTasks
from tests.auth.conftest import IdentityService, token
from tests.support.clock import ManualClock
from tests.support.edge import eventually

pytestmark = pytest.mark.anyio
REMEMBER_SECONDS = Auth().remember_seconds


class Trust:
    """An authenticator, and the identity service that it asks."""

    def __init__(self, service: IdentityService, clock: ManualClock, authenticator: Authenticator) -> None:
        self.service = service
        self.clock = clock
        self.authenticator = authenticator

    async def user(self, token: str) -> str:
        """Whom the token names, or why it is refused."""
        try:
            return (await self.authenticator.authenticate(token)).user.removeprefix("urn:sm:user:")
        except Unauthorized as error:
            return error.reason

    async def ask(self) -> None:
        """Let time pass until the identity service has been asked in the background."""
        await eventually(lambda: self.clock.sleepers > 0)
        while self.clock.sleepers:
            self.clock.advance(1)
        await eventually(lambda: self.clock.sleepers > 0)


@asynccontextmanager
async def trusting(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], **rules: Any
) -> AsyncIterator[Trust]:
    service.keys, clock = list(keys), ManualClock()
    auth = Auth.model_validate({"jwks_url": f"{service.url}/jwks", **rules})
    async with open_authenticator(Config(auth=auth), clock, tasks, random.Random(1)) as authenticator:
        yield Trust(service, clock, authenticator)


def document(key: EmbeddedKey, **other: Any) -> dict[str, Any]:
    public = jwt.algorithms.RSAAlgorithm.to_jwk(key._key.public_key(), as_dict=True)
    return {**public, "kid": key.kid, **other}


async def test_a_withdrawn_key_opens_nothing_whether_or_not_its_tokens_are_remembered(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    old, new = keys
    async with trusting(service, tasks, [old]) as trust:
        seen, unseen = token(old, trust.clock, "seen"), token(old, trust.clock, "unseen")
        assert await trust.user(seen) == "seen"
        (key,) = {(await trust.authenticator.authenticate(seen)).key}
        assert trust.authenticator.trusts(key)
        service.keys = [new]
        with capture_logs() as logged:
            await trust.ask()
        assert [await trust.user(seen), await trust.user(unseen)] == ["unknown_key"] * 2
        assert await trust.user(token(new, trust.clock, "ann")) == "ann"
        assert not trust.authenticator.trusts(key)
    assert [(line["event"], line["withdrawn"], line["new"]) for line in logged] == [
        ("the identity service has other keys", 1, 1)
    ]


async def test_a_key_that_stays_keeps_its_tokens(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    """And a refresh that brings nothing new says nothing."""
    async with trusting(service, tasks, keys) as trust:
        seen = token(keys[0], trust.clock)
        assert await trust.user(seen) == "bob"
        service.keys = list(reversed(keys))
        with capture_logs() as logged:
            await trust.ask()
            assert await trust.user(seen) == "bob"
    assert logged == []


NOTHING_ALLOWED: dict[str, Any] = {
    "an empty set": {"keys": []},
    "another algorithm": {"alg": "RS512"},
    "for encryption": {"use": "enc"},
    "private": {"d": "AQAB"},
    "a strange type": {"kty": "strange"},
    "no modulus": {"n": None},
    "garbage for entries": {"keys": [5, None, "x", [], {}]},
}


@pytest.mark.parametrize("answer", NOTHING_ALLOWED.values(), ids=NOTHING_ALLOWED)
async def test_a_set_without_a_key_that_is_allowed_is_an_answer(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], answer: dict[str, Any]
) -> None:
    (key, _) = keys
    async with trusting(service, tasks, [key]) as trust:
        seen, unseen = token(key, trust.clock, "seen"), token(key, trust.clock, "unseen")
        assert await trust.user(seen) == "seen"
        service.document = answer if "keys" in answer else {"keys": [document(key, **answer)]}
        with capture_logs() as logged:
            await trust.ask()
            await trust.ask()
            assert [await trust.user(seen), await trust.user(unseen)] == ["unknown_key"] * 2
            await trust.authenticator.probe()
            service.document = None
            await trust.ask()
            assert await trust.user(token(key, trust.clock, "seen")) == "seen"
    assert [line["event"] for line in logged] == [
        "the identity service has no key that auth.algorithms allows: every token is rejected",
        "the identity service has other keys",
    ]


OUTAGES: dict[str, tuple[Any, int]] = {
    "400": ({"keys": []}, 400),
    "404": ({"keys": []}, 404),
    "410": ({"error": "gone"}, 410),
    "500": ({"keys": []}, 500),
    "503": ({"keys": []}, 503),
    "no object": ([], 200),
    "no keys": ({}, 200),
    "no list": ({"keys": {}}, 200),
    "null": ({"keys": None}, 200),
}


@pytest.mark.parametrize("answer", OUTAGES.values(), ids=OUTAGES)
async def test_what_is_no_key_set_logs_nobody_out(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], answer: tuple[Any, int]
) -> None:
    """RACES 50: 410 too: whatever stands in front of an identity service can say so."""
    (key, _) = keys
    async with trusting(service, tasks, [key]) as trust:
        seen, unseen = token(key, trust.clock, "seen"), token(key, trust.clock, "unseen")
        assert await trust.user(seen) == "seen"
        service.document, service.status = answer
        with capture_logs() as logged:
            await trust.ask()
        assert [await trust.user(seen), await trust.user(unseen)] == ["seen", "unseen"]
    assert logged[0]["event"] == "the identity service gave no keys"


async def test_a_process_that_starts_with_an_empty_set_refuses_and_is_not_ready(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    """Clients hear 401, since it is an answer; it is not ready, since it never had a key: a mistake in the settings."""
    async with trusting(service, tasks, []) as trust:
        assert await trust.user(token(keys[0], trust.clock)) == "unknown_key"
        with pytest.raises(Unavailable, match="it has none for RS256"):
            await trust.authenticator.probe()


async def test_a_verified_token_is_verified_again_after_a_while(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[str] = []
    decode = jwt.decode

    def counted(token: str, *arguments: Any, **options: Any) -> Any:
        verified.append(token)
        return decode(token, *arguments, **options)

    async with trusting(service, tasks, keys[:1], remember_seconds=60) as trust:
        seen = token(keys[0], trust.clock)
        monkeypatch.setattr(jwt, "decode", counted)
        for seconds, times in ((0, 1), (59, 1), (1, 2), (59, 2), (1, 3)):
            trust.clock.advance(seconds)
            assert await trust.user(seen) == "bob"
            assert len(verified) == times, seconds
        trust.clock.time += 400_000_000  # a step of the wall clock has nothing to do with it
        assert await trust.user(seen) == "bob"
        assert len(verified) == 3


@pytest.mark.parametrize("remember_seconds", [0.5, 6, 60, 300])
async def test_a_withdrawal_is_known_within_the_time_that_tokens_are_remembered(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], remember_seconds: float
) -> None:
    async with trusting(service, tasks, keys[:1], remember_seconds=remember_seconds) as trust:
        source: Any = trust.authenticator._keys
        await trust.user(token(keys[0], trust.clock))
        pauses = [source._pause() for _ in range(1000)]
        assert max(pauses) <= max(remember_seconds - FETCH_SECONDS, 1)
        assert min(pauses) >= max(remember_seconds - FETCH_SECONDS, 1) / 2, "and it is not asked all the time"


async def test_a_stale_key_set_is_told_of(service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]) -> None:
    """Once, and its end: what was withdrawn meanwhile nobody can know. Nobody is logged out."""
    async with trusting(service, tasks, keys[:1]) as trust:
        await trust.user(token(keys[0], trust.clock))
        assert trust.authenticator.key_set_age_seconds == 0
        service.down = True
        with capture_logs() as logged:
            while (age := trust.authenticator.key_set_age_seconds) <= 2 * REMEMBER_SECONDS:
                await trust.ask()
            assert await trust.user(token(keys[0], trust.clock)) == "bob"
            service.down = False
            await trust.ask()
            assert trust.authenticator.key_set_age_seconds == 0
    assert [line["event"].partition(":")[0] for line in logged] == [
        "the identity service gave no keys",
        "the key set is stale",
        "the identity service gives keys again",
    ]
    assert logged[2]["key_set_age_seconds"] > age


STRANGE_ISSUERS: dict[str, Any] = {
    "another": "https://evil.example",
    "none": None,
    "number": 5,
    "list": ["{url}"],
    "longer": "{url}/tenant",
    "with a slash": "{url}/",
    "upper case": "{upper}",
}


@pytest.mark.parametrize("issuer", STRANGE_ISSUERS.values(), ids=STRANGE_ISSUERS)
async def test_the_issuer_of_the_discovery_document_is_whom_it_was_asked_of(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], issuer: Any
) -> None:
    """RFC 8414, section 3.3: letter by letter. The keys of another are not taken, those that were known go on."""
    old, new = keys
    if isinstance(issuer, str):
        issuer = issuer.format(url=service.url, upper=service.url.replace("http", "HTTP"))
    async with trusting(service, tasks, [old], jwks_url=None, identity_service_url=service.url) as trust:
        assert await trust.user(token(old, trust.clock)) == "bob"
        service.discovered, service.keys, before = {"issuer": issuer}, [new], service.fetches
        with capture_logs() as logged:
            trust.clock.advance(REMEMBER_SECONDS)
            assert await trust.user(token(new, trust.clock)) == "unknown_key"
            assert await trust.user(token(old, trust.clock, "ann")) == "ann"
        assert service.fetches == before, "the key set is not even asked for"
    assert "issuer" in logged[0]["problem"]
    assert "auth.identity_service_url" in logged[0]["problem"]


@pytest.mark.parametrize("tail", ["", "/"])
async def test_an_issuer_may_end_with_a_slash_and_be_asked_with_a_password(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], tail: str
) -> None:
    service.discovered = {"issuer": service.url + tail}
    url = service.url.replace("//", "//user:secret@") + tail
    async with trusting(service, tasks, keys, jwks_url=None, identity_service_url=url) as trust:
        assert await trust.user(token(keys[0], trust.clock)) == "bob"
