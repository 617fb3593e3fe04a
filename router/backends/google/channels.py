"""Channels to Google's services: to an emulator, or with the credentials of a key file or of the machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import google.auth
import grpc
from google.api_core import grpc_helpers_async
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import service_account
from msgspec import Struct

from router.config import Config, Google, endpoints
from router.errors import ConfigError

CLOUD_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
EMULATOR_METADATA = (("authorization", "Bearer owner"),)
"""An emulator does not check credentials, but treats a caller without any as an anonymous visitor."""

OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # a page of the service is larger than the library's 4 MiB
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),  # a server that is back is used again at once
    ("grpc.use_local_subchannel_pool", 1),  # each channel has a connection of its own
)
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
"""Pings find a dead peer while nothing is sent. Google's servers allow one every 30 s while calls are open, and
Google's own clients send that many. An emulator gets none: it allows one in five minutes, and after some more
(``too_many_pings``) closes the connection with all its calls. It is local, so that its connection breaks when it
ends."""


DIRECTLY = (("grpc.enable_http_proxy", 0),)
"""An emulator is local, so calls to it ignore the proxies that the environment names."""


class Service(Struct, frozen=True):
    """One of Google's services."""

    name: str
    """Its name in messages."""
    endpoint: Callable[[Google], str]
    """Its address in the configuration."""
    emulator_variable: str
    """The environment variable that names an emulator."""

    def address(self, config: Config, part: str) -> str:
        """Where ``part`` of the service is, for logs and messages."""
        emulator = os.environ.get(self.emulator_variable)
        return f"project {config.google.project}, {part}" + (f", emulator {emulator}" if emulator else "")

    def emulator(self) -> str | None:
        """``host:port`` of the emulator if the environment names one; raises ``ConfigError`` if that is not an
        address."""
        named = os.environ.get(self.emulator_variable)
        try:
            return endpoints.emulator(named) if named else None
        except ValueError as error:
            raise ConfigError(f"{self.emulator_variable} {error}") from error


FIRESTORE = Service("Firestore", lambda google: google.firestore_endpoint, endpoints.FIRESTORE_EMULATOR)
PUBSUB = Service("Pub/Sub", lambda google: google.pubsub_endpoint, endpoints.PUBSUB_EMULATOR)


def project(config: Config) -> str:
    """The Google Cloud project; raises ``ConfigError`` where none is named."""
    if not config.google.project:
        raise ConfigError("google.project is not set: set it, or GOOGLE_CLOUD_PROJECT")
    return config.google.project


def metadata(service: Service) -> Sequence[tuple[str, str]]:
    """The metadata that every call to ``service`` carries."""
    return EMULATOR_METADATA if service.emulator() else ()


@asynccontextmanager
async def open_channels(service: Service, config: Config) -> AsyncIterator[list[grpc.aio.Channel]]:
    """``google.channels`` channels to ``service``; raises ``ConfigError`` where there are no credentials."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await open_channel(service, config)) for _ in range(config.google.channels)
        ]


async def open_channel(service: Service, config: Config) -> grpc.aio.Channel:
    """A channel to ``service``, which the caller closes; nothing is sent yet.

    Raises ``ConfigError`` where there are no credentials.
    """
    emulator = service.emulator()
    if emulator is not None:
        return grpc.aio.insecure_channel(emulator, options=(*OPTIONS, *DIRECTLY))
    # Looking for credentials reads files and may ask the machine's metadata server.
    credentials = await asyncio.to_thread(_credentials, config.google.credentials_file)
    address = endpoints.service(service.endpoint(config.google))
    channel: grpc.aio.Channel = grpc_helpers_async.create_channel(
        address,
        credentials=credentials,
        scopes=[CLOUD_SCOPE],
        options=(*OPTIONS, *KEEPALIVE),
    )
    return channel


def _credentials(file: Path | None) -> Credentials:
    try:
        if file is not None:
            return _from_file(file)
        found, _ = google.auth.default(scopes=[CLOUD_SCOPE])
    except GoogleAuthError as error:
        raise ConfigError(
            "there are no Google credentials: run `gcloud auth application-default login`, give the machine a "
            f"service account, or name a key file in google.credentials_file ({error})"
        ) from error
    return found


def _from_file(file: Path) -> Credentials:
    try:
        found: Credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]  # the library has no types here
            str(file), scopes=[CLOUD_SCOPE]
        )
    except (OSError, ValueError) as error:
        # The library's message may quote the file.
        reason = error.strerror if isinstance(error, OSError) else "it holds no service account key"
        raise ConfigError(f"google.credentials_file: {file} cannot be used: {reason}") from error
    return found
