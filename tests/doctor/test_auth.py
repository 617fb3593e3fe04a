"""Whom the router trusts, asked of a real identity service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.auth.embedded import EmbeddedKey
from router.config import Auth, Config, Embedded, Server
from router.data_dir import SIGNING_KEY, key_file
from router.doctor import auth
from router.errors import Unavailable
from router.findings import Finding, Severity
from tests.support.identity import Identity, identity_service

pytestmark = pytest.mark.anyio


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Identity]:
    with identity_service(tmp_path / "identity") as identity:
        yield identity


async def look(config: Config) -> dict[str, Finding]:
    return {finding.check: finding async for finding in auth.look(config)}


def trusting(identity: Identity, **more: object) -> Config:
    settings = {"identity_service_url": identity.url, "issuer": identity.url, "audience": "router", **more}
    return Config(auth=Auth.model_validate(settings))


async def test_usable_keys_are_fine(identity: Identity) -> None:
    found = await look(trusting(identity))
    assert [f.severity for f in found.values()] == [Severity.FINE]
    assert found["auth.keys"].found == "1 usable key: RS256 by 1"


async def test_what_is_pinned_and_has_no_key(identity: Identity) -> None:
    found = await look(trusting(identity, algorithms=["RS256", "ES256"]))
    assert found["auth.algorithms"].found == "the key set has no key for ES256"


@pytest.mark.parametrize("other", [{"alg": "RS512"}, {"use": "enc"}, None], ids=str)
async def test_a_set_without_a_key_that_is_allowed(identity: Identity, other: dict[str, object] | None) -> None:
    """RACES 50: to the router, all keys are withdrawn."""
    keys = [] if other is None else [identity.published(identity.key, **other)]
    identity.documents["/jwks"] = {"keys": keys}
    found = (await look(trusting(identity)))["auth.keys"]
    assert (found.severity, found.found) == (Severity.ERROR, "the key set has no key for RS256")


async def test_a_discovery_document_of_another_issuer(identity: Identity) -> None:
    """RFC 8414, section 3.3: keys of a document that is another's are not taken."""
    identity.documents = {path: {**document, "issuer": "x"} for path, document in identity.documents.items()}
    with pytest.raises(Unavailable, match="is of the issuer 'x', not of 'http:"):
        await look(trusting(identity))


async def test_whose_tokens_are_believed(identity: Identity) -> None:
    found = await look(trusting(identity, issuer=None, audience=None))
    assert [check for check, f in found.items() if f.severity is Severity.WARNING] == ["auth.audience", "auth.issuer"]
    far = list(auth.rules(Auth(jwks_url="http://id.example.com/jwks", issuer="i", audience="a")))
    assert [f.check for f in far] == ["auth.jwks_url"]


async def test_the_embedded_key(tmp_path: Path) -> None:
    mine = Config(embedded=Embedded(data_dir=tmp_path))
    assert auth.embedded(mine).severity is Severity.NOTE
    EmbeddedKey.open(tmp_path)
    key_file(tmp_path, SIGNING_KEY).chmod(0o644)
    assert auth.embedded(mine).severity is Severity.WARNING
    for config in (
        mine.model_copy(update={"server": Server(host="0.0.0.0")}),
        mine.model_copy(update={"auth": Auth(algorithms=["ES256"])}),
    ):
        assert auth.embedded(config).severity is Severity.ERROR
