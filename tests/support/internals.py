"""What a library's classes have, compared with a table that says what the router relies on.

In such a table ``"send(message)"`` is a call with its arguments, and ``"transport"`` an attribute.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator


def names(relied_on: Iterable[str]) -> set[str]:
    """Without arguments."""
    return {each.partition("(")[0] for each in relied_on}


def changes(library: type, relied_on: Iterable[str]) -> Iterator[str]:
    """What ``library`` has no more, or takes other arguments for."""
    there = members(library)
    for each in relied_on:
        name = each.partition("(")[0]
        if name not in there:
            yield f"{library.__name__} has no {name}"
        elif name != each and (problem := _refusal(library, each)):
            yield f"{library.__name__}.{each}: {problem}"


def members(code: type) -> set[str]:
    """What objects of ``code`` have: what their class defines, and what its methods assign to ``self``."""
    found = set(dir(code))
    for node in (node for base in code.__mro__ for node in ast.walk(_source(base))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def used(code: type, *of: str) -> set[str]:
    """What ``code`` takes of what the expressions ``of`` stand for, such as ``self`` and ``self.flow``."""
    nodes = ast.walk(_source(code))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) in of}


def defined(code: type) -> set[str]:
    """What ``code`` itself defines, without what Python adds."""
    return {name for name in vars(code) if not name.startswith("__")}


def protocol(code: type) -> list[str]:
    """The table that a ``Protocol`` is."""
    attributes = list(inspect.get_annotations(code))
    calls = [_call(name, value) if inspect.isfunction(value) else name for name, value in vars(code).items()]
    return sorted(attributes + [each for each in calls if not each.startswith("_")])


def _call(name: str, function: Callable[..., object]) -> str:
    _, *parameters = inspect.signature(function).parameters.values()
    return f"{name}({', '.join(map(_argument, parameters))})"


def _argument(parameter: inspect.Parameter) -> str:
    name = parameter.name
    match parameter.kind:
        case inspect.Parameter.KEYWORD_ONLY:
            return f"{name}={name}"
        case inspect.Parameter.VAR_POSITIONAL:
            return f"*{name}"
        case inspect.Parameter.VAR_KEYWORD:
            return f"**{name}"
    return name


def _refusal(library: type, call: str) -> str | None:
    asked = ast.parse(call, mode="eval").body
    assert isinstance(asked, ast.Call), f"{call} is no call"
    function = getattr(library, ast.unparse(asked.func))
    if not callable(function):
        return "it is no method"
    try:
        inspect.signature(function).bind("self", *asked.args, **{each.arg or "others": None for each in asked.keywords})
    except TypeError as error:
        return str(error)
    return None


def _source(code: type) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError):  # written in C
        return ast.Module([], [])
