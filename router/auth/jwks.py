"""Keys of an identity service: fetched in the background, kept while it is down."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from router import proxies
from router.clock import MICROSECONDS, Clock, Tasks
from router.config import Auth
from router.config.sources import masked_url
from router.errors import ConfigError, Unavailable
from router.logs import logger

LOG = logger(__name__)

REFRESH_SECONDS = 300.0
"""The keys are fetched anew after this to twice this."""
RETRY_SECONDS = 5.0
"""The same after a fetch that failed."""
LOOK_AGAIN_SECONDS = 10.0
"""A token that no known key verifies fetches the keys anew only where the last fetch began this long ago
(docs/specification.md#tokens)."""
FETCH_SECONDS = 5.0
"""A fetch, discovery included, has failed after this."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 64
"""Of one key set; a token may have to be tried with each of them."""
WELL_KNOWN = "/.well-known/oauth-authorization-server"  # RFC 8414
PUBLIC_KEY_TYPES = ("RSA", "EC", "OKP")
MIN_RSA_BITS = 2048  # RFC 7518, section 3.3


class JwksKeys:
    """``KeySource`` over a JWKS (RFC 7517), named directly or discovered; an async context manager.

    It opens at once, whether or not the identity service answers; raises ``ConfigError`` where the environment names a
    proxy for it that cannot be used. Keys that were obtained are used until the
    service hands out others.
    """

    def __init__(self, rules: Auth, clock: Clock, tasks: Tasks, chance: random.Random) -> None:
        self._rules = rules
        self._clock = clock
        self._tasks = tasks
        self._chance = chance
        self._keys: list[jwt.PyJWK] = []
        self._problem: Exception | None = None
        self._fetch_task: asyncio.Task[None] | None = None
        self._fetch_began = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for url in filter(None, (self._rules.jwks_url, self._rules.identity_service_url)):
            proxies.for_http(url)
        # A redirect is refused: it could lead to a host that nobody has chosen to trust.
        client = proxies.client(timeout=FETCH_SECONDS, follow_redirects=False)
        self._client = await self._stack.enter_async_context(client)
        self._stack.push_async_callback(self._end_fetch)
        refreshing = self._tasks.spawn(self._refresh(), "jwks refresh")
        self._stack.push_async_callback(_end, refreshing)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def candidates(self, kid: str | None) -> Sequence[jwt.PyJWK]:
        if not self._keys:
            await self.look_again()
        await self.probe()
        return [key for key in self._keys if kid is None or key.key_id == kid]

    async def probe(self) -> None:
        if not self._keys:
            raise Unavailable(f"no key of the identity service is known yet: {self._why}") from self._problem

    @property
    def _why(self) -> str:
        """What went wrong with the last fetch, without what can be a secret in an URL."""
        return masked_url(str(self._problem) or type(self._problem).__name__) if self._problem else "it was not asked"

    async def _refresh(self) -> None:
        while True:
            await asyncio.wait([self._begin_fetch()])
            base = RETRY_SECONDS if self._problem else REFRESH_SECONDS
            await self._clock.sleep(base * (1 + self._chance.random()))

    async def look_again(self) -> bool:
        """Wait for the fetch under way, or for a new one where that is due; a flood makes no more of them."""
        known = self._keys
        since = self._clock.now() - self._fetch_began
        if self._fetching or not 0 <= since < LOOK_AGAIN_SECONDS * MICROSECONDS:
            # Waiting leaves the fetch alone when this caller is cancelled; the others want it too.
            await asyncio.wait([self._begin_fetch()])
        return self._keys is not known

    @property
    def _fetching(self) -> bool:
        return self._fetch_task is not None and not self._fetch_task.done()

    def _begin_fetch(self) -> asyncio.Task[None]:
        """The one fetch that is under way."""
        if self._fetch_task is None or self._fetch_task.done():
            self._fetch_began = self._clock.now()
            self._fetch_task = self._tasks.spawn(self._fetch(), "jwks fetch")
        return self._fetch_task

    async def _end_fetch(self) -> None:
        if self._fetch_task is not None:
            await _end(self._fetch_task)

    async def _fetch(self) -> None:
        """Replace the keys by what the service has now; keep them where it does not answer sensibly."""
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = await self._get(await self._jwks_url())
            self._keys = _usable(document, self._rules.algorithms)
            self._problem = None
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError, ConfigError) as error:
            self._problem = error
            LOG.warning("the identity service gave no keys", problem=self._why, known_keys=len(self._keys))

    async def _jwks_url(self) -> str:
        if self._rules.jwks_url:
            return self._rules.jwks_url
        service = (self._rules.identity_service_url or "").rstrip("/")
        url = (await self._get(service + WELL_KNOWN)).get("jwks_uri")
        # Plain http is for a service that is itself reached so: on this machine.
        if not isinstance(url, str) or urlsplit(url).scheme not in {"https", urlsplit(service).scheme}:
            raise ValueError("the discovery document names no jwks_uri that can be trusted")
        return url

    async def _get(self, url: str) -> dict[str, Any]:
        # Not compressed, so that the bound on what is read is one on what it becomes.
        async with self._client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"the document is larger than {MAX_BYTES} bytes")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("the document is no JSON object")  # noqa: TRY004 - wrong content, not a wrong call
        return document


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _usable(document: dict[str, Any], algorithms: Sequence[str]) -> list[jwt.PyJWK]:
    """The keys that verify one of ``algorithms``, each once per algorithm; ``ValueError`` where there is none."""
    listed = document.get("keys")
    listed = listed if isinstance(listed, list) else []
    if len(listed) > MAX_KEYS:
        LOG.warning("the identity service has more keys than are read", keys=len(listed), read=MAX_KEYS)
    entries = [entry for entry in listed[:MAX_KEYS] if isinstance(entry, dict)]
    keys = [key for entry in entries for key in _verifying(entry, algorithms)]
    if not keys:
        raise ValueError(f"the key set holds no key for {', '.join(algorithms)}")
    return keys


def _verifying(entry: dict[str, Any], algorithms: Sequence[str]) -> Iterator[jwt.PyJWK]:
    # A secret in a public document, shared or private, proves nothing (RFC 8725, section 3.1).
    if entry.get("kty") not in PUBLIC_KEY_TYPES or "d" in entry or entry.get("use", "sig") != "sig":
        return
    for algorithm in algorithms:
        # A key that names no algorithm serves all that fit its type (RFC 7517, section 4.4).
        if entry.get("alg", algorithm) != algorithm:
            continue
        try:
            key = jwt.PyJWK(entry, algorithm)
            key.Algorithm.prepare_key(key.key)
        except (jwt.PyJWTError, NotImplementedError, TypeError, ValueError, AttributeError):
            # A key of a kind that is not known here is for somebody else.
            continue
        if not isinstance(key.key, RSAPublicKey) or key.key.key_size >= MIN_RSA_BITS:
            yield key
