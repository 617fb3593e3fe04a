"""The layers of CONTRIBUTING.md: which room of the package may import which, over all imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.repository import ROOT

PACKAGE = ROOT / "router"
GROUND = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "factory", "service", "reports"}
"""Single modules that everything may use; among them the seams and the records."""
MAY_IMPORT = {
    "config": {"ground"},
    "core": {"ground", "config"},
    "backends": {"ground", "config"},
    "auth": {"ground", "config"},
    "client": {"ground"},
    "bench": {"ground", "client"},
    "web": {"ground", "config", "core", "auth"},
    "reports": {"ground", "config", "core"},
    "factory": {"ground", "config", "core", "backends"},
    "doctor": {"ground", "config", "auth", "factory", "backends"},
    "service": {"ground", "config", "core", "auth", "web", "reports", "factory"},
    "cli": {"ground", "config", "core", "auth", "client", "bench", "doctor", "reports", "service", "factory"},
    "__main__": {"cli"},
    "ground": {"config"},
}
"""The ground itself may use the configuration: proxies of the environment are a part of it."""
KNOW_A_BACKEND = {
    "router.service": "the keeper of the embedded file, whose type it names",
    "router.cli.common": "refuses a data directory without a database",
    "router.cli.setup": "makes the embedded file, and what other backends need",
}
"""Modules above the factory that import a backend all the same, and why."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The room of ``router.core.queue`` is ``core``."""
    name = module.split(".")[1] if "." in module else "ground"
    return "ground" if name in GROUND else name


def imported(module: str) -> Iterator[str]:
    """Every module of the package that ``module`` imports, wherever in it, for types only too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            deeper = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in deeper)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "router"])
def test_a_module_imports_what_its_room_may(module: str) -> None:
    own = room(module)
    allowed = MAY_IMPORT[own] | {own} | ({"backends"} if module in KNOW_A_BACKEND else set())
    assert [name for name in imported(module) if room(name) not in allowed and name != "router"] == []


def test_an_exception_is_needed() -> None:
    for module in KNOW_A_BACKEND:
        assert any(room(name) == "backends" for name in imported(module)), module


def test_nothing_imports_in_a_circle() -> None:
    """``prepare`` raises ``CycleError``, with the circle."""
    TopologicalSorter({module: set(imported(module)) - {module} for module in MODULES}).prepare()
