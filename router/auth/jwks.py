"""Keys of an identity service: fetched in the background, kept while it is down."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import jwt

from router import proxies
from router.auth import documents
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
WELL_KNOWN = "/.well-known/oauth-authorization-server"  # RFC 8414


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
        self._failures = 0
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
                document = await self._get("the key set", await self._jwks_url())
            self._keys = documents.usable(document, self._rules.algorithms)
            self._work_again()
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError, ConfigError) as error:
            before, self._problem = self._problem, error
            self._failures += 1
            if before is None:
                LOG.warning("the identity service gave no keys", problem=self._why, known_keys=len(self._keys))

    def _work_again(self) -> None:
        if self._problem is not None:
            LOG.warning("the identity service gives keys again", failed_fetches=self._failures)
        self._problem, self._failures = None, 0

    async def _jwks_url(self) -> str:
        if self._rules.jwks_url:
            return self._rules.jwks_url
        service = (self._rules.identity_service_url or "").rstrip("/")
        url = (await self._get("the discovery document", service + WELL_KNOWN)).get("jwks_uri")
        # Plain http is for a service that is itself reached so: on this machine.
        if not isinstance(url, str) or urlsplit(url).scheme not in {"https", urlsplit(service).scheme}:
            raise ValueError("the discovery document names no jwks_uri that can be trusted")
        return url

    async def _get(self, what: str, url: str) -> dict[str, Any]:
        # Not compressed, so that the bound on what is read is one on what it becomes.
        async with self._client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
            if response.is_redirect:
                raise ValueError(f"{what} is at another place, to which no redirect is followed; name that one")
            if not response.is_success:
                raise ValueError(f"{what} cannot be had: status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > documents.MAX_BYTES:
                    raise ValueError(f"the document is larger than {documents.MAX_BYTES} bytes")
        return documents.read(bytes(body), response.headers.get("content-encoding", ""))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
