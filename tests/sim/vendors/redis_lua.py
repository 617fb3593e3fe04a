"""Lua scripts as Redis runs them: Lua 5.1, ``KEYS`` and ``ARGV``, ``redis.call`` and ``struct``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from lupa.lua51 import LuaError, LuaRuntime, lua_type  # type: ignore[import-untyped]  # the library has no types

from tests.sim.vendors.redis_data import Error, Reply, Simple

Caller = Callable[[bytes, Sequence[bytes]], Reply]


class Script:
    """One script, compiled, and what its first line says of it."""

    def __init__(self, text: bytes) -> None:
        first, _, rest = text.partition(b"\n")
        flagged = first.startswith(b"#!lua")
        self.allows_oom = b"allow-oom" in first if flagged else False
        # The first line stays, empty, so that errors name the right one.
        self.function = _RUNTIME.compile(b"\n" + rest if flagged else text)


def digest(text: bytes) -> bytes:
    return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()


@lru_cache(maxsize=1024)
def compiled(text: bytes) -> Script:
    """The script of ``text``; shared by all servers, which each know some."""
    return Script(text)


def run(script: Script, keys: Sequence[bytes], arguments: Sequence[bytes], call: Caller) -> Reply:
    """The reply of ``script``, whose commands go to ``call``; raises ``Error``."""
    _callers.append(call)
    _GLOBALS.KEYS, _GLOBALS.ARGV = _table(keys), _table(arguments)
    try:
        return _reply(script.function())
    except LuaError as error:
        raise Error(f"ERR {error}") from error
    finally:
        _callers.pop()


def _reply(value: Any) -> Reply:
    """What the client gets for a Lua value."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return 1 if value else None
    if isinstance(value, int | float):
        return int(value)
    if lua_type(value) == "table":
        done = value[b"ok"]
        return list(_items(value)) if done is None else Simple(done)
    return None


def _items(table: Any) -> Iterator[Reply]:
    index = 1
    while (value := table[index]) is not None:
        yield _reply(value)
        index += 1


def _call(name: bytes, *arguments: bytes | float) -> Any:
    reply = _callers[-1](name.upper(), [_argument(argument) for argument in arguments])
    return _value(reply)


def _argument(value: bytes | float) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Error("ERR Lua redis lib command arguments must be strings or integers")
    return b"%d" % value if value == int(value) else b"%.17g" % value


def _value(reply: Reply) -> Any:
    """What the script gets for a reply."""
    if reply is None:
        return False
    if isinstance(reply, Simple):
        return _RUNTIME.table_from({b"ok": bytes(reply)})
    return _table([_value(item) for item in reply]) if isinstance(reply, list) else reply


def _table(items: Sequence[Any]) -> Any:
    return _RUNTIME.table_from(items)


@lru_cache(maxsize=64)
def _sizes(layout: bytes) -> tuple[int, ...]:
    """How many bytes each number of a layout such as ``>BI7`` has."""
    if layout[:1] != b">":
        raise Error(f"ERR the simulated struct knows no {layout!r}")
    sizes, at = [], 1
    while at < len(layout):
        letter = layout[at : at + 1]
        if letter == b"B":
            sizes.append(1)
            at += 1
        elif letter == b"I":
            sizes.append(int(layout[at + 1 : at + 2]))
            at += 2
        else:
            raise Error(f"ERR the simulated struct knows no {layout!r}")
    return tuple(sizes)


def _pack(layout: bytes, *numbers: float) -> bytes:
    pairs = zip(numbers, _sizes(layout), strict=True)
    return b"".join((int(number) % (1 << 8 * size)).to_bytes(size, "big") for number, size in pairs)


def _unpack(layout: bytes, text: bytes, start: int = 1) -> tuple[int, ...]:
    at, found = start - 1, []
    for size in _sizes(layout):
        if at + size > len(text):
            raise Error("ERR data string too short")
        found.append(int.from_bytes(text[at : at + size], "big"))
        at += size
    return (*found, at + 1)


_callers: list[Caller] = []
_RUNTIME: Any = LuaRuntime(encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False)
_GLOBALS: Any = _RUNTIME.globals()
_GLOBALS.redis = _RUNTIME.table_from({b"call": _call})
_GLOBALS.struct = _RUNTIME.table_from({b"pack": _pack, b"unpack": _unpack})
