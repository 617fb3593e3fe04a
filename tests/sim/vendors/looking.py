"""What lies in the simulated servers, looked at past all components."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Protocol

from router.backends.firestore import recipient as recipients
from router.backends.firestore import records
from router.backends.firestore.names import Layout, name_of
from router.backends.firestore.transactions import OnlineLayout
from router.backends.redis.keys import Keys, unpack_id
from router.lifecycle import State
from tests.sim.stores import flipped
from tests.sim.vendors.firestore_server import Firestore
from tests.sim.vendors.redis_data import SortedSet
from tests.sim.vendors.redis_server import Redis

HEADER = 21
"""Bytes that stand before an envelope in Redis."""
CHECKSUM = 17
"""Where the checksum begins in them."""
Pairs = tuple[tuple[str, str], ...]
"""(user, id) pairs."""


class Online(Protocol):
    """An online store."""

    def hot(self) -> Pairs: ...

    def moving_until(self, user: str) -> int:
        """The end of the last migration lease, µs since 1970."""
        ...

    def present(self) -> set[str]:
        """Users who hold connections, as far as it knows."""
        ...

    def states(self) -> dict[str, State]:
        """By id."""
        ...

    def miscounts(self) -> list[str]:
        """What it counts wrongly, in words."""
        ...

    def bytes(self) -> dict[str, tuple[int, int]]:
        """What it counts of each user's hot and cold mail."""
        ...

    def sizes(self) -> list[tuple[str, int]]:
        """Of each hot message its user, and the bytes of its envelope."""
        ...

    def flip(self, chance: random.Random) -> str | None:
        """A bit of a hot message is another; returns which message, if there is one."""
        ...


class RedisLook:
    """``Online`` in Redis."""

    def __init__(self, server: Redis, *, prefix: str, users: list[str]) -> None:
        self._data = server.data
        self._keys = {user: [key.encode() for key in Keys(prefix).of(user)] for user in users}

    def hot(self) -> Pairs:
        return tuple((user, unpack_id(id_)) for user in self._keys for id_ in self._queue(user))

    def _queue(self, user: str) -> list[bytes]:
        held = self._data.look(self._keys[user][3], SortedSet)
        return [id_ for _, id_ in held.order] if held is not None else []

    def _hash(self, user: str, part: int) -> dict[bytes, bytes]:
        return self._data.look(self._keys[user][part], dict) or {}

    def moving_until(self, user: str) -> int:
        return int(self._hash(user, 0).get(b"u", b"0"))

    def present(self) -> set[str]:
        return {user for user in self._keys if self._hash(user, 1)}

    def states(self) -> dict[str, State]:
        return {
            unpack_id(id_): State(record[0] & 7) for user in self._keys for id_, record in self._hash(user, 2).items()
        }

    def miscounts(self) -> list[str]:
        found = []
        for user in self._keys:
            meta, queue = self._hash(user, 0), self._queue(user)
            counted = int(meta.get(b"h", b"0"))
            if counted != len(queue):
                found.append(f"the store counts {counted} hot messages of {user} and holds {len(queue)}")
            if set(self._hash(user, 4)) != set(queue):
                found.append(f"the hot queue of {user} and its bodies differ")
            pending = {id_ for id_, record in self._hash(user, 2).items() if record[0] & 7 == State.PENDING}
            if pending != set(self._hash(user, 5)):
                found.append(f"the store knows of {len(pending)} cold writes for {user}, and says otherwise")
        return found

    def bytes(self) -> dict[str, tuple[int, int]]:
        metas = {user: self._hash(user, 0) for user in self._keys}
        return {user: (int(meta.get(b"b", b"0")), int(meta.get(b"z", b"0"))) for user, meta in metas.items()}

    def sizes(self) -> list[tuple[str, int]]:
        return [(user, len(body) - HEADER) for user in self._keys for body in self._hash(user, 4).values()]

    def flip(self, chance: random.Random) -> str | None:
        held = [(self._hash(user, 4), id_) for user in self._keys for id_ in self._hash(user, 4)]
        if not held:
            return None
        bodies, id_ = chance.choice(held)
        body = bodies[id_]
        bodies[id_] = body[:CHECKSUM] + flipped(body[CHECKSUM:], chance)
        return unpack_id(id_)


class FirestoreLook:
    """``Online`` in Firestore."""

    def __init__(self, server: Firestore, layout: OnlineLayout, users: list[str]) -> None:
        self._server = server
        self._layout = layout
        self._users = users

    def hot(self) -> Pairs:
        return tuple((user, _id(one)) for user in self._users for one in self._hot(user))

    def _hot(self, user: str) -> list[Any]:
        return list(self._server.collections.get(self._layout.hot_of(user), {}).values())

    def _state(self, user: str) -> recipients.Recipient:
        found = self._server.find(self._layout.user(user))
        return recipients.read(user, found, cold_empty=False)

    def moving_until(self, user: str) -> int:
        return self._state(user).move_until

    def present(self) -> set[str]:
        return {user for user in self._users if self._state(user).connections}

    def states(self) -> dict[str, State]:
        documents = self._server.collections.get(self._layout.ids, {}).values()
        return {record.id: record.state for record in map(records.read, documents)}

    def miscounts(self) -> list[str]:
        return [
            f"the store counts {self._state(user).hot} hot messages of {user} and holds {len(self._hot(user))}"
            for user in self._users
            if self._state(user).hot != len(self._hot(user))
        ]

    def bytes(self) -> dict[str, tuple[int, int]]:
        states = {user: self._state(user) for user in self._users}
        return {user: (state.hot_bytes, state.cold_bytes) for user, state in states.items()}

    def sizes(self) -> list[tuple[str, int]]:
        return [(user, _size(one)) for user in self._users for one in self._hot(user)]

    def flip(self, chance: random.Random) -> str | None:
        return flip_one([one for user in self._users for one in self._hot(user)], chance)


def cold_of(server: Firestore, layout: Layout) -> Iterator[tuple[str, str, int]]:
    """Of all cold mail its user, its id and the bytes of its envelope."""
    for path, held in server.collections.items():
        if path.endswith(f"/{layout.collection}-messages"):
            yield from ((layout.user_of(path), _id(one), _size(one)) for one in held.values())


def flip_cold(server: Firestore, layout: Layout, chance: random.Random) -> str | None:
    """As ``Online.flip``, in cold."""
    paths = [path for path in server.collections if path.endswith(f"/{layout.collection}-messages")]
    return flip_one([one for path in paths for one in server.collections[path].values()], chance)


def flip_one(documents: list[Any], chance: random.Random) -> str | None:
    if not documents:
        return None
    one = chance.choice(documents)
    if chance.random() < 0.1:
        one.fields["checksum"].integer_value ^= 1 << chance.randrange(32)
    else:
        one.fields["envelope"].bytes_value = flipped(one.fields["envelope"].bytes_value, chance)
    return _id(one)


def _size(one: Any) -> int:
    return len(one.fields["envelope"].bytes_value)


def _id(one: Any) -> str:
    return name_of(one.name.rpartition("/")[2])
