"""What a Redis holds, and the commands that the router's scripts and its client use, with Redis's own replies.

Replies are ``None``, ``int``, ``bytes``, ``list`` and ``Simple``; a command that is refused raises ``Error``.
"""

from __future__ import annotations

import fnmatch
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

Reply = Any
V = TypeVar("V")
INFINITY = float("inf")
SMALL = 128
"""A hash up to this many fields is scanned in one step."""


class Error(Exception):
    """A reply that says why not, beginning with its code."""


class Simple(bytes):
    """A simple string, such as OK."""


OK = Simple(b"OK")
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class SortedSet:
    """Members by their scores."""

    def __init__(self) -> None:
        self.scores: dict[bytes, float] = {}
        self.order: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self.order)

    def add(self, member: bytes, score: float) -> None:
        self.remove(member)
        self.scores[member] = score
        insort(self.order, (score, member))

    def remove(self, member: bytes) -> bool:
        score = self.scores.pop(member, None)
        if score is None:
            return False
        del self.order[bisect_left(self.order, (score, member))]
        return True

    def between(self, lowest: bytes, highest: bytes) -> list[tuple[float, bytes]]:
        """Those between two bounds as ZRANGEBYSCORE has them."""
        least, most = score(lowest.removeprefix(b"(")), score(highest.removeprefix(b"("))
        # No score is followed by an empty member; the list above any member of the same score has no upper bound.
        start = bisect_right(self.order, least, key=_score) if lowest[:1] == b"(" else bisect_left(self.order, (least,))
        end = bisect_left(self.order, (most,)) if highest[:1] == b"(" else bisect_right(self.order, most, key=_score)
        return self.order[start:end]


def _score(entry: tuple[float, bytes]) -> float:
    return entry[0]


def score(text: bytes) -> float:
    """The number that ``text`` says."""
    try:
        return float(text)
    except ValueError:
        raise Error("ERR min or max is not a float") from None


def number_text(number: float) -> bytes:
    """A score as Redis writes it."""
    return str(int(number)).encode() if number == int(number) else b"%.17g" % number


def integer(text: bytes) -> int:
    """The whole number that ``text`` says."""
    try:
        return int(text)
    except ValueError:
        raise Error("ERR value is not an integer or out of range") from None


