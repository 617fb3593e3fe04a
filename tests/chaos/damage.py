"""Bits that flip in the stores of a router that runs: one stored copy of one message at a time, past the router."""

from __future__ import annotations

import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import httpx
from msgspec import Struct
from redis.exceptions import RedisError

from router.backends.firestore.names import name_of
from router.backends.redis.keys import unpack_id
from tests.support.redis_servers import client
from tests.support.servers import Server

Change = Callable[[bytes], bytes]
HEADER = 21
"""So many bytes stand before the envelope in a body in Redis."""
LOCKED_SECONDS = 2.0
OUT_OF_REACH = (sqlite3.OperationalError, RedisError, httpx.TransportError)
"""The store is locked, frozen, or about to be replaced."""
_IF_THE_SAME = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


class Copy(Struct, frozen=True):
    """One stored copy of a message."""

    queue: str
    """Those of one recipient, or of one key."""
    name: str
    """In its store."""
    id: str
    """The message's."""


class Stored(Protocol):
    """Where copies of messages are stored. Both methods raise one of ``OUT_OF_REACH`` where the store does."""

    def copies(self) -> list[Copy]:
        """Those that are there now."""
        ...

    def change(self, copy: Copy, change: Change) -> bool:
        """Have ``change`` made to the envelope of ``copy``; False, and nothing is changed, where it is gone by then."""
        ...


class Table:
    """``hot``, ``cold`` or ``ingress`` of the embedded file, through a connection of its own."""

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        self._table = table
        self._user = "recipient" if table == "ingress" else "user"

    def copies(self) -> list[Copy]:
        with closing(sqlite3.connect(self._path, timeout=LOCKED_SECONDS)) as db:
            found = db.execute(f"SELECT {self._user}, rowid, id FROM {self._table}").fetchall()
        return [Copy(user, str(row), id_) for user, row, id_ in found]

    def change(self, copy: Copy, change: Change) -> bool:
        statement = f"UPDATE {self._table} SET envelope = changed(envelope) WHERE rowid = ? AND id = ?"
        with closing(sqlite3.connect(self._path, timeout=LOCKED_SECONDS)) as db, db:
            db.create_function("changed", 1, change)
            return db.execute(statement, (int(copy.name), copy.id)).rowcount == 1


class Bodies:
    """The hashes of bodies in the Redis that is the master."""

    def __init__(self, master: Callable[[], Server | None], prefix: str) -> None:
        self._master = master
        self._pattern = f"{prefix}:*:b"

    def copies(self) -> list[Copy]:
        server = self._master()
        if server is None:
            return []
        with closing(client(server)) as redis:
            keys = list(redis.scan_iter(match=self._pattern, count=1000))
            return [Copy(key.decode(), field.hex(), unpack_id(field)) for key in keys for field in redis.hkeys(key)]

    def change(self, copy: Copy, change: Change) -> bool:
        server = self._master()
        if server is None:
            return False
        field = bytes.fromhex(copy.name)
        with closing(client(server)) as redis:
            body = redis.hget(copy.queue, field)
            if body is None:
                return False
            changed = body[:HEADER] + change(body[HEADER:])
            return bool(redis.eval(_IF_THE_SAME, 1, copy.queue, field, body, changed) == 1)


class Documents:
    """The documents of a collection, of all recipients, in the Firestore emulator."""

    def __init__(self, server: Server, project: str, collection: str) -> None:
        self._url = f"http://{server.address}/v1/"
        self._root = f"projects/{project}/databases/(default)/documents"
        self._collection = collection

    def copies(self) -> list[Copy]:
        everywhere = {"collectionId": self._collection, "allDescendants": True}
        names = {"fields": [{"fieldPath": "__name__"}]}
        found = self._post("runQuery", {"structuredQuery": {"from": [everywhere], "select": names}})
        paths = [row["document"]["name"] for row in found.json() if "document" in row]
        return [Copy(path.rpartition("/")[0], path, name_of(path.rpartition("/")[2])) for path in paths]

    def change(self, copy: Copy, change: Change) -> bool:
        (row,) = self._post("batchGet", {"documents": [copy.name]}).json()
        if "found" not in row:
            return False
        document = row["found"]
        envelope = change(b64decode(document["fields"]["envelope"]["bytesValue"]))
        fields = {"envelope": {"bytesValue": b64encode(envelope).decode()}}
        write = {
            "update": {"name": copy.name, "fields": fields},
            "updateMask": {"fieldPaths": ["envelope"]},
            "currentDocument": {"updateTime": document["updateTime"]},
        }
        return self._post("commit", {"writes": [write]}).is_success

    def _post(self, call: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(
            f"{self._url}{self._root}:{call}",
            json=body,
            headers={"authorization": "Bearer owner"},
            timeout=LOCKED_SECONDS,
        )
