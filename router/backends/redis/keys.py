"""How users, message ids and messages are written in Redis; ``lua/prelude.lua`` says which key holds what."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from uuid import UUID
from zlib import crc32

from router.checksum import NEVER
from router.messages import Connection, Delivery, Lane, Message, Pending, Queued

PARTS = ("m", "c", "i", "q", "b", "w", "e", "o", "g", "k")
"""Last parts of a user's keys, in the order of KEYS in ``lua/prelude.lua``: META, CONNECTIONS, IDS, QUEUE, BODIES,
PENDING, EPHEMERAL, OWED, GONE, GONE_KEYED."""
SHARDS = 64
"""Keys of an index over all users; they spread the index over the nodes of a cluster."""
EXPRESS = 9_000_000_000_000_000
"""Subtracted from sequences of the express lane, so that they sort first."""

_HEADER = struct.Struct(">QQBI")
"""Header of a body: queued_at, accepted_at, flags, checksum. Flags: 1 ephemeral, 2 keyed, 4 there is a checksum; the
bits from 8 up are the attempts. An earlier version writes no flag 4, and its attempts in place of the checksum. That
version reads everything in a new body right except the attempts, so both versions can run at once."""
_EPHEMERAL, _KEYED, _SUMMED, _ATTEMPT = 1, 2, 4, 8
_MOST_ATTEMPTS = 31
_CONNECTION = struct.Struct(">7s7s")
_UUID_LENGTH = 36
_GLOB = re.compile(r"[][*?\\^]")
"""Characters that mean something in a pattern of Redis."""
_LANES = (Lane.EXPRESS, Lane.NORMAL)


class Keys:
    """The names of all keys, which begin with ``prefix``; each router on one Redis has its own."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.channels = f"{prefix}:node:"
        """Prefix of a node's channel; the node's name follows."""
        self.probe = f"{prefix}:probe"
        self.leader = f"{prefix}:leader"
        """The process that counts for all."""
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, user: str) -> tuple[str, ...]:
        """The keys of one user. The user's name is the hash tag, escaped, since a ``}`` in it would end the tag."""
        tag = user.replace("%", "%25").replace("}", "%7D")
        return tuple(f"{self.prefix}:{{{tag}}}:{part}" for part in PARTS)

    def traces(self, user: str) -> str:
        """The key of the traces of one user's messages, of which no script knows."""
        return f"{self.of(user)[0][:-1]}t"

    def ids_of_all(self) -> str:
        """The pattern that the keys of all users' records match."""
        literal = _GLOB.sub(r"\\\g<0>", self.prefix)
        return f"{literal}:{{*}}:{PARTS[2]}"

    def user_of(self, key: bytes) -> str:
        """The user whose key ``key`` is."""
        tag = key.decode()[len(self.prefix) + 2 : -len(PARTS[2]) - 2]
        return tag.replace("%7D", "}").replace("%25", "%")

    def index(self, name: str, shard: int) -> str:
        return f"{self.prefix}:{name}:{shard}"


def shard_of(user: str) -> int:
    return crc32(user.encode()) % SHARDS


def pack_id(message_id: str) -> bytes:
    """``message_id`` as bytes: a UUID as 16 bytes, any other text as more or fewer, so that no two ids look alike."""
    if len(message_id) == _UUID_LENGTH:
        try:
            packed = UUID(message_id)
        except ValueError:
            pass  # not a UUID, only as long
        else:
            if str(packed) == message_id:
                return packed.bytes
    text = message_id.encode("utf-8", "surrogatepass")
    return b"~~" + text if len(text) == 15 else b"=" + text


def unpack_id(packed: bytes) -> str:
    if len(packed) == 16:
        return str(UUID(bytes=packed))
    return packed[1 if packed.startswith(b"=") else 2 :].decode("utf-8", "surrogatepass")


def pack_body(delivery: Delivery, message: Message, now: int) -> bytes:
    flags = _EPHEMERAL * message.ephemeral + _KEYED * message.keyed
    last = min(delivery.attempt, 0xFFFF_FFFF)
    if message.checksum is not None:
        flags += _SUMMED + _ATTEMPT * min(delivery.attempt, _MOST_ATTEMPTS)
        last = message.checksum
    return _HEADER.pack(now, message.accepted_at, flags, last) + message.envelope


def unpack_page(user: str, found: Sequence[bytes], announced: int) -> list[Queued]:
    """The messages of a script's result: id, place, body, …"""
    return [
        _message(user, found[index], int(found[index + 1]), found[index + 2], announced)
        for index in range(0, len(found), 3)
    ]


def _message(user: str, packed: bytes, place: int, body: bytes, announced: int) -> Queued:
    lane, sequence = place_at(place)
    if len(body) < _HEADER.size:
        damaged = Message(unpack_id(packed), user, body, lane, False, 0, checksum=NEVER)
        return Queued(damaged, sequence, 0, sequence <= announced)
    queued_at, accepted_at, flags, last = _HEADER.unpack_from(body)
    attempts, checksum = (flags // _ATTEMPT, last) if flags & _SUMMED else (last, None)
    envelope, ephemeral, keyed = body[_HEADER.size :], bool(flags & _EPHEMERAL), bool(flags & _KEYED)
    message = Message(unpack_id(packed), user, envelope, lane, ephemeral, accepted_at, keyed, checksum)
    return Queued(message, sequence, queued_at, sequence <= announced, attempts)


def unpack_header(body: bytes) -> tuple[int, int, int] | None:
    """(queued_at, accepted_at, attempts) of a body; ``None`` if it is damaged."""
    if len(body) < _HEADER.size:
        return None
    queued_at, accepted_at, flags, last = _HEADER.unpack_from(body)
    return queued_at, accepted_at, flags // _ATTEMPT if flags & _SUMMED else last


def place_at(place: int) -> tuple[Lane, int]:
    return (Lane.EXPRESS, place + EXPRESS) if place < 0 else (Lane.NORMAL, place)


def unpack_pending(found: Sequence[bytes]) -> Iterator[Pending]:
    """The pending cold writes of a script's result: id, place, …"""
    for index in range(0, len(found), 2):
        lane, sequence = place_at(int(float(found[index + 1])))
        yield Pending(unpack_id(found[index]), lane, sequence)


def is_acked(record: bytes | None) -> bool:
    """Whether the message of a record was acknowledged: ``State.ACKED`` or ``ACKED_OWED``."""
    return record is not None and record[0] & 7 in (3, 5)


def owes_nothing(record: bytes | None) -> bool:
    """Whether the record is in ``State.ACKED``: the store knows of no copy in cold."""
    return record is not None and record[0] & 7 == 3


def live_connections(user: str, held: Sequence[bytes], now: int) -> list[Connection]:
    """Those of ``unpack_connections`` whose leases have not run out."""
    return [connection for connection in unpack_connections(user, held) if connection.lease_until > now]


def unpack_connections(user: str, held: Sequence[bytes]) -> list[Connection]:
    """A user's connections, as ``HGETALL`` gives them, the oldest first; those whose leases have run out as well."""
    found = [unpack_connection(user, *pair) for pair in zip(held[::2], held[1::2], strict=True)]
    return sorted(found, key=lambda connection: (connection.since, connection.id))


def unpack_connection(user: str, connection_id: bytes, value: bytes) -> Connection:
    lease_until, since = (int.from_bytes(part, "big") for part in _CONNECTION.unpack_from(value))
    return Connection(user, connection_id.decode(), value[_CONNECTION.size :].decode(), since, lease_until)
