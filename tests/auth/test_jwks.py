"""Keys of an identity service, which is a real HTTP server here."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import jwt
import pytest
from structlog.testing import capture_logs

from router.auth.authenticator import open_authenticator
from router.auth.documents import MAX_KEYS
from router.auth.embedded import EmbeddedKey
from router.auth.jwks import LOOK_AGAIN_SECONDS
from router.config import Auth, Config, Embedded
from router.errors import ConfigError, Unauthorized, Unavailable
from router.factory import OwnedTasks
from tests.auth.conftest import STRANGE_KEYS, IdentityService, token
from tests.support.clock import ManualClock

pytestmark = pytest.mark.anyio


async def test_discovery_rotation_and_a_flood(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], tmp_path: Path
) -> None:
    """RACES 38: an unknown kid fetches the keys once in ten seconds, however many ask."""
    clock, (old, new) = ManualClock(), keys
    service.keys = [old]
    config = Config(auth=Auth(identity_service_url=service.url))
    async with open_authenticator(config, clock, tasks, random.Random(1)) as authenticator:
        assert (await authenticator.authenticate(token(old, clock))).user == "urn:sm:user:bob"
        service.keys = [old, new]
        before = service.fetches
        strange = EmbeddedKey.open(tmp_path)

        async def knock(number: int) -> None:
            with pytest.raises(Unauthorized):
                await authenticator.authenticate(token(strange, clock, f"u{number}"))

        await asyncio.gather(*(knock(number) for number in range(50)))
        assert service.fetches == before
        clock.advance(LOOK_AGAIN_SECONDS)
        await asyncio.gather(*(knock(number) for number in range(50)))
        assert service.fetches == before + 1
        assert (await authenticator.authenticate(token(new, clock))).user == "urn:sm:user:bob"


@pytest.mark.parametrize("named", [False, True])
async def test_a_key_whose_kid_is_not_new_is_found_too(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey], tmp_path: Path, named: bool
) -> None:
    """Its tokens are verified by no known key; strangers' tokens do not fetch more often for it."""
    clock, (old, new), strange = ManualClock(), keys, EmbeddedKey.open(tmp_path)
    service.kid = "the-only" if named else None
    service.keys = [old]

    async def knock(key: EmbeddedKey, user: str) -> str:
        claims = {"sub": user, "exp": clock.now() // 1_000_000 + 60}
        headers = {"kid": service.kid} if service.kid else {}
        signed = jwt.encode(claims, key._key, algorithm="RS256", headers=headers)
        try:
            return (await authenticator.authenticate(signed)).user
        except Unauthorized as error:
            return error.reason

    async def flood() -> None:
        assert await asyncio.gather(*(knock(strange, f"u{number}") for number in range(50))) == ["signature"] * 50

    async with open_authenticator(
        Config(auth=Auth(jwks_url=f"{service.url}/jwks")), clock, tasks, random.Random(1)
    ) as authenticator:
        assert await knock(old, "ann") == "urn:sm:user:ann"
        service.keys, before = [new], service.fetches
        await flood()
        assert await knock(new, "bob") == "signature"
        assert service.fetches == before
        clock.advance(LOOK_AGAIN_SECONDS)
        assert await knock(new, "bob") == "urn:sm:user:bob"
        assert service.fetches == before + 1
        clock.advance(LOOK_AGAIN_SECONDS)
        await flood()
        assert service.fetches == before + 2


async def test_an_identity_service_that_is_down_logs_nobody_out(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    clock, (key, _) = ManualClock(), keys
    service.keys = [key]
    config = Config(auth=Auth(jwks_url=f"{service.url}/jwks"))
    async with open_authenticator(config, clock, tasks, random.Random(1)) as authenticator:
        await authenticator.authenticate(token(key, clock))
        service.down, before = True, service.fetches
        async with asyncio.timeout(60):
            while service.fetches == before:
                clock.advance(config.auth.remember_seconds)
                await asyncio.sleep(0)
        await authenticator.authenticate(token(key, clock, "somebody-new"))


async def test_keys_that_are_not_read_are_said(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    """Nobody else could tell why a token of theirs is refused."""
    clock, (read, beyond) = ManualClock(), keys
    service.keys = [read] * (MAX_KEYS - len(STRANGE_KEYS)) + [beyond]
    config = Config(auth=Auth(jwks_url=f"{service.url}/jwks"))
    with capture_logs() as logged:
        async with open_authenticator(config, clock, tasks, random.Random(1)) as authenticator:
            await authenticator.authenticate(token(read, clock))
            with pytest.raises(Unauthorized):
                await authenticator.authenticate(token(beyond, clock))
    assert [(entry["log_level"], entry["keys"], entry["read"]) for entry in logged] == [
        ("warning", MAX_KEYS + 1, MAX_KEYS)
    ]


async def test_an_outage_of_the_identity_service_has_a_line_at_its_begin_and_one_at_its_end(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    clock, (known, unknown) = ManualClock(), keys
    service.keys = [known]
    config = Config(auth=Auth(jwks_url=f"{service.url}/jwks"))
    with capture_logs() as logged:
        async with open_authenticator(config, clock, tasks, random.Random(1)) as authenticator:
            for service.down in (False, True, True, True, False, False):
                clock.advance(LOOK_AGAIN_SECONDS)
                with pytest.raises(Unauthorized):
                    await authenticator.authenticate(token(unknown, clock))
    assert [entry["event"] for entry in logged] == [
        "the identity service gave no keys",
        "the identity service gives keys again",
    ]
    assert logged[1]["failed_fetches"] == 3


async def test_without_any_key_it_is_unavailable_not_unauthorized(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    """And the log says why, without what may be a secret in the URL."""
    service.down = True
    url = service.url.replace("//", "//user:secret@")
    config = Config(auth=Auth(jwks_url=f"{url}/jwks?key=secret"))
    with capture_logs() as logged:
        async with open_authenticator(config, ManualClock(), tasks, random.Random(1)) as authenticator:
            with pytest.raises(Unavailable, match="500"):
                await authenticator.authenticate(token(keys[0], ManualClock()))
            with pytest.raises(Unavailable):
                await authenticator.probe()
    assert logged[0]["log_level"] == "warning"
    assert "500" in logged[0]["problem"]
    assert "secret" not in str(logged)


async def test_a_key_set_that_comes_compressed(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    """Nobody asked for it; what serves files does it all the same."""
    clock = ManualClock()
    service.keys, service.compressed = [keys[0]], True
    config = Config(auth=Auth(jwks_url=f"{service.url}/jwks"))
    async with open_authenticator(config, clock, tasks, random.Random(1)) as authenticator:
        await authenticator.authenticate(token(keys[0], clock))


async def test_a_redirect_is_told_and_not_followed(
    service: IdentityService, tasks: OwnedTasks, keys: list[EmbeddedKey]
) -> None:
    config = Config(auth=Auth(jwks_url=f"{service.url}/moved?key=secret"))
    with capture_logs() as logged:
        async with open_authenticator(config, ManualClock(), tasks, random.Random(1)) as authenticator:
            with pytest.raises(Unavailable, match="the router follows no redirects"):
                await authenticator.authenticate(token(keys[0], ManualClock()))
    assert "secret" not in str(logged)
    assert service.fetches == 0


async def test_the_embedded_identity_signs_with_one_algorithm(tasks: OwnedTasks, tmp_path: Path) -> None:
    config = Config(auth=Auth(algorithms=["ES256"]), embedded=Embedded(data_dir=tmp_path))
    with pytest.raises(ConfigError, match="RS256"):
        async with open_authenticator(config, ManualClock(), tasks, random.Random(1)):
            pass
