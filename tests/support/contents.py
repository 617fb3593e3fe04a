"""All that Redis, Firestore and Pub/Sub hold, value by value, by the servers' own interfaces, not by the router's."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
from redis import Redis

from tests.support.servers import Server

OWNER = {"authorization": "Bearer owner"}
SECONDS = 30.0


class Value(NamedTuple):
    """One value and where it is; names of keys, fields and attributes are values too."""

    place: str
    text: bytes


def redis_values(server: Server) -> Iterator[Value]:
    """Every key of every type, and all that is in it. A value's place is the last part of its key and its type."""
    redis: Any = Redis(host="127.0.0.1", port=server.port)
    with redis:
        for key in redis.scan_iter(count=1000):
            yield Value("key", key)
            kind = redis.type(key).decode()
            place = f"{key.rpartition(b':')[2].decode()} {kind}"
            if kind == "hash":
                for name, value in redis.hgetall(key).items():
                    yield from (Value(f"{place} field", name), Value(place, value))
            elif kind == "zset":
                yield from (Value(place, member) for member in redis.zrange(key, 0, -1))
            elif kind == "list":
                yield from (Value(place, member) for member in redis.lrange(key, 0, -1))
            else:
                assert kind == "string", f"{key!r} is a {kind}: look into it here"
                yield Value(place, redis.get(key))


def firestore_values(server: Server, project: str) -> Iterator[Value]:
    """Every document of the project. A value's place is the collection of the document and the field."""
    documents = f"http://{server.address}/v1/projects/{project}/databases/(default)/documents"
    query = {"structuredQuery": {"from": [{"allDescendants": True}]}}
    answer = httpx.post(f"{documents}:runQuery", json=query, headers=OWNER, timeout=SECONDS).raise_for_status()
    for found in answer.json():
        if document := found.get("document"):
            yield Value("name", document["name"].encode())
            collection = document["name"].split("/")[-2]
            for field, value in document.get("fields", {}).items():
                yield from _leaves(f"{collection} {field}", value)


def _leaves(place: str, value: dict[str, Any]) -> Iterator[Value]:
    ((kind, content),) = value.items()
    if kind == "mapValue":
        for name, inner in content.get("fields", {}).items():
            yield Value(f"{place} name", name.encode())
            yield from _leaves(place, inner)
    elif kind == "arrayValue":
        for inner in content.get("values", []):
            yield from _leaves(place, inner)
    else:
        yield Value(place, base64.b64decode(content) if kind == "bytesValue" else str(content).encode())


POKES = "router-pokes"
"""Stands for the topics of all nodes."""


class Topics:
    """Listens to every topic of a project, from when this is made."""

    def __init__(self, server: Server, project: str, nodes: int = 0) -> None:
        """``nodes``: so many make topics of their own when they begin, which is waited for."""
        self._client = httpx.Client(base_url=f"http://{server.address}/v1/projects/{project}/", timeout=SECONDS)
        until, self.names = time.monotonic() + SECONDS, self._found()
        while sum(name.startswith(f"{POKES}-") for name in self.names) < nodes:
            assert time.monotonic() < until, "the nodes have no topics"
            time.sleep(0.05)
            self.names = self._found()
        self._read: dict[str, list[Value]] = {name: [] for name in self.names}
        for name in self.names:
            body = {"topic": f"projects/{project}/topics/{name}"}
            self._client.put(f"subscriptions/scan-{name}", json=body).raise_for_status()

    def _found(self) -> list[str]:
        found = self._client.get("topics", params={"pageSize": 1000}).raise_for_status().json()["topics"]
        return [topic["name"].rpartition("/")[2] for topic in found]

    def values(self) -> Iterator[Value]:
        """All that was published so far. A value's place is the topic, and ``data`` or what else it is."""
        for name in self.names:
            while received := self._pull(f"subscriptions/scan-{name}"):
                for one in received:
                    place = POKES if name.startswith(f"{POKES}-") else name
                    self._read[name] += _message(place, one["message"])
            yield from self._read[name]

    def _pull(self, subscription: str) -> list[dict[str, Any]]:
        body = {"maxMessages": 1000, "returnImmediately": True}
        answer = self._client.post(f"{subscription}:pull", json=body).raise_for_status().json()
        received: list[dict[str, Any]] = answer.get("receivedMessages", [])
        if received:
            ids = {"ackIds": [one["ackId"] for one in received]}
            self._client.post(f"{subscription}:acknowledge", json=ids).raise_for_status()
        return received

    def close(self) -> None:
        self._client.close()


def _message(topic: str, message: dict[str, Any]) -> Iterator[Value]:
    yield Value(f"{topic} data", base64.b64decode(message.get("data", "")))
    yield Value(f"{topic} key", message.get("orderingKey", "").encode())
    for name, value in message.get("attributes", {}).items():
        yield from (Value(f"{topic} attribute", name.encode()), Value(f"{topic} attribute", value.encode()))
