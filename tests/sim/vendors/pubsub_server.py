"""Pub/Sub: topics, and subscriptions that deliver at least once, in order for each ordering key where they are to.

What is delivered again brings back all that follows it for its key, acknowledged or not. A key belongs to one stream
while anything of it is out. A lease that is not extended ends by the service's clock, whatever the holder does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1.types import pubsub as types

from tests.sim.vendors.grpc_channel import Caller, Status, StreamEnd
from tests.sim.vendors.pubsub_subscription import Subscription
from tests.sim.vendors.wires import Place

Code = grpc.StatusCode
_DONE = [Empty().SerializeToString()]
START = 1_790_000_000
DELETED_TOPIC = "_deleted-topic_"


class PubSub:
    """The service of one project, or of several."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.topics: dict[str, list[Subscription]] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self._settings: dict[str, Any] = {}
        """Of topics."""
        self.duplicates = 0.0
        """How often what was delivered is delivered again."""
        self.published_at: dict[str, float] = {}
        """When a message with this attribute ``id`` was published last, in seconds since 1970."""
        self._messages = 0

    # Calls.

    def call(self, name: str, request: bytes, caller: Caller) -> list[bytes] | asyncio.Future[list[bytes]]:
        kind, method = self._CALLS[name]
        result: list[bytes] | asyncio.Future[list[bytes]] = method(self, kind.FromString(request), caller)
        return result

    def stream(self, name: str, stream: StreamEnd) -> None:
        request = types.StreamingPullRequest.pb().FromString(stream.requests[0])
        self._subscription(request.subscription).join(stream, request.stream_ack_deadline_seconds)

    def _publish(self, request: Any, caller: Caller) -> list[bytes]:
        subscriptions = self._topic(request.topic)
        if not request.messages:
            raise Status(Code.INVALID_ARGUMENT, "no messages")
        if len({message.ordering_key for message in request.messages}) > 1:
            raise Status(Code.INVALID_ARGUMENT, "In a single publish request, all messages must have one ordering key.")
        for message in request.messages:
            if not message.data and not message.attributes:
                raise Status(Code.INVALID_ARGUMENT, "a message has neither data nor attributes")
            self._messages += 1
            message.message_id = str(self._messages)
            message.publish_time.FromMicroseconds(int((START + self.place.now()) * 1e6))
            self.published_at[message.attributes["id"]] = START + self.place.now()
            for subscription in subscriptions:
                subscription.add(message)
        for subscription in subscriptions:
            subscription.hand_out()
        ids = [message.message_id for message in request.messages]
        return [types.PublishResponse.pb()(message_ids=ids).SerializeToString()]

    def _topic(self, name: str) -> list[Subscription]:
        if name not in self.topics:
            raise Status(Code.NOT_FOUND, f"Topic not found: {name}")
        return self.topics[name]

    def _subscription(self, name: str) -> Subscription:
        if name not in self.subscriptions:
            raise Status(Code.NOT_FOUND, f"Subscription does not exist: {name}")
        return self.subscriptions[name]

    def _get_topic(self, request: Any, caller: Caller) -> list[bytes]:
        self._topic(request.topic)
        return [self._settings[request.topic].SerializeToString()]

    def _create_topic(self, request: Any, caller: Caller) -> list[bytes]:
        if request.name in self.topics:
            raise Status(Code.ALREADY_EXISTS, f"Topic already exists: {request.name}")
        self.topics[request.name] = []
        self._settings[request.name] = request
        return [request.SerializeToString()]

    def _delete_topic(self, request: Any, caller: Caller) -> list[bytes]:
        """Its subscriptions stay, and nothing comes to them any more."""
        for left in self._topic(request.topic):
            left.settings.topic = DELETED_TOPIC
        del self.topics[request.topic], self._settings[request.topic]
        return _DONE

    def _list_topics(self, request: Any, caller: Caller) -> list[bytes]:
        own = sorted(name for name in self.topics if name.startswith(f"{request.project}/"))
        later = [name for name in own if name >= request.page_token]
        page, rest = later[: request.page_size or 100], later[request.page_size or 100 :]
        answer = types.ListTopicsResponse.pb()(topics=[self._settings[name] for name in page])
        answer.next_page_token = rest[0] if rest else ""
        return [answer.SerializeToString()]

    def _list_topic_subscriptions(self, request: Any, caller: Caller) -> list[bytes]:
        names = [subscription.settings.name for subscription in self._topic(request.topic)]
        return [types.ListTopicSubscriptionsResponse.pb()(subscriptions=names).SerializeToString()]

    def _get_subscription(self, request: Any, caller: Caller) -> list[bytes]:
        return [self._subscription(request.subscription).settings.SerializeToString()]

    def _create_subscription(self, request: Any, caller: Caller) -> list[bytes]:
        if request.name in self.subscriptions:
            raise Status(Code.ALREADY_EXISTS, f"Subscription already exists: {request.name}")
        if request.filter:
            raise Status(Code.INVALID_ARGUMENT, "the simulated service knows no filters")
        request.ack_deadline_seconds = request.ack_deadline_seconds or 10
        made = Subscription(self, request)
        self._topic(request.topic).append(made)
        self.subscriptions[request.name] = made
        return [request.SerializeToString()]

    def _delete_subscription(self, request: Any, caller: Caller) -> list[bytes]:
        gone = self._subscription(request.subscription)
        del self.subscriptions[request.subscription]
        if gone.settings.topic != DELETED_TOPIC:
            self.topics[gone.settings.topic].remove(gone)
        gone.close()
        return _DONE

    def _acknowledge(self, request: Any, caller: Caller) -> list[bytes]:
        self._subscription(request.subscription).ack(_part(request.ack_ids, caller))
        return _DONE

    def _modify_ack_deadline(self, request: Any, caller: Caller) -> list[bytes]:
        ids, seconds = _part(request.ack_ids, caller), request.ack_deadline_seconds
        self._subscription(request.subscription).extend(ids, seconds)
        return _DONE

    def _pull(self, request: Any, caller: Caller) -> list[bytes] | asyncio.Future[list[bytes]]:
        subscription = self._subscription(request.subscription)
        return subscription.pull(caller, request.max_messages, wait=not request.return_immediately)

    _CALLS = {  # noqa: RUF012 - never changed
        "Publish": (types.PublishRequest.pb(), _publish),
        "GetTopic": (types.GetTopicRequest.pb(), _get_topic),
        "CreateTopic": (types.Topic.pb(), _create_topic),
        "DeleteTopic": (types.DeleteTopicRequest.pb(), _delete_topic),
        "ListTopics": (types.ListTopicsRequest.pb(), _list_topics),
        "ListTopicSubscriptions": (types.ListTopicSubscriptionsRequest.pb(), _list_topic_subscriptions),
        "GetSubscription": (types.GetSubscriptionRequest.pb(), _get_subscription),
        "CreateSubscription": (types.Subscription.pb(), _create_subscription),
        "DeleteSubscription": (types.DeleteSubscriptionRequest.pb(), _delete_subscription),
        "Acknowledge": (types.AcknowledgeRequest.pb(), _acknowledge),
        "ModifyAckDeadline": (types.ModifyAckDeadlineRequest.pb(), _modify_ack_deadline),
        "Pull": (types.PullRequest.pb(), _pull),
    }


def _part(ids: Sequence[str], caller: Caller) -> Sequence[str]:
    """Of what is told about deliveries, the service may do a part."""
    return ids if caller.fate.part >= 1 else ids[: int(len(ids) * caller.fate.part)]
