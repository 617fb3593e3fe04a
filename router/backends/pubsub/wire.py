"""Pub/Sub's calls on one channel, with the raw protobuf classes: several times cheaper than the library's wrappers."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub as types

from router.backends.google.calls import CALL_SECONDS, TRANSIENT, call
from router.backends.google.channels import PUBSUB, metadata
from router.errors import Unavailable

Topic: Any = types.Topic.pb()
Subscription: Any = types.Subscription.pb()
PubsubMessage: Any = types.PubsubMessage.pb()
ReceivedMessage: Any = types.ReceivedMessage.pb()
StreamingPullRequest: Any = types.StreamingPullRequest.pb()

_METHODS: dict[str, tuple[str, Any, Any]] = {
    "publish": ("Publisher/Publish", types.PublishRequest.pb(), types.PublishResponse.pb()),
    "get_topic": ("Publisher/GetTopic", types.GetTopicRequest.pb(), Topic),
    "create_topic": ("Publisher/CreateTopic", Topic, Topic),
    "delete_topic": ("Publisher/DeleteTopic", types.DeleteTopicRequest.pb(), Empty),
    "list_topics": ("Publisher/ListTopics", types.ListTopicsRequest.pb(), types.ListTopicsResponse.pb()),
    "list_topic_subscriptions": (
        "Publisher/ListTopicSubscriptions",
        types.ListTopicSubscriptionsRequest.pb(),
        types.ListTopicSubscriptionsResponse.pb(),
    ),
    "get_subscription": ("Subscriber/GetSubscription", types.GetSubscriptionRequest.pb(), Subscription),
    "create_subscription": ("Subscriber/CreateSubscription", Subscription, Subscription),
    "delete_subscription": ("Subscriber/DeleteSubscription", types.DeleteSubscriptionRequest.pb(), Empty),
    "acknowledge": ("Subscriber/Acknowledge", types.AcknowledgeRequest.pb(), Empty),
    "modify_ack_deadline": ("Subscriber/ModifyAckDeadline", types.ModifyAckDeadlineRequest.pb(), Empty),
    "pull": ("Subscriber/Pull", types.PullRequest.pb(), types.PullResponse.pb()),
}


class PubSubApi:
    """One project's Pub/Sub. Its calls take the full names of topics and subscriptions, which ``topic`` and
    ``subscription`` give."""

    def __init__(self, channel: grpc.aio.Channel, project: str, chance: random.Random) -> None:
        self.project = f"projects/{project}"
        self._chance = chance
        self._metadata = tuple(metadata(PUBSUB))
        self._extras: dict[str, tuple[tuple[str, str], ...]] = {}
        """Metadata by resource; a process uses a handful."""
        self._stubs = {
            name: channel.unary_unary(
                f"/google.pubsub.v1.{path}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            for name, (path, request, response) in _METHODS.items()
        }
        self._streaming_pull = channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=StreamingPullRequest.SerializeToString,
            response_deserializer=types.StreamingPullResponse.pb().FromString,
        )

    def topic(self, name: str) -> str:
        return f"{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        return f"{self.project}/subscriptions/{name}"

    async def call(
        self,
        method: str,
        resource: str,
        *,
        repeated: Collection[grpc.StatusCode] = TRANSIENT,
        seconds: float = CALL_SECONDS,
        **fields: Any,
    ) -> Any:
        """The answer of ``method`` (a key of ``_METHODS``) to a request of ``fields``, which concerns ``resource``.

        Raises ``Unavailable``, and ``Refused`` where the request can never succeed.
        """
        request, stub = _METHODS[method][1](**fields), self._stubs[method]
        extra = self._extra(resource)
        return await call(
            f"Pub/Sub, {resource}",
            lambda timeout: stub(request, timeout=timeout, metadata=extra),
            self._chance,
            repeated=repeated,
            seconds=seconds,
        )

    async def publish(self, topic: str, messages: Sequence[Any]) -> None:
        """Return once Pub/Sub has confirmed ``messages``, which have one ordering key."""
        await self.call("publish", topic, topic=topic, messages=messages)

    async def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        await self.call("acknowledge", subscription, subscription=subscription, ack_ids=ack_ids)

    async def modify_ack_deadline(self, subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        """Set the leases of these to ``seconds`` from now; 0 hands them back."""
        await self.call(
            "modify_ack_deadline", subscription,
            subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds,
        )  # fmt: skip

    async def pull(self, subscription: str, limit: int, seconds: float) -> Sequence[Any]:
        """Up to ``limit`` deliveries; empty if none has come within ``seconds``."""
        try:
            response = await self.call(
                "pull", subscription,
                subscription=subscription, max_messages=limit, seconds=seconds, repeated=frozenset(),
            )  # fmt: skip
        except Unavailable as error:
            if status(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
                return ()
            raise
        received: Sequence[Any] = response.received_messages
        return received

    async def create(self, method: str, resource: str, **fields: Any) -> None:
        """Like ``call``; a resource that exists already is left as it is."""
        try:
            await self.call(method, resource, **fields)
        except Unavailable as error:
            if status(error) is not grpc.StatusCode.ALREADY_EXISTS:
                raise

    async def get(self, kind: str, resource: str) -> Any:
        """The topic or the subscription (``kind``) of that name, or ``None``."""
        try:
            fields: dict[str, Any] = {kind: resource}
            return await self.call(f"get_{kind}", resource, **fields)
        except Unavailable as error:
            if status(error) is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def streaming_pull(self, subscription: str) -> Any:
        """A stream of the deliveries of ``subscription``; the caller writes its first request."""
        return self._streaming_pull(metadata=self._extra(subscription))

    def _extra(self, resource: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a call, by which the service finds the region of ``resource``."""
        extra = self._extras.get(resource)
        if extra is None:
            kinds = {"/topics/": "topic", "/subscriptions/": "subscription"}
            field = next((field for part, field in kinds.items() if part in resource), "project")
            routing = ("x-goog-request-params", f"{field}={quote(resource, safe='')}")
            extra = self._extras[resource] = (*self._metadata, routing)
        return extra


def status(error: BaseException) -> grpc.StatusCode | None:
    """The status of the call that ended in ``error``."""
    cause = error.__cause__
    return cause.code() if isinstance(cause, grpc.aio.AioRpcError) else None
