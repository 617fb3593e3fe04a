"""Pieces of programs, found by what they say and not by how they are written down.

In a pattern of Python ``...`` stands for any expression, and among arguments, elements or statements for any number of
them; a name is also found at the end of a longer one: ``settle(...)`` finds ``self._online.settle(written)``. In one of
Lua or SQL only white space and comments do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

_TOKEN = re.compile(r"(?P<blank>\s+|--[^\n]*)|'[^'\n]*'|\"[^\"\n]*\"|\w+|\S")
_UNSEEN = {"ctx", "kind", "type_comment", "type_params"}


def is_any(pattern: object) -> bool:
    """Whether ``pattern`` is ``...``."""
    if isinstance(pattern, ast.Expr):
        return is_any(pattern.value)
    return isinstance(pattern, ast.Constant) and pattern.value is ...


def meanings(pattern: Any, node: Any) -> list[Any] | None:
    """What each ``...`` of ``pattern`` stands for in ``node``: nodes, and lists of them. ``None`` if it is another."""
    if is_any(pattern):
        return [node] if isinstance(node, ast.AST) else None
    if isinstance(pattern, list):
        return _match_all(pattern, node) if isinstance(node, list) else None
    if not isinstance(pattern, ast.AST):
        return [] if type(pattern) is type(node) and pattern == node else None
    if isinstance(pattern, ast.Name) and isinstance(node, ast.Attribute):
        return [] if pattern.id == node.attr else None
    if type(pattern) is not type(node):
        return None
    if isinstance(pattern, ast.Call) and isinstance(node, ast.Call) and any(map(is_any, pattern.args)):
        named = {keyword.arg for keyword in pattern.keywords}
        node = ast.Call(node.func, node.args, [keyword for keyword in node.keywords if keyword.arg in named])
    return _in_turn((getattr(pattern, field), getattr(node, field)) for field in _fields(pattern))


def _fields(node: ast.AST) -> list[str]:
    return [field for field in node._fields if field not in _UNSEEN]


def _in_turn(pairs: Iterator[tuple[Any, Any]]) -> list[Any] | None:
    found: list[Any] = []
    for pattern, node in pairs:
        part = meanings(pattern, node)
        if part is None:
            return None
        found += part
    return found


def _match_all(patterns: Sequence[Any], nodes: Sequence[Any]) -> list[Any] | None:
    if not patterns:
        return None if nodes else []
    if not is_any(patterns[0]):
        first = meanings(patterns[0], nodes[0]) if nodes else None
        rest = None if first is None else _match_all(patterns[1:], nodes[1:])
        return None if first is None or rest is None else [*first, *rest]
    for count in range(len(nodes) + 1):
        rest = _match_all(patterns[1:], nodes[count:])
        if rest is not None:
            return [nodes[0] if count == 1 else list(nodes[:count]), *rest]
    return None


def spans(pattern: str, text: str) -> list[tuple[int, int]]:
    """From where to where ``pattern`` stands in ``text``, both of Lua or SQL."""
    wanted = [word for word, *_ in _words(pattern)]
    words = list(_words(text))
    return [
        (words[at][1], words[at + len(wanted) - 1][2])
        for at in range(len(words) - len(wanted) + 1)
        if [word for word, *_ in words[at : at + len(wanted)]] == wanted
    ]


def _words(text: str) -> Iterator[tuple[str, int, int]]:
    for found in _TOKEN.finditer(text):
        if found["blank"] is None:
            yield found[0], found.start(), found.end()
