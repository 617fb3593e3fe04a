"""The token of a client: asked for when it is needed, and again when the router has refused it."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable

from router.errors import Unauthorized

TokenSource = Callable[[], str | Awaitable[str]]
"""Gives a fresh token: a function or a coroutine function."""
_SENDABLE = re.compile(r"[!-~]+")
"""A token that a header can hold; only the router can say whether it is valid."""


class Tokens:
    """Keeps the token until the router refuses it. Requests that need a new one at once ask for one together."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source
        self._kept: str | None = None
        self.failure: Exception | None = None
        """What the source raised last, by which its caller tells it from an error of the network."""
        self._asking = asyncio.Lock()

    async def current(self) -> str:
        """The token. Raises what the source raises, and ``Unauthorized`` where a header cannot hold what it gives."""
        async with self._asking:
            if self._kept is None:
                self._kept = _checked(await self._new())
            return self._kept

    async def _new(self) -> str:
        try:
            given = self._source()
            return await given if inspect.isawaitable(given) else given
        except Exception as error:
            self.failure = error
            raise

    def refused(self, token: str) -> None:
        """Ask for another one instead of ``token``."""
        if self._kept == token:
            self._kept = None


def _checked(token: str) -> str:
    if not _SENDABLE.fullmatch(token):
        # A library would quote the token in its error, and the request would be retried in vain.
        raise Unauthorized("the token is empty" if not token else "the token is not a JWT: it has invalid characters")
    return token
