"""Keys of an identity service: fetched in the background, kept while it is down."""

from __future__ import annotations

import asyncio
import math
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
from router.clock import Clock, Tasks
from router.config import Auth
from router.config.sources import masked_url
from router.errors import ConfigError, Unavailable
from router.logs import logger

LOG = logger(__name__)

RETRY_SECONDS = 5.0
"""After a fetch that failed, the next one follows after this time to twice this time."""
LOOK_AGAIN_SECONDS = 10.0
"""A token that no known key verifies causes a fetch of the keys only if the last fetch began this long ago
(docs/specification.md#tokens)."""
FETCH_SECONDS = 5.0
"""A fetch, discovery included, has failed after this."""
MIN_REFRESH_SECONDS = 1.0
"""However short ``auth.remember_seconds`` is, the identity service is asked no more often than this."""
WELL_KNOWN = "/.well-known/oauth-authorization-server"  # RFC 8414


class JwksKeys:
    """``KeySource`` over a JWKS (RFC 7517), named directly or discovered; an async context manager.

    It opens at once, whether or not the identity service answers; raises ``ConfigError`` where the environment names a
    proxy for it that cannot be used. There are three answers to a fetch:

    1. A key set with keys that are allowed: these are the keys from now on, and no others.
    2. A key set without any, be it empty: an answer too. All keys are withdrawn.
    3. No key set: an error status (404 and 410 too: whatever stands in front can say so), a document that is none, or
       nothing in time. An outage: the keys that were obtained go on, and grow stale.
    """

    def __init__(self, rules: Auth, clock: Clock, tasks: Tasks, chance: random.Random) -> None:
        self._rules = rules
        self._clock = clock
        self._tasks = tasks
        self._chance = chance
        self._keys: list[jwt.PyJWK] | None = None
        """``None`` until there was a first answer."""
        self._marks: frozenset[bytes] = frozenset()
        self._answered_at = clock.monotonic()
        """When the last answer came; before the first one, when this began."""
        self._had_keys = False
        self._stale = False
        self._problem: Exception | None = None
        self._failures = 0
        self._fetch_task: asyncio.Task[None] | None = None
        self._fetch_began = -math.inf
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
        if self._keys is None:
            await self.look_again()
        if self._keys is None:
            raise self._unknown()
        return [key for key in self._keys if kid is None or key.key_id == kid]

    def trusts(self, key: bytes) -> bool:
        return key in self._marks

    @property
    def age_seconds(self) -> float:
        return self._clock.monotonic() - self._answered_at

    async def probe(self) -> None:
        # A process that never had a key is set up wrongly. Where all were withdrawn, clients are to hear 401.
        if not self._had_keys:
            raise self._unknown()

    def _unknown(self) -> Unavailable:
        why = self._why if self._keys is None else f"it has none for {self._allowed}"
        unknown = Unavailable(f"no key of the identity service is known yet: {why}")
        unknown.__cause__ = self._problem
        return unknown

    @property
    def _allowed(self) -> str:
        return ", ".join(self._rules.algorithms)

    @property
    def _why(self) -> str:
        """What went wrong with the last fetch, without what can be a secret in an URL."""
        return masked_url(str(self._problem) or type(self._problem).__name__) if self._problem else "it was not asked"

    async def _refresh(self) -> None:
        while True:
            await asyncio.wait([self._begin_fetch()])
            await self._clock.sleep(self._pause())

    def _pause(self) -> float:
        """Together with the fetch after it no longer than ``auth.remember_seconds``: so long may a withdrawal take."""
        most = max(self._rules.remember_seconds - FETCH_SECONDS, MIN_REFRESH_SECONDS)
        if self._problem is not None:
            most = min(most, 2 * RETRY_SECONDS)
        return most * (1 + self._chance.random()) / 2

    async def look_again(self) -> bool:
        """Wait for the fetch under way, or for a new one where that is due; a flood makes no more of them."""
        known = self._keys
        if self._fetching or self._clock.monotonic() - self._fetch_began >= LOOK_AGAIN_SECONDS:
            # Waiting leaves the fetch alone when this caller is cancelled; the others want it too.
            await asyncio.wait([self._begin_fetch()])
        return self._keys is not known

    @property
    def _fetching(self) -> bool:
        return self._fetch_task is not None and not self._fetch_task.done()

    def _begin_fetch(self) -> asyncio.Task[None]:
        """The one fetch that is under way."""
        if self._fetch_task is None or self._fetch_task.done():
            self._fetch_began = self._clock.monotonic()
            self._fetch_task = self._tasks.spawn(self._fetch(), "jwks fetch")
        return self._fetch_task

    async def _end_fetch(self) -> None:
        if self._fetch_task is not None:
            await _end(self._fetch_task)

    async def _fetch(self) -> None:
        """Replace the keys by what the service names now; keep them where it does not answer."""
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = await self._get("the key set", await self._jwks_url())
            keys = documents.usable(document, self._rules.algorithms)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError, ConfigError) as error:
            self._fail(error)
        else:
            self._work_again()
            self._take(keys)

    def _fail(self, error: Exception) -> None:
        before, self._problem = self._problem, error
        self._failures += 1
        if before is None:
            LOG.warning("the identity service gave no keys", problem=self._why, known_keys=len(self._marks))
        if self._marks and not self._stale and self.age_seconds > self._rules.remember_seconds:
            self._stale = True
            LOG.warning(
                "the key set is stale: until the identity service answers, a withdrawn key is still accepted",
                age_seconds=round(self.age_seconds),
            )

    def _work_again(self) -> None:
        if self._problem is not None:
            LOG.warning(
                "the identity service gives keys again",
                failed_fetches=self._failures,
                key_set_age_seconds=round(self.age_seconds),
            )
        self._problem, self._failures, self._stale = None, 0, False
        self._answered_at = self._clock.monotonic()

    def _take(self, keys: list[jwt.PyJWK]) -> None:
        first, before = self._keys is None, self._marks
        self._keys, self._marks = keys, frozenset(map(documents.mark, keys))
        self._had_keys = self._had_keys or bool(keys)
        if not keys and (first or before):
            LOG.warning(
                "the identity service has no key that auth.algorithms allows: every token is rejected",
                algorithms=self._allowed,
                withdrawn=len(before),
            )
        elif self._marks != before and not first:
            withdrawn, new = len(before - self._marks), len(self._marks - before)
            LOG.info("the identity service has other keys", keys=len(self._marks), withdrawn=withdrawn, new=new)

    async def _jwks_url(self) -> str:
        if self._rules.jwks_url:
            return self._rules.jwks_url
        service = (self._rules.identity_service_url or "").rstrip("/")
        document = await self._get("the discovery document", service + WELL_KNOWN)
        _check_issuer(document.get("issuer"), self._rules.identity_service_url or "")
        url = document.get("jwks_uri")
        # Plain http is for a service that is itself reached so: on this machine.
        if not isinstance(url, str) or urlsplit(url).scheme not in {"https", urlsplit(service).scheme}:
            raise ValueError("the discovery document has no jwks_uri that can be trusted")
        return url

    async def _get(self, what: str, url: str) -> dict[str, Any]:
        # Not compressed, so that the bound on what is read is one on what it becomes.
        async with self._client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
            if response.is_redirect:
                raise ValueError(f"{what} has moved, and the router follows no redirects; configure the new URL")
            if not response.is_success:
                raise ValueError(f"{what} cannot be fetched: status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > documents.MAX_BYTES:
                    raise ValueError(f"the document is larger than {documents.MAX_BYTES} bytes")
        return documents.read(bytes(body), response.headers.get("content-encoding", ""))


def _check_issuer(issuer: object, url: str) -> None:
    """RFC 8414, section 3.3: the document is of whom it was asked for, letter by letter; raises ``ValueError``."""
    parts = urlsplit(url)
    # A password is how to ask, and no part of the name.
    expected = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url
    if issuer != expected:
        raise ValueError(
            f"the discovery document is of the issuer {str(issuer)[:200]!r}, not of {expected!r}; set "
            "auth.identity_service_url to the issuer as it names itself, or name its key set with auth.jwks_url"
        )


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
