"""Keys of an identity service: fetched in the background, kept while it is down."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from router.clock import MICROSECONDS, Clock
from router.config import Auth
from router.errors import Unavailable

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 5.0
UNKNOWN_KID_SECONDS = 10.0
"""An unknown ``kid`` fetches the keys anew at most this often."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 64
WELL_KNOWN = "/.well-known/oauth-authorization-server"  # RFC 8414


class JwksKeys:
    """``KeySource`` over a JWKS (RFC 7517), named directly or discovered."""

    def __init__(self, rules: Auth, client: httpx.AsyncClient, clock: Clock, chance: random.Random) -> None:
        self._rules = rules
        self._client = client
        self._clock = clock
        self._chance = chance
        self._keys: list[jwt.PyJWK] = []
        self._fetched_at = 0
        self._fetching = asyncio.Lock()

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self._refresh()
            period = REFRESH_SECONDS if self._keys else RETRY_SECONDS
            await self._clock.sleep(period * (0.75 + self._chance.random() / 2))

    async def candidates(self, kid: str | None) -> Sequence[jwt.PyJWK]:
        found = self._matching(kid)
        if not found and await self._refresh_for_unknown():
            found = self._matching(kid)
        if not self._keys:
            raise Unavailable("no key of the identity service is known yet")
        return found

    async def probe(self) -> None:
        if not self._keys:
            raise Unavailable("no key of the identity service is known yet")

    def _matching(self, kid: str | None) -> list[jwt.PyJWK]:
        return [key for key in self._keys if kid is None or key.key_id == kid]

    async def _refresh_for_unknown(self) -> bool:
        async with self._fetching:
            if self._clock.now() - self._fetched_at < UNKNOWN_KID_SECONDS * MICROSECONDS:
                # Either another request has just fetched them, or somebody is flooding us.
                return True
            await self._fetch()
            return True

    async def _refresh(self) -> None:
        async with self._fetching:
            await self._fetch()

    async def _fetch(self) -> None:
        """Replace the keys by what the service has now; keep them where it does not answer sensibly."""
        self._fetched_at = self._clock.now()
        try:
            keys = _usable(await self._get(await self._jwks_url()))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError):
            return
        if keys:
            self._keys = keys

    async def _jwks_url(self) -> str:
        if self._rules.jwks_url:
            return self._rules.jwks_url
        service = (self._rules.identity_service_url or "").rstrip("/")
        url = (await self._get(service + WELL_KNOWN)).get("jwks_uri")
        allowed = {"https", urlsplit(service).scheme}
        if not isinstance(url, str) or urlsplit(url).scheme not in allowed:
            raise ValueError("the discovery document names no jwks_uri that can be trusted")
        return url

    async def _get(self, url: str) -> dict[str, Any]:
        async with self._client.stream("GET", url) as response:
            response.raise_for_status()
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("the document is too large")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("the document is no JSON object")  # noqa: TRY004 - wrong content, not a wrong call
        return document


def _usable(document: dict[str, Any]) -> list[jwt.PyJWK]:
    keys = []
    listed = document.get("keys")
    for entry in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, TypeError, ValueError, AttributeError):
            # A key of a kind that is not known here is for somebody else.
            continue
        # A shared secret in a public document verifies nothing (RFC 8725, section 3.1).
        if entry.get("kty") != "oct":
            keys.append(key)
    return keys
