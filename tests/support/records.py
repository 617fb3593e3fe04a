"""The online store's record of an id, looked at past the router."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from router.backends.embedded.schema import FILE_NAME
from router.backends.firestore import recipient as recipients
from router.backends.firestore import records
from router.backends.firestore.backend import FirestoreBackend
from router.backends.firestore.transactions import OnlineLayout
from router.backends.redis.backend import RedisBackend
from router.backends.redis.keys import pack_id
from router.lifecycle import Event, State, state_of, step
from tests.contract.stage import BOB, Stage
from tests.support.backends import opened


async def state_on_record(stage: Stage, id_: str) -> State:
    """The state of BOB's message ``id_``."""
    kind = stage.factory.config.online.kind
    if kind == "redis":
        return await _state_in_redis(stage, id_)
    if kind == "firestore":
        return await _state_in_firestore(stage, id_)
    path = stage.factory.config.embedded.data_dir / FILE_NAME
    with closing(sqlite3.connect(path, timeout=10)) as db:
        row = db.execute("SELECT state FROM route WHERE id = ? AND user = ?", (id_, BOB)).fetchone()
    return state_of(row[0]) if row else State.UNKNOWN


async def _state_in_redis(stage: Stage, id_: str) -> State:
    backend = await opened(stage.factory, RedisBackend)
    ((record,),) = [await backend.client.run([("HGET", backend._keys.of(BOB)[2], pack_id(id_))])]
    return state_of(record[0] & 7) if record else State.UNKNOWN


async def _state_in_firestore(stage: Stage, id_: str) -> State:
    config, client = stage.factory.config, (await opened(stage.factory, FirestoreBackend)).client
    assert config.google.project is not None
    layout = OnlineLayout(config.google.project, config.google.firestore_database, config.online.collection)
    paths = [layout.user(BOB), records.path(layout.ids, BOB, id_)]
    user, document = map((await client.call(lambda seconds: client.get(paths, seconds))).get, paths)
    if document is None:
        return State.UNKNOWN
    record = records.read(document)
    # A migrator writes up to which place it has taken messages, instead of a state in each record.
    taken = recipients.read(BOB, user, cold_empty=False).is_doubled(record.lane, record.sequence)
    return step(record.state, Event.TAKEN).after if taken else record.state
