"""Deliberate bugs, put into a copy of the code: each names a function, or a script, and the change of its meaning.

    Mutant(
        "mail acknowledged before it was settled stays in cold",
        in_function("Settler.settle", drop("_delete(...)")),
    )

A function is found by its qualified name, in whatever module of ``router`` it is; where several have that name,
packages or modules that hold it stand before it: ``embedded.ack``. A script is a statement of a ``*.sql``, a function
of a ``*.lua``, or a whole file: ``embedded.mark_moving``, ``redis.live``, ``lua.route``. What is to change there is
named by a pattern (``tests.support.patterns``).

A name or a pattern that is found not once but never or several times is an error, ``Misplaced``; so is new code with
names that mean nothing where it is put: such a program fails, and would count as caught.
"""

from __future__ import annotations

import ast
import builtins
import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from tests.support.patterns import is_any, meanings, spans

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_QUERY = re.compile(r"^-- (\w+): .*?(?=^-- \w+: |\Z)", re.MULTILINE | re.DOTALL)
_LUA_FUNCTION = re.compile(r"^local function (\w+)\(.*?^end$", re.MULTILINE | re.DOTALL)
_SCRIPTS = {".sql": _QUERY, ".lua": _LUA_FUNCTION}


class Misplaced(ValueError):
    """A mutant does not apply to the code as it is: which one, where, and what was looked for."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One change within a function or script; made by the functions below."""

    old: str
    new: str
    is_condition: bool = False

    def __str__(self) -> str:
        return f"{'the condition ' if self.is_condition else ''}{self.old!r}"


def replace(old: str, new: str) -> Rewrite:
    """The expression ``old``, with the ``await`` before it, becomes ``new``; where one of both is a statement, the
    innermost statement that holds ``old`` does.

    In ``new``, ``it`` stands for what was found, and ``...`` for what the one ``...`` of ``old`` stands for.
    """
    return Rewrite(old, new)


def drop(old: str) -> Rewrite:
    """The statement that holds ``old`` is left out."""
    return Rewrite(old, "pass")


def before(old: str, code: str) -> Rewrite:
    """``code`` runs before the statement that holds ``old``."""
    return Rewrite(old, f"{code}\nit")


def after(old: str, code: str) -> Rewrite:
    """``code`` runs after the statement that holds ``old``."""
    return Rewrite(old, f"it\n{code}")


