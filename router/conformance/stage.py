"""Where a moment is played: its users at the real router, the proxy, and the client under test."""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import httpx

from router.auth.embedded import EmbeddedKey
from router.client import Envelope, RouterClient
from router.clock import Clock
from router.conformance.program import Program
from router.conformance.proxy import TOKENS, Exchange, Proxy
from router.conformance.verdicts import Failed

NEVER_SECONDS = 3600
"""A client that polls no more often than this has to react, in the time of a moment."""
TOKEN_SECONDS = 3600
SAVING_SECONDS = 5.0
"""A client that acknowledges before it has saved has this time to save."""


class Stage:
    """One moment's."""

    def __init__(
        self,
        name: str,
        router: httpx.URL,
        key: EmbeddedKey,
        clock: Clock,
        command: Sequence[str],
        folder: Path,
        *,
        patience: float,
        poll_seconds: int,
    ) -> None:
        """``patience``: seconds that the client may take for what is expected of it."""
        # A client under test acts as ``me``; ``peer`` writes to it, or reads what it sends.
        self.me, self.peer = f"urn:sm:user:{name}", f"urn:sm:user:{name}-peer"
        self.patience = patience
        self.proxy = Proxy(router, self._token)
        self._command, self._folder, self._poll_seconds = command, folder, poll_seconds
        self._router, self._key, self._clock = router, key, clock
        self._lifetimes = itertools.count(TOKEN_SECONDS)
        """Of tokens: each one is different, and so each token is."""
        self._issued, self._refused = set[str](), set[str]()
        self.data: dict[str, str] = {}
        """Id -> ``encryptedData`` of what was sent to the client."""

    async def __aenter__(self) -> Self:
        await self.proxy.start()
        environment = {
            "ROUTER_URL": self.proxy.url,
            "ROUTER_WS_URL": f"{self.proxy.url.replace('http', 'ws', 1)}/connect",
            "ROUTER_TOKEN_URL": self.proxy.url + TOKENS.partition(" ")[2],
            "ROUTER_POLL_SECONDS": str(self._poll_seconds),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        self.client = Program(self._command, self._folder, environment, self.patience)
        self.other = RouterClient(str(self._router), lambda: self._sign(self.peer))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.kill()
        await self.proxy.aclose()
        await self.other.__aexit__(None, None, None)
        (self._folder / "requests.txt").write_text("".join(f"{line}\n" for line in self.proxy.log))

    async def mail(self, count: int, data: Sequence[bytes] = ()) -> list[str]:
        """Send the client ``count`` messages, by no proxy; returns their ids, in order."""
        contents = list(data) or [secrets.token_bytes(24) for _ in range(count)]
        ids = [await self.other.send(Envelope(self.me, encrypted_data=content)) for content in contents]
        encoded = [base64.b64encode(content).decode() for content in contents]
        self.data.update(zip(ids, encoded, strict=True))
        return ids

    def envelopes(self, count: int) -> tuple[list[bytes], list[str]]:
        """Messages to send, and the ``encryptedData`` of each."""
        made = [Envelope(self.peer, encrypted_data=secrets.token_bytes(24)) for _ in range(count)]
        return [each.to_json() for each in made], [base64.b64encode(each.encrypted_data).decode() for each in made]

    async def arrived(self) -> list[str]:
        """``encryptedData`` of what waits for the peer, in order."""
        return [base64.b64encode(each.decoded.encrypted_data).decode() for each in await self.other.fetch(500)]

    async def until(self, condition: Callable[[], bool], otherwise: Callable[[], str], more: float = 0.0) -> None:
        """Return when ``condition`` holds of what the proxy has seen.

        Raises ``Failed`` where the client ends by itself, or takes longer than ``patience`` and ``more`` seconds.
        """
        deadline = self.proxy.elapsed() + self.patience + more
        while not condition():
            if (ended := self.client.ended()) is not None:
                raise Failed(ended)
            left = deadline - self.proxy.elapsed()
            if left <= 0:
                raise Failed(otherwise())
            self.proxy.changed.clear()
            try:
                # An event of the proxy wakes it, and now and then it looks whether the client lives.
                async with asyncio.timeout(min(left, 0.25)):
                    await self.proxy.changed.wait()
            except TimeoutError:
                continue

    async def received(self, ids: Sequence[str], more: float = 0.0) -> list[tuple[str, str]]:
        """What the client has saved, once it has acknowledged ``ids``; raises ``Failed`` where one is not among it."""

        def missing() -> list[str]:
            return [id_ for id_ in ids if id_ not in self.proxy.acknowledged]

        await self.until(
            lambda: not missing(), lambda: f"it did not acknowledge {len(missing())} of {len(ids)} messages", more
        )
        deadline = self.proxy.elapsed() + SAVING_SECONDS
        while True:
            saved = await self.client.saved()
            lost = [id_ for id_ in ids if id_ not in dict(saved)]
            if not lost:
                return saved
            if self.proxy.elapsed() > deadline:
                raise Failed(f"it acknowledged {len(lost)} of {len(ids)} messages that `list` does not show")

    def refuse_token(self) -> None:
        """From now on, the tokens that the client has are expired; a new one is not."""
        self._refused |= self._issued
        self.proxy.plant(self.expired, lambda request: request.token() in self._refused, times=float("inf"))

    async def expired(self, exchange: Exchange) -> None:
        """The router's own answer to an expired token."""
        expired = self._key.sign(self.me, self._clock.now(), -TOKEN_SECONDS)
        request = exchange.request
        own = {"authorization": f"Bearer {expired}"}
        kept = [(name, value) for name, value in request.headers if name not in (*own, "sec-websocket-protocol")]
        request.headers = [*kept, *own.items()]
        if request.wants_socket:
            # Without the upgrade, the router would ask for one. What it answers to a fetch is the same.
            request.target = "/api/messages"
        await exchange.reply(await exchange.forward())

    def _token(self) -> str:
        token = self._sign(self.me)
        self._issued.add(token)
        return token

    def _sign(self, user: str) -> str:
        return self._key.sign(user, self._clock.now(), next(self._lifetimes))


def later(seconds: float) -> list[tuple[str, str]]:
    """The header of an answer that asks to come again."""
    return [("content-type", "application/problem+json"), ("retry-after", f"{seconds:g}")]
