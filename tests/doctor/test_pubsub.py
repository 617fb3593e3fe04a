"""Topics and subscriptions, asked of a real emulator."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.backends.google.channels import PUBSUB, open_channel
from router.backends.pubsub import checks as doctor
from router.backends.pubsub import resources
from router.backends.pubsub.wire import PubSubApi
from router.config import Config, Google, Ingress, Push
from router.findings import Finding, Severity
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
DAY = 86_400


@pytest.fixture
def config(pubsub: Server, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.address)
    project = f"doctor-{secrets.token_hex(4)}"
    return Config(ingress=Ingress(kind="pubsub"), push=Push(kind="pubsub"), google=Google(project=project))


@pytest.fixture
async def api(config: Config, anyio_backend: str) -> AsyncIterator[PubSubApi]:
    async with await open_channel(PUBSUB, config) as channel:
        yield PubSubApi(channel, str(config.google.project), random.Random(1))


async def look(config: Config) -> list[Finding]:
    return [finding async for finding in doctor.look(config, random.Random(1))]


def wrong(findings: list[Finding]) -> dict[str, Severity]:
    return {finding.check: finding.severity for finding in findings if finding.severity is not Severity.FINE}


async def set_up(api: PubSubApi, config: Config) -> None:
    for need in resources.needs(api, config):
        await need.make()


async def test_what_is_missing_is_an_error_with_its_command(config: Config) -> None:
    missing = [finding for finding in await look(config) if finding.severity is Severity.ERROR]
    assert [finding.check for finding in missing] == ["pubsub.topic"] * 3 + ["pubsub.subscription"] * 2
    assert "gcloud pubsub topics create ingress-topic --project=" in missing[0].fix


async def test_what_setup_makes_is_fine(config: Config, api: PubSubApi) -> None:
    await set_up(api, config)
    assert wrong(await look(config)) == {"pubsub.push_subscription": Severity.WARNING}
    topic = api.topic(config.push.topic)
    await api.call("create_subscription", api.subscription("notifier"), name=api.subscription("notifier"), topic=topic)
    assert wrong(await look(config)) == {}


async def test_the_probe_touches_nothing_and_leaves_nothing(
    config: Config, api: PubSubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await set_up(api, config)
    monkeypatch.setattr("router.backends.pubsub.checks.secrets.token_hex", lambda _: "known")
    finding = await doctor.probe(api)
    assert finding.severity is Severity.FINE
    assert finding.found.startswith("two messages pass in order")
    assert len(await api.pull(api.subscription(config.ingress.subscription), 10, 0.5)) == 0
    assert await api.get("topic", api.topic("router-doctor-known")) is None
    assert await api.get("subscription", api.subscription("router-doctor-known")) is None


async def test_a_probe_that_does_not_come_back(config: Config, api: PubSubApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PULL_SECONDS", 0.2)

    async def lost(*_: object) -> None:
        return

    monkeypatch.setattr(api, "publish", lost)
    assert (await doctor.probe(api)).severity is Severity.ERROR


@pytest.mark.parametrize(
    ("fields", "check", "severity"),
    [
        ({"enable_message_ordering": False}, "pubsub.subscription", Severity.ERROR),
        ({"expiration_policy": {"ttl": {"seconds": 31 * DAY}}}, "pubsub.expiry", Severity.WARNING),
        ({"message_retention_duration": {"seconds": DAY}}, "pubsub.retention", Severity.WARNING),
        ({"filter": 'attributes.x = "y"'}, "pubsub.filter", Severity.ERROR),
        ({"push_config": {"push_endpoint": "https://example.com/"}}, "pubsub.push_endpoint", Severity.ERROR),
        ({"dead_letter_policy": None}, "pubsub.dead_letters", Severity.WARNING),
        ({"max_delivery_attempts": 99}, "pubsub.dead_letters", Severity.WARNING),
    ],
)
async def test_a_subscription_made_by_somebody_else(
    config: Config, api: PubSubApi, fields: dict[str, Any], check: str, severity: Severity
) -> None:
    for need in resources.needs(api, config):
        if not need.where.endswith(config.ingress.subscription):
            await need.make()
    (_, wanted) = resources.wanted_subscriptions(config)
    made = resources._subscription(api, wanted)
    if "max_delivery_attempts" in fields:
        made["dead_letter_policy"] |= fields
    else:
        made |= fields
    await api.call("create_subscription", made["name"], **{name: v for name, v in made.items() if v is not None})
    assert wrong(await look(config)) == {check: severity, "pubsub.push_subscription": Severity.WARNING}
