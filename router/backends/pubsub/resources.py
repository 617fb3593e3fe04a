"""The topics and subscriptions that the configuration names: how they must be, and whether they exist."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from typing import Any

import grpc
from msgspec import Struct

from router.backends.google.channels import PUBSUB
from router.backends.pubsub.wire import PubSubApi, status
from router.config import Config
from router.config.roles import Role, kept_by
from router.errors import ConfigError, Unavailable
from router.needs import MISSING, THERE, Need

LEASE_SECONDS = 10
"""After this, Pub/Sub redelivers the messages of a pipeline that died, and with them the later mail of their ordering
keys. It is the shortest time that the service allows."""
DAY_SECONDS = 86_400
RETENTION_DAYS = 31
"""How long unread messages are kept: the service's maximum."""
EMULATOR_RETENTION_DAYS = 7
DELIVERY_ATTEMPTS = 100
"""The service's maximum. Each restart of a pipeline counts as an attempt for what it held, so that a lower number would
make dead letters of good mail. ``ingress.max_attempts`` ends the attempts for bad mail."""
SERVICE_ACCOUNT = "serviceAccount:service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com"


class WantedSubscription(Struct, frozen=True):
    """Short names, as in the configuration."""

    name: str
    topic: str
    ordered: bool = False
    dead_letter_topic: str = ""


def wanted_topics(config: Config) -> list[str]:
    """Short names, each once."""
    topics, roles = [], kept_by(config, "pubsub")
    if Role.INGRESS in roles:
        topics += [config.ingress.topic, config.ingress.dead_letter_topic]
    if Role.PUSH in roles:
        topics.append(config.push.topic)
    return topics


def wanted_subscriptions(config: Config) -> list[WantedSubscription]:
    """The pipelines' subscription, and the one that keeps dead letters until somebody reads them."""
    ingress = config.ingress
    if Role.INGRESS not in kept_by(config, "pubsub"):
        return []
    return [
        WantedSubscription(dead_letter_subscription(config), ingress.dead_letter_topic),
        WantedSubscription(ingress.subscription, ingress.topic, True, ingress.dead_letter_topic),
    ]


def dead_letter_subscription(config: Config) -> str:
    return f"{config.ingress.dead_letter_topic}-sub"


async def check_topics(api: PubSubApi, config: Config) -> None:
    """Raise ``ConfigError`` where one is missing."""
    names = [api.topic(name) for name in wanted_topics(config)]
    found = await asyncio.gather(*(_find(api, "topic", name) for name in names))
    if missing := [name for name, topic in zip(names, found, strict=True) if topic is None]:
        raise ConfigError(f"the Pub/Sub topic {', '.join(missing)} is missing: create it with `router setup`")


async def check_ingress_subscription(api: PubSubApi, config: Config) -> None:
    """Raise ``ConfigError`` where it is missing, or cannot work."""
    (_, wanted) = wanted_subscriptions(config)
    name = api.subscription(wanted.name)
    found = await _find(api, "subscription", name)
    if found is None:
        raise ConfigError(f"the Pub/Sub subscription {name} is missing: create it with `router setup`")
    if fault := _fault(api, wanted, found):
        raise ConfigError(f"the Pub/Sub subscription {name} {fault}")


async def _find(api: PubSubApi, kind: str, name: str) -> Any:
    """The topic or subscription ``name``, or ``None``. Raises ``ConfigError`` if this account may not read it."""
    try:
        return await api.get(kind, name)
    except Unavailable as error:
        if status(error) is grpc.StatusCode.PERMISSION_DENIED:
            raise ConfigError(
                f"may not read the Pub/Sub {kind} {name}: give this account roles/pubsub.viewer"
            ) from error
        raise


