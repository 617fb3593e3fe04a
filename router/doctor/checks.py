"""Which checks a configuration calls for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from functools import partial

from router.clock import SystemClock
from router.config import Config, endpoints
from router.config.roles import Role, at_google
from router.doctor import auth, clocks, machine, probes, settings
from router.errors import ConfigError
from router.factory import Factory, backends
from router.findings import CLOCK_FIX, CLOCK_WHY, WITHOUT, Check, Finding, on_a_thread

EMULATORS = (endpoints.PUBSUB_EMULATOR, endpoints.FIRESTORE_EMULATOR)
GOOGLE_CLOCK = "https://www.googleapis.com/"


def checks(config: Config) -> list[Check]:
    """All checks for ``config``, in the order of the report."""
    emulators = [name for name in EMULATORS if os.environ.get(name)]
    return [
        Check("config", on_a_thread(lambda: settings.look(config, emulators)), "No service starts with it.", ""),
        Check("config.traces", on_a_thread(lambda: settings.traces(os.environ)), "There are no traces.", ""),
        Check("machine", on_a_thread(lambda: [machine.open_files(), machine.workers(config.server.workers)]), "", ""),
        _auth(config),
        *_backends(config),
        *_clocks(config, google=not emulators),
    ]


def _backends(config: Config) -> list[Check]:
    """What each backend has to be looked at, and then the roles."""
    named = backends(config)
    try:
        found = [check for backend in named.used() for check in backend.checks()]
    except ConfigError:  # a library is missing, as the look at the settings says
        return []
    looks: dict[Role, Callable[[Config], AsyncIterator[Finding]]] = {
        Role.INGRESS: _ingress,
        Role.ONLINE: _online,
        Role.COLD: _cold,
    }
    for role, look in looks.items():
        backend = named.keeping(role)
        if backend.is_made():
            fix = f"{role}.kind is {backend.name}: {backend.fix}"
            found.append(Check(role, partial(look, config), WITHOUT[role], fix))
    return found


async def _ingress(config: Config) -> AsyncIterator[Finding]:
    async with Factory(config) as factory:
        producer = await factory.ingress_producer()
        yield await probes.ingress(producer, factory.clock)


async def _online(config: Config) -> AsyncIterator[Finding]:
    async with Factory(config) as factory:
        store, pokes = await factory.online_store(), await factory.poke_bus()
        async for finding in probes.online_store(store, pokes, factory.clock):
            yield finding


async def _cold(config: Config) -> AsyncIterator[Finding]:
    async with Factory(config) as factory:
        async for finding in probes.cold_queue(await factory.cold_queue(), factory.clock):
            yield finding


def _auth(config: Config) -> Check:
    fix = "start the identity service, or correct auth.identity_service_url or auth.jwks_url"
    why = "Without its keys, new tokens cannot be verified. Tokens that were verified before are still accepted."
    return Check("auth.keys", partial(auth.look, config), why, fix)


def _clocks(config: Config, *, google: bool) -> list[Check]:
    compared = {}
    if url := config.auth.jwks_url or config.auth.identity_service_url:
        compared["clock.identity_service"] = url
    if google and at_google(config, settings.STORES):
        compared["clock.google"] = GOOGLE_CLOCK
    tolerated = config.tolerated_skew_seconds
    return [
        Check(name, partial(clocks.by_http, name, url, SystemClock(), tolerated), CLOCK_WHY, CLOCK_FIX)
        for name, url in compared.items()
    ]
