"""Channels to Google's services and to their emulators."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.api_core import grpc_helpers_async

from router.backends.google import channels
from router.backends.google.channels import FIRESTORE, PUBSUB, open_channel
from router.config import Config, Google
from router.errors import ConfigError

pytestmark = pytest.mark.anyio
KEEPALIVE = "grpc.keepalive_time_ms"


async def test_the_service_is_pinged_as_often_as_it_allows_and_an_emulator_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The service allows one ping in 30 s; an emulator cuts the connection off, with all calls on it."""
    opened: dict[str, dict[str, int]] = {}

    def note(target: str, *, options: Sequence[tuple[str, int]], **_: Any) -> None:
        opened[target] = dict(options)

    monkeypatch.setattr(grpc.aio, "insecure_channel", note)
    monkeypatch.setattr(grpc_helpers_async, "create_channel", note)
    monkeypatch.setattr(channels, "_credentials", lambda _: None)
    monkeypatch.delenv(PUBSUB.emulator_variable, raising=False)
    await open_channel(PUBSUB, Config())
    monkeypatch.setenv(PUBSUB.emulator_variable, "127.0.0.1:1")
    await open_channel(PUBSUB, Config())
    service = "pubsub.googleapis.com:443"
    assert opened[service][KEEPALIVE] >= 30_000
    assert KEEPALIVE not in opened["127.0.0.1:1"]
    own = {"grpc.enable_http_proxy": 0}
    assert opened["127.0.0.1:1"].items() - own.items() <= opened[service].items()


async def test_an_emulator_is_reached_by_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    came: dict[str, asyncio.Event] = {"emulator": asyncio.Event(), "proxy": asyncio.Event()}

    async def listening(name: str) -> asyncio.Server:
        async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came[name].set()
            writer.close()

        return await asyncio.start_server(note, "127.0.0.1", 0)

    async with await listening("emulator") as emulator, await listening("proxy") as proxy:
        for name in ("http_proxy", "grpc_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        monkeypatch.setenv(PUBSUB.emulator_variable, f"127.0.0.1:{emulator.sockets[0].getsockname()[1]}")
        channel = await open_channel(PUBSUB, Config())
        channel.get_state(try_to_connect=True)
        async with asyncio.timeout(60):
            await came["emulator"].wait()
        await channel.close()
    assert not came["proxy"].is_set()


async def test_a_region_has_an_endpoint_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pub/Sub keeps the order of a key in one region only."""
    opened: list[str] = []
    monkeypatch.setattr(grpc_helpers_async, "create_channel", lambda target, **_: opened.append(target))
    monkeypatch.setattr(channels, "_credentials", lambda _: None)
    for service in (PUBSUB, FIRESTORE):
        monkeypatch.delenv(service.emulator_variable, raising=False)
    here = Google(
        pubsub_endpoint="europe-west1-pubsub.googleapis.com",
        firestore_endpoint="https://eur3-firestore.googleapis.com/",
    )
    for service in (PUBSUB, FIRESTORE):
        await open_channel(service, Config(google=here))
    assert opened == ["europe-west1-pubsub.googleapis.com:443", "eur3-firestore.googleapis.com:443"]


async def test_an_emulator_that_has_no_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PUBSUB.emulator_variable, "::1:8085")
    with pytest.raises(ConfigError, match=r"PUBSUB_EMULATOR_HOST is '::1:8085', but must be a host and a port"):
        await open_channel(PUBSUB, Config())
