"""Checks that topics and subscriptions exist, have the right settings, and deliver a probe in order."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from router.backends.google.channels import PUBSUB, open_channel, project
from router.backends.pubsub import resources
from router.backends.pubsub.wire import PubSubApi, PubsubMessage, status
from router.config import Config
from router.config.roles import Role, kept_by
from router.errors import Unavailable
from router.findings import Finding, error, fine, note, warning
from router.needs import MISSING, THERE, Need

SHORT_RETENTION_DAYS = 7
PULL_SECONDS = 5.0
DAY_SECONDS = 86_400
PROBE_RETENTION_SECONDS = 600
DEFAULT_ATTEMPTS = 5
"""Pub/Sub's default if a dead-letter policy names no number."""
UPDATE = "gcloud pubsub subscriptions update {name} --project={project} {options}"


async def look(config: Config, chance: random.Random) -> AsyncIterator[Finding]:
    """Raises ``Unavailable``, and ``ConfigError`` where there are no credentials."""
    async with await open_channel(PUBSUB, config) as channel:
        api = PubSubApi(channel, project(config), chance)
        for need in resources.needs(api, config):
            yield judge_need(need, await need.look())
        for wanted in resources.wanted_subscriptions(config):
            found = await api.get("subscription", api.subscription(wanted.name))
            for finding in () if found is None else judge(found, wanted.dead_letter_topic):
                yield finding
        if Role.PUSH in kept_by(config, "pubsub"):
            yield await _is_read(api, config.push.topic)
        yield await probe(api)


def judge_need(need: Need, state: str) -> Finding:
    """Whether something that ``setup`` makes is there."""
    check, name = f"pubsub.{need.what}", need.where.rpartition("/")[2]
    if state == THERE:
        return fine(check, name)
    why = "Services that need it do not start without it."
    if state == MISSING:
        return error(check, f"{name} is missing", why, f"router setup, or: {'; '.join(need.commands)}")
    return error(check, f"{name} {state}", "Other settings lose or reorder mail.", "router setup --dry-run")


def judge(found: Any, dead_letter_topic: str) -> Iterator[Finding]:
    """Check the settings of an existing subscription; ``found`` is Pub/Sub's description of it."""
    name = found.name.rpartition("/")[2]
    project_id = found.name.split("/")[1]

    def update(options: str) -> str:
        return UPDATE.format(name=name, project=project_id, options=options)

    expires = found.expiration_policy.ttl.seconds
    if expires:
        why = "After this time without a reader, Pub/Sub deletes it with all messages in it."
        text = f"{name} expires after {expires // DAY_SECONDS} days without a reader"
        yield warning("pubsub.expiry", text, why, update("--expiration-period=never"))
    kept = found.message_retention_duration.seconds / DAY_SECONDS
    if kept < SHORT_RETENTION_DAYS:
        why = "Messages that are not routed within this time are lost, for example in a long outage of the pipeline."
        fix = update(f"--message-retention-duration={resources.RETENTION_DAYS}d")
        yield warning("pubsub.retention", f"{name} keeps messages for {kept:.1f} days", why, fix)
    if found.filter:
        why = "Pub/Sub acknowledges messages that do not match: mail that was answered 202 is lost."
        yield error("pubsub.filter", f"{name} has a filter", why, "delete it when it is empty, then run router setup")
    if found.push_config.push_endpoint:
        why = "Its messages go to that endpoint, and no pipeline gets them."
        yield error("pubsub.push_endpoint", f"{name} pushes to an endpoint", why, update("--push-endpoint="))
    if dead_letter_topic:
        fix = update(f"--dead-letter-topic={dead_letter_topic} --max-delivery-attempts={resources.DELIVERY_ATTEMPTS}")
        yield from _judge_policy(name, found.dead_letter_policy, fix)


def _judge_policy(name: str, policy: Any, fix: str) -> Iterator[Finding]:
    attempts = policy.max_delivery_attempts or DEFAULT_ATTEMPTS
    if not policy.dead_letter_topic:
        why = "A message that crashes every pipeline that reads it is redelivered for ever."
        yield warning("pubsub.dead_letters", f"{name} has no dead-letter policy", why, fix)
    elif attempts < resources.DELIVERY_ATTEMPTS:
        why = "A restart of a pipeline counts as a delivery: in an outage, valid mail would become dead letters."
        yield warning("pubsub.dead_letters", f"{name} makes dead letters after {attempts} deliveries", why, fix)


async def _is_read(api: PubSubApi, topic: str) -> Finding:
    """Check that ``topic`` has a subscription: without one, Pub/Sub discards what is published."""
    check, full = "pubsub.push_subscription", api.topic(topic)
    try:
        listed = await api.call("list_topic_subscriptions", full, topic=full)
    except Unavailable as problem:
        if status(problem) in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED):
            return note(check, f"the subscriptions of {topic} cannot be listed")
        raise
    if listed.subscriptions:
        return fine(check, f"{len(listed.subscriptions)} of {topic}")
    why = "Push commands are lost: users who are offline learn of mail only when they open the app."
    return warning(check, f"{topic} has no subscription", why, "create one for the notification service")


async def probe(api: PubSubApi) -> Finding:
    """Publish two messages to a topic made for this and check that they arrive in order. Real topics are not used."""
    check, name = "pubsub.probe", f"router-doctor-{secrets.token_hex(8)}"
    topic, subscription = api.topic(name), api.subscription(name)
    began = time.perf_counter()
    try:
        await api.call("create_topic", topic, name=topic)
    except Unavailable as problem:
        if status(problem) is not grpc.StatusCode.PERMISSION_DENIED:
            raise
        why = "These credentials may not create topics, as is right for services."
        return note(check, "publishing and pulling were not tried", why, "run this with the account of `router setup`")
    try:
        await _subscribe(api, topic, subscription)
        sent = [PubsubMessage(data=data, ordering_key="probe") for data in (b"first", b"second")]
        await api.publish(topic, sent)
        got = await _pull(api, subscription, len(sent))
    finally:
        await _remove(api, topic, subscription)
    if got == [b"first", b"second"]:
        return fine(check, f"two messages pass in order, in {(time.perf_counter() - began) * 1000:.0f} ms")
    why = "Mail is not routed, or not in order."
    return error(check, f"{len(got)} of two messages came back, or not in order", why, "check Google's status page")


async def _subscribe(api: PubSubApi, topic: str, subscription: str) -> None:
    await api.call(
        "create_subscription",
        subscription,
        name=subscription,
        topic=topic,
        enable_message_ordering=True,
        message_retention_duration={"seconds": PROBE_RETENTION_SECONDS},
        expiration_policy={"ttl": {"seconds": DAY_SECONDS}},  # if this process dies, Pub/Sub deletes it
    )


async def _pull(api: PubSubApi, subscription: str, count: int) -> list[bytes]:
    """The bodies, in the order of their arrival, each once."""
    got: dict[bytes, None] = {}
    deadline = time.monotonic() + PULL_SECONDS
    while len(got) < count and (left := deadline - time.monotonic()) > 0:
        received = await api.pull(subscription, count, left)
        got |= {one.message.data: None for one in received}
        await api.acknowledge(subscription, [one.ack_id for one in received]) if received else None
    return list(got)


async def _remove(api: PubSubApi, topic: str, subscription: str) -> None:
    for method, kind, full in (("delete_subscription", "subscription", subscription), ("delete_topic", "topic", topic)):
        try:
            fields: dict[str, Any] = {kind: full}
            await api.call(method, full, **fields)
        except Unavailable as problem:
            if status(problem) is not grpc.StatusCode.NOT_FOUND:
                raise
