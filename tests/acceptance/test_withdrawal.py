"""A running router, and an identity service that takes back what it said."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from router.auth.embedded import EmbeddedKey
from router.core.connections import TOKEN_EXPIRED
from tests.support.edge import EVENT_SECONDS
from tests.support.identity import Identity, identity_service
from tests.support.service import Router, stop
from tests.support.tracebacks import traceback_in

pytestmark = pytest.mark.anyio
REMEMBER_SECONDS = 1
"""So that the keys are asked for about once a second."""


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[Identity]:
    with identity_service(tmp_path / "identity") as identity:
        yield identity


async def test_withdrawn_keys_end_their_tokens_and_sockets(tmp_path: Path, identity: Identity) -> None:
    """RACES 50: by an empty set, and by one that has only other keys; an outage ends nothing."""
    identity.documents["/jwks"] = {"keys": [identity.published(identity.key)]}
    settings = {
        "ROUTER_AUTH__IDENTITY_SERVICE_URL": identity.url,
        "ROUTER_AUTH__REMEMBER_SECONDS": str(REMEMBER_SECONDS),
    }
    router = Router(tmp_path / "data", settings)
    with router.running() as process:
        async with httpx.AsyncClient(base_url=router.url, timeout=30) as http:
            other = EmbeddedKey.open(tmp_path / "other")
            for withdrawn in ([], [identity.published(other)], [identity.published(identity.key, use="enc")]):
                identity.documents["/jwks"] = {"keys": [identity.published(identity.key)]}
                seen = {"authorization": f"Bearer {identity.token('bob')}"}
                await answers(http, seen, 200)
                async with connect(router.ws_url, additional_headers=seen) as socket:
                    if not withdrawn:
                        await an_outage(router, identity)
                    await answers(http, {"authorization": f"Bearer {identity.token('ann')}"}, 200)
                    identity.documents["/jwks"] = {"keys": withdrawn}
                    async with asyncio.timeout(EVENT_SECONDS):
                        await socket.wait_closed()
                    assert socket.close_code == TOKEN_EXPIRED
                for token in (seen, {"authorization": f"Bearer {identity.token('never seen')}"}):
                    assert (await http.get("/api/messages", headers=token)).status_code == 401
                    with pytest.raises(InvalidStatus, match="401"):
                        async with connect(router.ws_url, additional_headers=token):
                            pass
            assert stop(process) == 0
    assert not traceback_in(router.log())


async def answers(http: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    async with asyncio.timeout(EVENT_SECONDS):
        while (await http.get("/api/messages", headers=headers)).status_code != status:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)


async def an_outage(router: Router, identity: Identity) -> None:
    """The identity service is gone until the router has found out."""
    identity.statuses["/jwks"] = 410
    async with asyncio.timeout(EVENT_SECONDS):
        while router.metric("router_key_set_age_seconds") < 2 * REMEMBER_SECONDS:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.05)
    del identity.statuses["/jwks"]