def force(old: str, to: bool) -> Rewrite:
    """``old``, where it decides something by itself, or with ``and``, ``or`` or ``not``, is always ``to``."""
    return Rewrite(old, str(to), is_condition=True)


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to one function or script."""

    name: str
    rewrites: Sequence[Rewrite]
    is_script: bool


def in_function(name: str, *rewrites: Rewrite) -> Change:
    """``rewrites`` of a Python function, one after another."""
    return Change(name, rewrites, is_script=False)


def in_script(name: str, *rewrites: Rewrite) -> Change:
    """``rewrites`` of Lua or SQL: ``replace`` only."""
    return Change(name, rewrites, is_script=True)


class Mutant:
    """A bug: what it is called, and the changes that make it."""

    def __init__(self, name: str, *changes: Change) -> None:
        self.name = name
        self.changes = changes

    def __repr__(self) -> str:
        return f"Mutant({self.name!r})"


def put(mutant: Mutant, root: Path, into: Path) -> None:
    """Put ``mutant`` into the copy ``into`` of ``root``."""
    for path, text in mutated(mutant, root).items():
        (into / path).write_text(text, encoding="utf-8")


def mutated(mutant: Mutant, root: Path) -> Mapping[Path, str]:
    """The files below ``root`` that ``mutant`` changes, and what becomes of them; raises ``Misplaced``."""
    changed: dict[Path, str] = {}
    for change in mutant.changes:
        try:
            place = _find(change, root)
            text = changed.get(place.path) or (root / place.path).read_text(encoding="utf-8")
            if change.is_script:
                changed[place.path] = _script_changed(text, place, change.rewrites)
            else:
                changed[place.path] = _function_changed(text, place, change.rewrites, _words(root))
        except Misplaced as error:
            raise Misplaced(f"{mutant.name}: {error}") from None
    return changed


class _Place(NamedTuple):
    path: Path
    inside: tuple[str, ...]
    """The packages and modules around it."""
    name: str

    def __str__(self) -> str:
        return ".".join((*self.inside, self.name))


def _find(change: Change, root: Path) -> _Place:
    found = [place for place in _places(root) if _is_called(place, change)]
    if len(found) != 1:
        kind = "scripts" if change.is_script else "functions"
        which = "".join(f", {place}" for place in found)
        raise Misplaced(f"{len(found)} {kind} are called {change.name}, and it must be one{which}")
    return found[0]


def _is_called(place: _Place, change: Change) -> bool:
    if change.is_script == (place.path.suffix == ".py") or not f".{change.name}".endswith(f".{place.name}"):
        return False
    around = iter(place.inside)
    return all(part in around for part in change.name.removesuffix(place.name).split(".") if part)


@cache
def _places(root: Path) -> Sequence[_Place]:
    found: list[_Place] = []
    for file in sorted((root / "router").rglob("*.*")):
        path = file.relative_to(root)
        inside = path.with_suffix("").parts
        if file.suffix == ".py":
            found += [_Place(path, inside, name) for name, _ in _functions(ast.parse(file.read_text("utf-8")))]
        elif file.suffix in _SCRIPTS:
            parts = _SCRIPTS[file.suffix].finditer(file.read_text("utf-8"))
            found += [_Place(path, inside, part[1]) for part in parts]
            found += [_Place(path, inside[:-1], inside[-1])]
    return found


@cache
def _words(root: Path) -> frozenset[str]:
    files = (root / "router").rglob("*.py")
    return frozenset(dir(object)).union(["__dict__"], *(re.findall(r"\w+", file.read_text("utf-8")) for file in files))


def _functions(scope: ast.AST, around: str = "") -> Iterator[tuple[str, Function]]:
    for node in ast.iter_child_nodes(scope):
        name = around
        if isinstance(node, ast.ClassDef | Function):
            name = f"{around}{node.name}"
            if isinstance(node, Function):
                yield name, node
            name += "."
        yield from _functions(node, name)


def _script_changed(text: str, place: _Place, rewrites: Sequence[Rewrite]) -> str:
    for rewrite in rewrites:
        parts = {part[1]: part.span() for part in _SCRIPTS[place.path.suffix].finditer(text)}
        is_whole = (*place.inside, place.name) == place.path.with_suffix("").parts
        start, end = (0, len(text)) if is_whole else parts[place.name]
        text = text[:start] + rewritten(text[start:end], rewrite, str(place)) + text[end:]
    return text


def rewritten(script: str, rewrite: Rewrite, place: str) -> str:
    """``script``, of Lua or SQL, after ``rewrite``; raises ``Misplaced``, which calls it ``place``."""
    found = spans(rewrite.old, script)
    if len(found) != 1:
        raise Misplaced(f"in {place}, {rewrite} is found {len(found)} times, and it must be once")
    ((start, end),) = found
    changed = script[:start] + rewrite.new + script[end:]
    if changed == script:
        raise Misplaced(f"in {place}, the change of {rewrite} changes nothing")
    return changed


def _function_changed(text: str, place: _Place, rewrites: Sequence[Rewrite], words: frozenset[str]) -> str:
    tree = ast.parse(text)
    functions = dict(_functions(tree))
    function = functions[place.name]
    for rewrite in rewrites:
        was = ast.dump(function)
        _rewrite(function, rewrite, place)
        if ast.dump(function) == was:
            raise Misplaced(f"in {place}, the change of {rewrite} changes nothing")
    around = [one for name, one in functions.items() if f"{place.name}.".startswith(f"{name}.")]
    known = {*dir(builtins), *_bound(_own(tree)), *_bound(node for one in around for node in ast.walk(one))}
    nodes = list(ast.walk(function))
    loaded = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    if unknown := sorted((loaded - known) | (attributes - words)):
        raise Misplaced(f"in {place}, nothing is called {', '.join(unknown)}")
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _rewrite(function: Function, rewrite: Rewrite, place: _Place) -> None:
    old, new = ast.parse(rewrite.old).body[0], ast.parse(rewrite.new).body
    above = {id(child): node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    pattern = old.value if isinstance(old, ast.Expr) else old
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    found = [(node, any_) for node in nodes if (any_ := meanings(pattern, node)) is not None]
    if rewrite.is_condition:
        found = [(node, any_) for node, any_ in found if _decides(node, above[id(node)])]
    if len(found) != 1:
        raise Misplaced(f"in {place}, {rewrite} is found {len(found)} times, and it must be once")
    ((it, any_),) = found
    if isinstance(above[id(it)], ast.Await):
        it = above[id(it)]
    value = new[0].value if len(new) == 1 and isinstance(new[0], ast.Expr) else None
    if value is None or isinstance(it, ast.stmt):
        while not isinstance(it, ast.stmt):
            it = above[id(it)]
        _swap(above[id(it)], it, _filled(new, it, any_))
    else:
        (expression,) = _filled([value], it, any_)
        _swap(above[id(it)], it, [expression])


def _decides(node: ast.AST, above: ast.AST) -> bool:
    if isinstance(above, ast.BoolOp):
        return True
    if isinstance(above, ast.UnaryOp):
        return isinstance(above.op, ast.Not)
    return node is getattr(above, "test", None) or node in getattr(above, "ifs", ())


def _filled(new: Sequence[ast.AST], it: ast.AST, found: Sequence[Any]) -> list[Any]:
    """``new`` with what ``it`` and ``...`` stand for."""

    class Fill(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> Any:
            return copy.deepcopy(it) if node.id == "it" else node

        def visit_Expr(self, node: ast.Expr) -> Any:
            value = self.visit(node.value)
            return value if isinstance(value, ast.stmt) else ast.Expr(value)

        def visit_Constant(self, node: ast.Constant) -> Any:
            if not is_any(node):
                return node
            if len(found) != 1 or isinstance(found[0], list):
                raise Misplaced("the pattern has not one ..., for one thing, which the new code could repeat")
            return copy.deepcopy(found[0])

    return [Fill().visit(node) for node in new]


def _swap(above: ast.AST, old: ast.AST, new: Sequence[Any]) -> None:
    for field, value in ast.iter_fields(above):
        if value is old:
            setattr(above, field, new[0])
        elif isinstance(value, list):
            at = [index for index, one in enumerate(value) if one is old]
            for index in at:
                value[index : index + 1] = new


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """What is in ``scope``, without what is in the functions and classes there."""
    for node in ast.iter_child_nodes(scope):
        yield node
        if not isinstance(node, ast.ClassDef | Function | ast.Lambda):
            yield from _own(node)


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    """The names to which these nodes give a meaning."""
    found: set[str] = set()
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add((other or name).partition(".")[0])
            case ast.ExceptHandler(name=str(name)) | ast.ClassDef(name=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
    return found
