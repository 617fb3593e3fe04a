"""A client of its own kind, with one flaw if ``FLAW`` names it; the kit has to find each (test_flaws.py).

Nothing of it is shared with ``router.client``: it shows as well that the kit asks only for what the docs say.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

if sys.argv[1:] != ["list"]:  # which takes no third of a second then
    import httpx
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake

    EMPTY = httpx.Response(200, json={"messages": []})

FLAW = os.environ.get("FLAW", "")
INBOX = Path("inbox.txt")
PASSING = {408, 429, 500, 502, 503, 504} - ({502} if FLAW == "gives-up-on-502" else set())
KNOWN = {"messages", "id", "envelope", "recipientId", "encryptedData"}


class GivenUp(Exception):
    """The answer is final."""


class Client:
    def __init__(self) -> None:
        self.http = httpx.AsyncClient(base_url=os.environ["ROUTER_URL"], trust_env=False)
        self.poll_seconds = float(os.environ["ROUTER_POLL_SECONDS"])
        self.kept = ""
        self.wanted = asyncio.Event()
        self.draining = self.connected = False
        self.has_next = True

    async def token(self, refused: str = "") -> str:
        if not self.kept or (self.kept == refused and FLAW != "keeps-its-token"):
            self.kept = (await self.http.get(os.environ["ROUTER_TOKEN_URL"])).text
        return self.kept

    async def call(self, method: str, path: str, final: Sequence[int] = (), **request: Any) -> httpx.Response:
        """The answer, retried while it may come; raises ``GivenUp``."""
        refused, wait = "", 0.2
        while True:
            pause = wait = min(wait * 2, 5)
            try:
                token = await self.token(refused)
                headers = {**fields(request), "authorization": f"Bearer {token}"}
                response = await self.http.request(method, path, **{**request, "headers": headers})
            except httpx.TransportError as error:
                if FLAW == "takes-a-torn-page-for-none" and method == "GET":
                    return EMPTY
                if dies_of(error, request):
                    raise
            else:
                if response.is_success or response.status_code in final:
                    return response
                if response.status_code == 401 and token != refused:
                    refused, pause = token, 0
                elif FLAW == "waits-for-a-poke-after-503" and method == "GET":
                    return EMPTY
                else:
                    pause = before_another_try(response, path, wait)
            await asyncio.sleep(pause)

    async def page(self, ids: list[str]) -> list[dict[str, Any]]:
        """Acknowledge ``ids``, and fetch."""
        while True:
            if ids and self.has_next:
                final = [] if FLAW == "needs-next" else [404]
                answer = await self.call("POST", "/api/messages/next", final, json={"messageIds": ids})
                self.has_next = answer.status_code != 404
            if ids and not self.has_next:
                await self.call("POST", "/api/messages/ack", json={"messageIds": ids})
            if not ids or not self.has_next:
                answer = await self.call("GET", "/api/messages")
            try:
                document = answer.json()
            except ValueError:
                if FLAW == "takes-any-200":
                    return []
                ids = []
                await asyncio.sleep(0.3)
                continue
            if FLAW == "knows-all-fields" and set(document) - KNOWN:
                raise ValueError("an unknown field")
            return list(document["messages"])

    async def drain(self) -> None:
        messages = await self.page([])
        while messages:
            ids = [message["id"] for message in messages]
            if FLAW == "acknowledges-first":
                following = await self.page(ids)
                save(messages)
                messages = following
                continue
            save(messages)
            if FLAW == "one-page-a-poke":
                await self.call("POST", "/api/messages/ack", json={"messageIds": ids})
                return
            messages = await self.page(ids)

    async def receive(self) -> None:
        await asyncio.gather(self.stay_connected(), self.drain_when_wanted(), self.poll())

    async def poll(self) -> None:
        while FLAW != "has-no-timer":
            await asyncio.sleep(self.poll_seconds)
            if self.connected or FLAW != "waits-for-the-socket":
                self.wanted.set()

    async def drain_when_wanted(self) -> None:
        if FLAW != "waits-for-the-socket":
            self.wanted.set()
        while True:
            await self.wanted.wait()
            self.wanted.clear()
            self.draining = True
            await self.drain()
            self.draining = False

    async def stay_connected(self) -> None:
        refused = ""
        async for _ in pauses():
            code = 0
            try:
                token = await self.token(refused)
                bearer = {"Authorization": f"Bearer {token}"}
                async with connect(os.environ["ROUTER_WS_URL"], additional_headers=bearer, proxy=None) as socket:
                    self.connected = True
                    self.wanted.set()
                    async for _ in socket:
                        if not (FLAW == "is-deaf-while-it-fetches" and self.draining):
                            self.wanted.set()
                code = socket.close_code or 0
            except ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd else 0
            except (OSError, InvalidHandshake, httpx.TransportError, EOFError):
                code = 0
            if code == 4401:
                refused = token
            if FLAW == "never-connects-again":
                await asyncio.Event().wait()
            if FLAW != "waits-for-the-socket":
                self.wanted.set()
            if code == 4409 and FLAW != "comes-back-at-once":
                await asyncio.sleep(15)


def fields(request: dict[str, Any]) -> dict[str, str]:
    headers: dict[str, str] = request.get("headers", {})
    if FLAW == "new-key" and "idempotency-key" in headers:
        return {**headers, "idempotency-key": random.randbytes(8).hex()}
    return headers


def dies_of(error: httpx.TransportError, request: dict[str, Any]) -> bool:
    if isinstance(error, httpx.ConnectError):
        return FLAW == "dies-with-the-router"
    return FLAW == "dies-of-a-lost-acknowledgement" and "messageIds" in request.get("json", {})


def before_another_try(response: httpx.Response, path: str, wait: float) -> float:
    """Seconds; raises ``GivenUp``."""
    if FLAW == "repeats-what-is-refused" and response.status_code == 400:
        return 0.1
    stubborn = (FLAW, path, response.status_code) == ("gives-up-on-503", "/api/send", 503)
    if stubborn or response.status_code not in PASSING:
        raise GivenUp(response.status_code)
    return wait if FLAW == "ignores-retry-after" else max(wait, float(response.headers.get("retry-after", 0)))


async def pauses() -> AsyncIterator[None]:
    while True:
        yield
        await asyncio.sleep(random.uniform(0.2, 0.6))


def save(messages: list[dict[str, Any]]) -> None:
    known = {line.split(" ")[0] for line in INBOX.read_text().splitlines()} if INBOX.exists() else set()
    order = reversed(messages) if FLAW == "reverses-pages" else messages
    with INBOX.open("a") as file:
        for message in order:
            if message["id"] not in known or FLAW == "saves-again":
                file.write(f"{message['id']} {text(message['envelope'].get('encryptedData', ''))}\n")
        file.flush()
        os.fsync(file.fileno())


def text(data: str) -> str:
    if FLAW == "takes-bytes-for-text":
        return base64.b64encode(base64.b64decode(data).decode(errors="replace").encode()).decode()
    return data


async def send(client: Client) -> None:
    async def one(line: str) -> str:
        headers = {"idempotency-key": random.randbytes(8).hex(), "content-type": "application/json"}
        try:
            answer = await client.call("POST", "/api/send", content=line.encode(), headers=headers)
        except GivenUp as error:
            return f"refused {error}"
        return f"sent {answer.json()['id']}"

    lines = sys.stdin.read().splitlines()
    if FLAW == "sends-all-at-once":
        for printed in await asyncio.gather(*map(one, lines)):
            sys.stdout.write(f"{printed}\n")
        return
    for line in lines:
        sys.stdout.write(f"{await one(line)}\n")


if __name__ == "__main__":
    if sys.argv[1] == "list":
        with contextlib.suppress(FileNotFoundError):
            sys.stdout.write(INBOX.read_text())
    elif sys.argv[1] == "send":
        asyncio.run(send(Client()))
    else:
        asyncio.run(Client().receive())
