"""Senders and recipients: smart clients that go, come back by another node, die in the middle, repeat themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from router.client import Received, Refused, RouterClient, Unreachable
from tests.chaos.recording import Recorded, Recorder, sealed
from tests.chaos.topologies import Cluster

STEADY, ROAMING = 3, 4
DEVICES = 2
SENDERS = 6
BUDGET_SECONDS = 120.0
"""How long a sender tries: longer than anything is down."""
SESSION_SECONDS, AWAY_SECONDS = (1.0, 15.0), (0.5, 12.0)
BYTES = (10, 10, 500, 4000)
TOGETHER = 0.1
"""How often a sender sends several messages in one request."""
OLD = 0.3
"""The share of clients that are."""


def name(word: str, number: int) -> str:
    return f"urn:sm:user:{word}{number}"


STEADY_USERS = [name("steady", number) for number in range(STEADY)]
"""Each has a device that stays connected, or tries to, until the end."""
ROAMING_USERS = [name("roaming", number) for number in range(ROAMING)]
"""Their devices come and go."""
ABSENT_USER = name("absent", 0)
"""Reads at the end."""
USERS = [*STEADY_USERS, *ROAMING_USERS, ABSENT_USER]


class Died(Exception):
    """A device went away before it had saved what it fetched."""


class Old(RouterClient):
    """Acknowledges and fetches by two requests, as clients did before one was enough."""

    async def _try_next(self, ids: Sequence[str], limit: int) -> None:
        del ids, limit


class People:
    """All clients of a run."""

    def __init__(self, cluster: Cluster, recorder: Recorder, api_port: int, ws_port: int, seed: int) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._url = f"http://127.0.0.1:{api_port}"
        self._ws_url = f"ws://127.0.0.1:{ws_port}/connect"
        self._seed = seed
        self.sending = asyncio.Event()
        """Set while senders send."""
        self.ids: list[str] = []
        """Ids that were delivered lately, of all users."""
        self.sending.set()

    def chance(self, who: str) -> random.Random:
        return random.Random(f"{self._seed} {who}")

    def client(self, user: str, chance: random.Random) -> RouterClient:
        kind = Old if chance.random() < OLD else RouterClient
        return kind(
            self._url,
            lambda: self._cluster.token(user),
            ws_url=self._ws_url,
            budget_seconds=BUDGET_SECONDS,
            chance=chance,
            transport=Recorded(self._recorder, user, chance),
        )

    async def send(self, number: int, per_second: float) -> None:
        """One sender, one message after another, while ``sending``."""
        chance, sender = self.chance(f"sender {number}"), name("sender", number)
        async with self.client(sender, chance) as client:
            count = 0
            while self.sending.is_set():
                count += 1
                if chance.random() < TOGETHER:
                    await self._send_several(client, chance, f"{number}.{count}")
                else:
                    await self._send_one(client, chance, f"{number}.{count}")
                await asyncio.sleep(chance.uniform(0.5, 1.5) / per_second)

    async def _send_several(self, client: RouterClient, chance: random.Random, tag: str) -> None:
        tags = [f"{tag}.{number}" for number in range(chance.randint(2, 8))]
        outcomes = await client.send_batch([self._sealed(chance, one) for one in tags], tags)
        for one, outcome in zip(tags, outcomes, strict=True):
            if isinstance(outcome, Refused):
                raise outcome
            if isinstance(outcome, Unreachable):
                self._recorder.note("sender", f"gives up on {one}: {outcome}")

    def _sealed(self, chance: random.Random, tag: str) -> bytes:
        return sealed(
            self._recipient(chance),
            tag,
            chance.choice(BYTES),
            express=chance.random() < 0.1,
            ephemeral=chance.random() < 0.05,
        )

    async def _send_one(self, client: RouterClient, chance: random.Random, tag: str) -> None:
        body = self._sealed(chance, tag)
        if chance.random() < 0.05:
            try:
                async with asyncio.timeout(chance.uniform(0.0, 0.03)):
                    await client.send(body, tag)
            except TimeoutError:
                pass  # whether it was accepted is unknown: it is sent again, under the same key
        try:
            await client.send(body, tag)
            if chance.random() < 0.05:
                await client.send(body, tag)
        except Unreachable as error:
            self._recorder.note("sender", f"gives up on {tag}: {error}")

    def _recipient(self, chance: random.Random) -> str:
        if chance.random() < 0.03:
            return ABSENT_USER
        return chance.choice(STEADY_USERS if chance.random() < 0.5 else ROAMING_USERS)

    async def stay(self, user: str) -> None:
        """A device that stays, until it is cancelled."""
        chance = self.chance(f"steady {user}")
        async with self.client(user, chance) as client:
            await client.listen(self._save)

    async def roam(self, user: str, number: int) -> None:
        """A device that comes and goes, until it is cancelled."""
        chance = self.chance(f"device {number} of {user}")
        while True:
            async with self.client(user, chance) as client:
                await self._session(client, chance)
            await asyncio.sleep(chance.uniform(*AWAY_SECONDS))

    async def _session(self, client: RouterClient, chance: random.Random) -> None:
        """It listens, or reads without a connection, or sloppily; and leaves in the middle of whatever it does."""
        what = chance.choice((client.listen, client.listen, client.drain, None))
        try:
            async with asyncio.timeout(chance.uniform(*SESSION_SECONDS)):
                if what is None:
                    await self._be_sloppy(client, chance)
                else:
                    await what(lambda batch: self._save_or_die(batch, chance))
        except (TimeoutError, Died, Unreachable):
            pass  # it comes back

    async def _save(self, batch: Sequence[Received]) -> None:
        self.ids = [*self.ids, *(received.id for received in batch)][-100:]

    async def _save_or_die(self, batch: Sequence[Received], chance: random.Random) -> None:
        if chance.random() < 0.2:
            await asyncio.sleep(chance.uniform(0.0, 0.3))
        if chance.random() < 0.03:
            raise Died
        await self._save(batch)

    async def _be_sloppy(self, client: RouterClient, chance: random.Random) -> None:
        """Small pages; acknowledges parts, twice, and what is not its own."""
        batch = await client.fetch(chance.choice((1, 3, 50)))
        while batch:
            await self._save_or_die(batch, chance)
            ids = [received.id for received in batch]
            how = chance.choice(("all", "part", "twice", "foreign", "none"))
            if how == "part":
                ids = chance.sample(ids, chance.randint(1, len(ids)))
            elif how == "twice":
                ids += reversed(ids)
            elif how == "foreign":
                ids += ["unknown", *chance.sample(self.ids, min(3, len(self.ids)))]
            limit = chance.choice((1, 3, 50))
            if how == "none":
                await asyncio.sleep(chance.uniform(0.0, 0.5))
            elif chance.random() < 0.5:
                batch = await client.next(ids, limit)
                continue
            else:
                await client.acknowledge(ids)
            batch = await client.fetch(limit)

    async def read_all(self, user: str) -> None:
        """A clean client pulls, saves and acknowledges until there is nothing."""
        async with self.client(user, self.chance(f"drain {user}")) as client:
            await client.drain(self._save, 500)