def _fault(api: PubSubApi, wanted: WantedSubscription, found: Any) -> str:
    """Why ``found`` cannot work, else empty. None of this can be changed on an existing subscription."""
    again = "delete it when it is empty, and run `router setup` again"
    if found.topic != api.topic(wanted.topic):
        return f"reads {found.topic} instead of {api.topic(wanted.topic)}: {again}"
    if wanted.ordered and not found.enable_message_ordering:
        return f"has no message ordering, without which mail is reordered: {again}"
    return ""


def needs(api: PubSubApi, config: Config) -> list[Need]:
    """All that ``router setup`` makes, in the order in which it can be made."""
    topics = [_topic_need(api, name, config) for name in wanted_topics(config)]
    return topics + [_subscription_need(api, wanted, config) for wanted in wanted_subscriptions(config)]


def _topic_need(api: PubSubApi, name: str, config: Config) -> Need:
    full = api.topic(name)

    async def look() -> str:
        return MISSING if await _find(api, "topic", full) is None else THERE

    async def make() -> None:
        await api.create("create_topic", full, name=full)

    return Need("topic", full, look, make, (_gcloud("topics", "create", name, config),))


def _subscription_need(api: PubSubApi, wanted: WantedSubscription, config: Config) -> Need:
    full = api.subscription(wanted.name)

    async def look() -> str:
        found = await _find(api, "subscription", full)
        return MISSING if found is None else _fault(api, wanted, found) or THERE

    async def make() -> None:
        await api.create("create_subscription", full, **_subscription(api, wanted))

    return Need("subscription", full, look, make, tuple(_subscription_commands(wanted, config)))


def _retention_days() -> int:
    return EMULATOR_RETENTION_DAYS if PUBSUB.emulator() else RETENTION_DAYS


def _subscription(api: PubSubApi, wanted: WantedSubscription) -> dict[str, Any]:
    """The fields of the subscription."""
    fields: dict[str, Any] = {
        "name": api.subscription(wanted.name),
        "topic": api.topic(wanted.topic),
        "ack_deadline_seconds": LEASE_SECONDS,
        "message_retention_duration": {"seconds": _retention_days() * DAY_SECONDS},
        "enable_message_ordering": wanted.ordered,
        "expiration_policy": {},  # without a time it never expires
    }
    if wanted.dead_letter_topic:
        fields["dead_letter_policy"] = {
            "dead_letter_topic": api.topic(wanted.dead_letter_topic),
            "max_delivery_attempts": DELIVERY_ATTEMPTS,
        }
    return fields


def _subscription_commands(wanted: WantedSubscription, config: Config) -> Sequence[str]:
    options = [
        f"--topic={wanted.topic}",
        f"--ack-deadline={LEASE_SECONDS}",
        f"--message-retention-duration={_retention_days()}d",
        "--expiration-period=never",
    ]
    if wanted.ordered:
        options.append("--enable-message-ordering")
    if not wanted.dead_letter_topic:
        return [_gcloud("subscriptions", "create", wanted.name, config, *options)]
    options += [f"--dead-letter-topic={wanted.dead_letter_topic}", f"--max-delivery-attempts={DELIVERY_ATTEMPTS}"]
    return [
        _gcloud("subscriptions", "create", wanted.name, config, *options),
        # Pub/Sub itself moves what was delivered too often; without these roles it redelivers it for ever.
        _grant("topics", wanted.dead_letter_topic, "publisher", config),
        _grant("subscriptions", wanted.name, "subscriber", config),
    ]


def _grant(kind: str, name: str, role: str, config: Config) -> str:
    number = f"$(gcloud projects describe {shlex.quote(str(config.google.project))} --format='value(projectNumber)')"
    member = SERVICE_ACCOUNT.format(number=number)
    command = _gcloud(kind, "add-iam-policy-binding", name, config, f"--role=roles/pubsub.{role}")
    return f'{command} --member="{member}"'


def _gcloud(kind: str, verb: str, name: str, config: Config, *options: str) -> str:
    return shlex.join(["gcloud", "pubsub", kind, verb, name, f"--project={config.google.project}", *options])
