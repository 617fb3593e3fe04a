"""An identity service that says whatever a test likes, over real HTTP."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, Router

from router.auth.embedded import EmbeddedKey
from router.factory import OwnedTasks
from tests.support.clock import ManualClock
from tests.support.edge import server as serving

STRANGE_KEYS = [{"kty": "strange"}, {"kty": "oct", "k": "AQID", "alg": "HS256"}]
"""For somebody else."""


class IdentityService:
    """Serves whatever keys it has, and counts."""

    def __init__(self) -> None:
        self.keys: list[EmbeddedKey] = []
        self.kid: str | None = None
        """Of all keys, where they do not have their own."""
        self.down = False
        self.compressed = False
        self.document: Any = None
        """What it serves instead of a key set of its keys."""
        self.status = 200
        self.discovered: dict[str, Any] = {}
        """What its discovery document has besides, or instead."""
        self.fetches = 0
        self.url = ""

    async def discovery(self, request: Request) -> Response:
        del request
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **self.discovered})

    async def jwks(self, request: Request) -> Response:
        del request
        self.fetches += 1
        if self.down:
            return Response(status_code=500)
        if self.document is not None:
            return JSONResponse(self.document, self.status)
        documents = [jwt.algorithms.RSAAlgorithm.to_jwk(key._key.public_key(), as_dict=True) for key in self.keys]
        keys = [
            {**document, "kid": self.kid or key.kid, "alg": "RS256"}
            for document, key in zip(documents, self.keys, strict=True)
        ]
        document = JSONResponse({"keys": [*STRANGE_KEYS, *keys]})
        if not self.compressed:
            return document
        return Response(gzip.compress(bytes(document.body)), headers={"content-encoding": "gzip"})

    async def moved(self, request: Request) -> Response:
        del request
        return RedirectResponse(f"{self.url}/jwks")


@pytest.fixture
async def service(anyio_backend: str) -> AsyncIterator[IdentityService]:
    del anyio_backend
    service = IdentityService()
    routes = [
        Route("/.well-known/oauth-authorization-server", service.discovery),
        Route("/jwks", service.jwks),
        Route("/moved", service.moved),
    ]
    async with serving(Router(routes)) as identity:
        service.url = f"http://127.0.0.1:{identity.port}"
        yield service


@pytest.fixture
async def tasks(anyio_backend: str) -> AsyncIterator[OwnedTasks]:
    del anyio_backend
    failures: list[BaseException] = []
    tasks = OwnedTasks(lambda _, error: failures.append(error))
    yield tasks
    await tasks.cancel()
    assert failures == []


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[EmbeddedKey]:
    return [EmbeddedKey.open(tmp_path_factory.mktemp("key")) for _ in range(2)]


def token(key: EmbeddedKey, clock: ManualClock, user: str = "bob") -> str:
    return key.sign(user, clock.now(), 600)
