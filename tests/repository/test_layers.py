"""The layers of CONTRIBUTING.md: which room of the package may import which, over all imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from router.backends.registry import BACKENDS
from tests.support.repository import ROOT

PACKAGE = ROOT / "router"
GROUND = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "factory", "service", "reports"}
"""Single modules that everything may use; among them the seams and the records."""
MAY_IMPORT = {
    "config": {"ground"},
    "core": {"ground", "config"},
    "backends": {"ground", "config"},
    "go_import": {"ground", "config", "backends"},
    "auth": {"ground", "config"},
    "client": {"ground"},
    "bench": {"ground", "client"},
    "conformance": {"ground", "auth", "client"},
    "web": {"ground", "config", "core", "auth"},
    "reports": {"ground", "config", "core"},
    "factory": {"ground", "config", "core", "backends"},
    "doctor": {"ground", "config", "auth", "factory"},
    "workers": {"ground", "config", "core", "web"},
    "service": {"ground", "config", "core", "auth", "web", "reports", "factory", "workers"},
    "cli": {
        "ground",
        "config",
        "core",
        "auth",
        "client",
        "bench",
        "conformance",
        "doctor",
        "reports",
        "service",
        "factory",
        "workers",
        "go_import",
    },
    "__main__": {"cli"},
    "ground": {"config"},
}
"""The ground itself may use the configuration: proxies of the environment are a part of it."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The room of ``router.core.user_queue`` is ``core``."""
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
    allowed = MAY_IMPORT[own] | {own}
    assert [name for name in imported(module) if room(name) not in allowed and name != "router"] == []


def backend(module: str) -> str | None:
    """``redis`` for ``router.backends.redis.client``; ``None`` for what belongs to no backend, or to several."""
    parts = module.split(".")
    return parts[2] if parts[1:2] == ["backends"] and parts[2:] and parts[2] in BACKENDS else None


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) == "backends"])
def test_a_backend_imports_no_other_and_not_the_registry(module: str) -> None:
    found = set(imported(module))
    assert {backend(name) for name in found} <= {None, backend(module)}
    assert "router.backends.registry" not in found


def test_only_the_factory_imports_the_registry() -> None:
    """And the registry imports no backend but the one that it is asked for."""
    assert [name for name in MODULES if "router.backends.registry" in imported(name)] == ["router.factory"]
    assert {backend(name) for name in imported("router.factory")} == {None}


def test_nothing_imports_in_a_circle() -> None:
    """``prepare`` raises ``CycleError``, with the circle."""
    TopologicalSorter({module: set(imported(module)) - {module} for module in MODULES}).prepare()
