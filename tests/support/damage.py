"""Damage in the stores themselves, past the router: what a bad disk, or a bug, does to one stored message."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Literal

from router.backends.embedded.schema import FILE_NAME
from router.backends.firestore.backend import FirestoreBackend
from router.backends.firestore.names import document_id
from router.backends.firestore.wire import new_write
from router.backends.pubsub.bodies import ingress_message
from router.backends.redis.backend import RedisBackend
from router.backends.redis.keys import pack_id
from router.messages import Message
from tests.contract.stage import BOB, Stage
from tests.support.backends import opened
from tests.support.stores_pubsub import PubSubStores

Tier = Literal["hot", "cold"]
Change = Callable[[bytes], bytes]


def flipped(stored: bytes) -> bytes:
    """One bit is another: in the middle, so in the envelope wherever that is stored with something before it."""
    middle = len(stored) * 2 // 3
    return stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :]


def cut_off(stored: bytes) -> bytes:
    """What is left is shorter than any header."""
    return stored[:7]


async def spoil(stage: Stage, tier: Tier, id_: str, change: Change = flipped) -> None:
    """``change`` what ``tier`` has stored of BOB's message ``id_``."""
    config = stage.factory.config
    kind = config.online.kind if tier == "hot" else config.cold.kind
    if kind == "redis":
        await _spoil_redis(stage, id_, change)
    elif kind == "firestore":
        await _spoil_firestore(stage, tier, id_, change)
    else:
        execute(stage, f"UPDATE {tier} SET envelope = changed(envelope) WHERE id = ?", id_, change=change)


def execute(stage: Stage, statement: str, *parameters: object, change: Change = flipped) -> int:
    """Another process changes rows of the file, which knows ``change`` as ``changed``; returns how many."""
    path = stage.factory.config.embedded.data_dir / FILE_NAME
    with closing(sqlite3.connect(path, timeout=10)) as db, db:
        db.create_function("changed", 1, change)
        return db.execute(statement, parameters).rowcount


async def _spoil_redis(stage: Stage, id_: str, change: Change) -> None:
    backend = await opened(stage.factory, RedisBackend)
    bodies, packed = backend._keys.of(BOB)[4], pack_id(id_)
    ((stored,),) = [await backend.client.run([("HGET", bodies, packed)])]
    await backend.client.run([("HSET", bodies, packed, change(stored))])


async def _spoil_firestore(stage: Stage, tier: Tier, id_: str, change: Change) -> None:
    backend = await opened(stage.factory, FirestoreBackend)
    config = stage.factory.config
    collection, messages = (
        (config.online.collection, f"{config.online.collection}-hot")
        if tier == "hot"
        else (config.cold.collection, f"{config.cold.collection}-messages")
    )
    path = f"{backend._layout.documents}/{collection}/{document_id(BOB)}/{messages}/{document_id(id_)}"
    found = await backend.client.call(lambda seconds: backend.client.get([path], seconds))
    document = found[path]
    document.fields["envelope"].bytes_value = change(document.fields["envelope"].bytes_value)
    assert await backend.client.batch_write([_overwriting(document)], 5.0) == [(0, "")]


def _overwriting(document: object) -> object:
    write = new_write()
    write.update.CopyFrom(document)
    for name in ("create_time", "update_time"):
        write.update.ClearField(name)
    return write


async def publish_damaged(stage: Stage, message: Message, change: Change = flipped) -> None:
    """``message`` is accepted, and then changed in the ingress."""
    if stage.factory.config.ingress.kind == "embedded":
        await stage.producer.publish([message])
        assert execute(stage, "UPDATE ingress SET envelope = changed(envelope) WHERE id = ?", message.id, change=change)
        return
    assert isinstance(stage.stores, PubSubStores)
    published = ingress_message(message, stage.stores.shards)
    published.data = change(published.data)
    await stage.stores.api.publish(stage.stores.api.topic("ingress-topic"), [published])