class Data:
    """All keys; ``now`` gives the server's own time in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.keys: dict[bytes, Any] = {}
        self._ends: dict[bytes, float] = {}
        self._scans: dict[bytes, list[bytes]] = {}

    def clear(self) -> None:
        """All is forgotten."""
        self.keys.clear()
        self._ends.clear()

    def copied(self) -> Data:
        """The same once more."""
        copied = Data(self._now)
        copied.keys, copied._ends = deepcopy(self.keys), dict(self._ends)
        return copied

    def look(self, key: bytes, kind: type[V]) -> V | None:
        """What ``key`` holds; raises ``Error`` where that is of another kind."""
        if self._ends and self._ends.get(key, INFINITY) <= self._now():
            self.drop(key)
        value = self.keys.get(key)
        if value is not None and type(value) is not kind:
            raise Error(WRONG_TYPE)
        return value

    def make(self, key: bytes, kind: type[V]) -> V:
        """What ``key`` holds, or a new value of that kind."""
        value = self.look(key, kind)
        if value is None:
            value = self.keys[key] = kind()
        return value

    def drop(self, key: bytes) -> bool:
        self._ends.pop(key, None)
        return self.keys.pop(key, None) is not None

    def shrink(self, key: bytes, value: Any) -> None:
        """No key holds an empty value."""
        if not value:
            self.drop(key)

    # Keys.

    def exists(self, *keys: bytes) -> int:
        return sum(key in self.keys and self._lives(key) for key in keys)

    def _lives(self, key: bytes) -> bool:
        if self._ends.get(key, INFINITY) <= self._now():
            self.drop(key)
            return False
        return True

    def delete(self, *keys: bytes) -> int:
        return sum(self._lives(key) and self.drop(key) for key in keys)

    def pexpire(self, key: bytes, milliseconds: bytes) -> int:
        if not self.exists(key):
            return 0
        self._ends[key] = self._now() + integer(milliseconds) / 1000
        return 1

    def match(self, pattern: bytes) -> list[bytes]:
        return [key for key in list(self.keys) if self._lives(key) and fnmatch.fnmatchcase(repr(key), repr(pattern))]

    # Strings.

    def get(self, key: bytes) -> bytes | None:
        return self.look(key, bytes)

    def set(self, key: bytes, value: bytes, *options: bytes) -> Reply:
        words = [option.upper() for option in options]
        if b"NX" in words and self.exists(key):
            return None
        self.drop(key)
        self.keys[key] = value
        if b"EX" in words:
            self._ends[key] = self._now() + integer(options[words.index(b"EX") + 1])
        return OK

    # Hashes.

    def hget(self, key: bytes, field: bytes) -> bytes | None:
        held = self.look(key, dict)
        return None if held is None else held.get(field)

    def hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        held = self.look(key, dict) or {}
        return [held.get(field) for field in fields]

    def hset(self, key: bytes, *pairs: bytes) -> int:
        if len(pairs) % 2 or not pairs:
            raise Error("ERR wrong number of arguments for 'hset' command")
        held = self.make(key, dict)
        before = len(held)
        held.update(zip(pairs[::2], pairs[1::2], strict=True))
        return len(held) - before

    def hdel(self, key: bytes, *fields: bytes) -> int:
        held = self.look(key, dict) or {}
        gone = sum(held.pop(field, None) is not None for field in fields)
        self.shrink(key, held)
        return gone

    def hexists(self, key: bytes, field: bytes) -> int:
        return int(field in (self.look(key, dict) or {}))

    def hgetall(self, key: bytes) -> list[bytes]:
        return [part for pair in (self.look(key, dict) or {}).items() for part in pair]

    def hvals(self, key: bytes) -> list[bytes]:
        return list((self.look(key, dict) or {}).values())

    def hstrlen(self, key: bytes, field: bytes) -> int:
        return len((self.look(key, dict) or {}).get(field, b""))

    def hincrby(self, key: bytes, field: bytes, amount: bytes) -> int:
        held = self.make(key, dict)
        try:
            number = int(held.get(field, b"0")) + integer(amount)
        except ValueError:
            raise Error("ERR hash value is not an integer") from None
        held[field] = b"%d" % number
        return number

    def hscan(self, key: bytes, cursor: bytes, *options: bytes) -> list[Any]:
        """What is there from beginning to end of a scan is returned by it; a cursor is a place in the first look."""
        held = self.look(key, dict) or {}
        if len(held) <= SMALL and cursor == b"0":
            return [b"0", self.hgetall(key)]
        if cursor == b"0":
            self._scans[key] = list(held)
        fields, start = self._scans.get(key, []), integer(cursor)
        count = integer(options[1]) if options else 10
        found = [part for field in fields[start : start + count] if field in held for part in (field, held[field])]
        return [b"%d" % (start + count) if start + count < len(fields) else b"0", found]

    # Lists.

    def rpush(self, key: bytes, *values: bytes) -> int:
        held = self.make(key, list)
        held += values
        return len(held)

    def lindex(self, key: bytes, index: bytes) -> bytes | None:
        held, at = self.look(key, list) or [], integer(index)
        return held[at] if -len(held) <= at < len(held) else None

    def lpop(self, key: bytes) -> bytes | None:
        held = self.look(key, list)
        if not held:
            return None
        first: bytes = held.pop(0)
        self.shrink(key, held)
        return first

    # Sorted sets.

    def zadd(self, key: bytes, *arguments: bytes) -> int:
        rest = list(arguments)
        lesser_only = rest[0].upper() == b"LT"
        if lesser_only:
            del rest[0]
        if len(rest) % 2 or not rest:
            raise Error("ERR syntax error")
        pairs = [(score(text), member) for text, member in zip(rest[::2], rest[1::2], strict=True)]
        held, added = self.make(key, SortedSet), 0
        for number, member in pairs:
            there = held.scores.get(member)
            added += there is None
            if there is None or not (lesser_only and number >= there):
                held.add(member, number)
        return added

    def zrem(self, key: bytes, *members: bytes) -> int:
        held = self.look(key, SortedSet)
        if held is None:
            return 0
        gone = sum(held.remove(member) for member in members)
        self.shrink(key, held)
        return gone

    def zcard(self, key: bytes) -> int:
        return len(self.look(key, SortedSet) or ())

    def zcount(self, key: bytes, lowest: bytes, highest: bytes) -> int:
        held = self.look(key, SortedSet)
        return len(held.between(lowest, highest)) if held is not None else 0

    def zscore(self, key: bytes, member: bytes) -> bytes | None:
        held = self.look(key, SortedSet)
        number = held.scores.get(member) if held is not None else None
        return None if number is None else number_text(number)

    def zrange(self, key: bytes, start: bytes, stop: bytes, *options: bytes) -> list[bytes]:
        held = self.look(key, SortedSet)
        order = held.order if held is not None else []
        first, last = integer(start), integer(stop)
        first = max(0, first + len(order)) if first < 0 else first
        last = last + len(order) if last < 0 else last
        return _members(order[first : last + 1], options)

    def zrangebyscore(self, key: bytes, lowest: bytes, highest: bytes, *options: bytes) -> list[bytes]:
        held = self.look(key, SortedSet)
        return _members(held.between(lowest, highest) if held is not None else [], options)

    def zrevrangebyscore(self, key: bytes, highest: bytes, lowest: bytes, *options: bytes) -> list[bytes]:
        held = self.look(key, SortedSet)
        return _members(held.between(lowest, highest)[::-1] if held is not None else [], options)


def _members(found: Sequence[tuple[float, bytes]], options: Sequence[bytes]) -> list[bytes]:
    words = [option.upper() for option in options]
    if b"LIMIT" in words:
        at = words.index(b"LIMIT")
        offset, count = integer(options[at + 1]), integer(options[at + 2])
        found = found[offset:] if count < 0 else found[offset : offset + count]
    if b"WITHSCORES" in words:
        return [part for number, member in found for part in (member, number_text(number))]
    return [member for _, member in found]


COMMANDS: dict[bytes, Callable[..., Reply]] = {
    b"DEL": Data.delete,
    b"KEYS": Data.match,
    **{
        method.__name__.upper().encode(): method
        for method in (
            Data.exists, Data.pexpire, Data.get, Data.set, Data.hget, Data.hmget, Data.hset, Data.hdel, Data.hexists,
            Data.hgetall, Data.hvals, Data.hstrlen, Data.hincrby, Data.hscan, Data.rpush, Data.lindex, Data.lpop,
            Data.zadd, Data.zrem, Data.zcard, Data.zcount, Data.zscore, Data.zrange, Data.zrangebyscore,
            Data.zrevrangebyscore,
        )
    },
}  # fmt: skip
"""By their names; each takes the data and the command's arguments."""


def perform(data: Data, name: bytes, arguments: Sequence[bytes]) -> Reply:
    """Carry out one command; raises ``Error``."""
    command = COMMANDS.get(name)
    if command is None:
        raise Error(f"ERR unknown command '{name.decode(errors='replace')}'")
    try:
        return command(data, *arguments)
    except (TypeError, IndexError):
        raise Error(f"ERR wrong number of arguments for '{name.decode().lower()}' command") from None
