"""Which checks a configuration calls for."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from router.clock import MICROSECONDS, SystemClock, apart
from router.config import Config, endpoints
from router.doctor import auth, clocks, embedded, machine, probing, settings
from router.factory import Factory
from router.findings import CLOCK_FIX, CLOCK_WHY, Check, Finding, Look, judge_clock

if TYPE_CHECKING:
    from router.backends.redis.client import Client

PINGS = 3
EMULATORS = (endpoints.PUBSUB_EMULATOR, endpoints.FIRESTORE_EMULATOR)
GOOGLE_CLOCK = "https://www.googleapis.com/"
ONLINE_WHY = "Without it nobody counts as online: all mail goes to cold, and clients learn of it by push commands only."
COLD_WHY = "Without it, mail for users who are offline waits in the ingress, and nobody gets the mail that is in cold."
INGRESS_WHY = "Without it no message is accepted: senders get 503."


def checks(config: Config) -> list[Check]:
    """All checks for ``config``, in the order of the report."""
    emulators = [name for name in EMULATORS if os.environ.get(name)]
    found = [
        Check("config", _of(lambda: settings.look(config, emulators)), "", ""),
        Check("machine", _of(lambda: [machine.open_files()]), "", ""),
        _auth(config),
    ]
    if config.uses_data_dir:
        path = config.embedded.data_dir
        why = "All accepted mail is stored there."
        found.append(
            Check(
                "embedded",
                _of(partial(embedded.data_dir, path, config.embedded.reserve_bytes)),
                why,
                "check its disk",
            )
        )
    if config.uses_database:
        found.append(Check("embedded.sqlite", _of(lambda: [embedded.sqlite_library()]), "", ""))
    if config.online.kind == "redis":
        found.append(Check("redis.answers", partial(_redis, config), ONLINE_WHY, _fix("online", "redis")))
    if config.uses_firestore:
        found.append(Check("firestore.database", partial(_firestore, config), COLD_WHY, _fix("cold", "firestore")))
    if config.uses_pubsub:
        found.append(Check("pubsub.answers", partial(_pubsub, config), INGRESS_WHY, _fix("ingress", "pubsub")))
    return [*found, *_stores(config), *_clocks(config, google=not emulators)]


def _stores(config: Config) -> list[Check]:
    parts: list[tuple[str, str, Callable[[Config], AsyncIterator[Finding]], str]] = [
        ("ingress", config.ingress.kind, _ingress, INGRESS_WHY),
        ("online", config.online.kind, _online, ONLINE_WHY),
        ("cold", config.cold.kind, _cold, COLD_WHY),
    ]
    return [
        Check(name, partial(look, config), why, _fix(name, kind))
        for name, kind, look, why in parts
        if not _nothing_yet(config, kind)
    ]


def _fix(section: str, kind: str) -> str:
    what = {
        "embedded": "check embedded.data_dir",
        "redis": "start the Redis, or name another in online.url",
        "firestore": "check google.project, the credentials and the network",
        "pubsub": "check google.project, the credentials and the network, and run `router setup`",
    }[kind]
    return f"{section}.kind is {kind}: {what}"


async def _ingress(config: Config) -> AsyncIterator[Finding]:
    async with Factory(config) as factory:
        producer = await factory.ingress_producer()
        yield await probing.ingress(producer, factory.clock)


async def _redis(config: Config) -> AsyncIterator[Finding]:
    from router.backends.redis import facts  # noqa: PLC0415 - only where it is configured
    from router.doctor import redis  # noqa: PLC0415

    async with Factory(config) as factory:
        client = (await factory.redis()).client
        servers = await facts.gather(client)
        took = await _round_trip(client, len(servers))
        for server in servers:
            for finding in redis.judge(server, config.online, took):
                yield finding
        before = factory.clock.now()
        times = await client.on_each("TIME")
        after = factory.clock.now()
        for name, (seconds, microseconds) in times:
            ahead = apart(before, after, int(seconds) * MICROSECONDS + int(microseconds))
            yield judge_clock("clock.redis", name or "the Redis", ahead, tolerated(config))
        if config.online.mode == "cluster":
            (_, state), *_ = await client.on_each("CLUSTER INFO")
            yield redis.judge_cluster(state)
        if config.online.mode == "sentinel":
            yield redis.judge_sentinel(await facts.sentinels(client, config.online.sentinel_service))


async def _firestore(config: Config) -> AsyncIterator[Finding]:
    from router.doctor import firestore  # noqa: PLC0415 - only where it is configured

    async for finding in firestore.look(config):
        yield finding


async def _pubsub(config: Config) -> AsyncIterator[Finding]:
    from router.doctor import pubsub  # noqa: PLC0415 - only where it is configured

    async for finding in pubsub.look(config):
        yield finding


async def _round_trip(client: Client, servers: int) -> float:
    """The shortest of a few pings, in seconds."""
    spent = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await client.on_each("PING")
        spent.append(time.perf_counter() - began)
    return min(spent) / max(1, servers)


async def _online(config: Config) -> AsyncIterator[Finding]:
    async with Factory(config) as factory:
        store, pokes = await factory.online_store(), await factory.poke_bus()
        async for finding in probing.online_store(store, pokes, factory.clock):
            yield finding


async def _cold(config: Config) -> AsyncIterator[Finding]:
    async with Factory(config) as factory:
        async for finding in probing.cold_queue(await factory.cold_queue(), factory.clock):
            yield finding


def _nothing_yet(config: Config, kind: str) -> bool:
    return kind == "embedded" and not embedded.has_database(config.embedded.data_dir)


def _auth(config: Config) -> Check:
    fix = "start the identity service, or correct auth.identity_service_url or auth.jwks_url"
    why = "Without its keys, new tokens cannot be verified. Tokens that were verified before are still accepted."
    return Check("auth.keys", partial(auth.look, config), why, fix)


def _clocks(config: Config, *, google: bool) -> list[Check]:
    compared = {}
    if url := config.auth.jwks_url or config.auth.identity_service_url:
        compared["clock.identity_service"] = url
    if google and {"pubsub", "firestore"} & {config.ingress.kind, config.online.kind, config.cold.kind}:
        compared["clock.google"] = GOOGLE_CLOCK
    return [
        Check(name, partial(clocks.by_http, name, url, SystemClock(), tolerated(config)), CLOCK_WHY, CLOCK_FIX)
        for name, url in compared.items()
    ]


def tolerated(config: Config) -> float:
    """How far clocks may be apart, in seconds, before something goes wrong."""
    spans = (config.auth.leeway_seconds, config.limits.ephemeral_seconds, config.online.lease_seconds / 4)
    return min(spans)


def _of(findings: Callable[[], Iterable[Finding]]) -> Look:
    # On a thread: a disk that hangs must not hang the other checks.
    async def look() -> AsyncIterator[Finding]:
        for finding in await asyncio.to_thread(lambda: list(findings())):
            yield finding

    return look
