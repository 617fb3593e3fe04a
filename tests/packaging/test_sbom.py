"""``make dist`` says what a router consists of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.repository import ROOT
from tools.sbom import NAME

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def made(into: Path, seed: str) -> bytes:
    own = {**os.environ, "PYTHONHASHSEED": seed}
    subprocess.run([sys.executable, "-m", "tools.sbom", into], cwd=ROOT, env=own, check=True)
    return into.read_bytes()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sbom")
    first, again = made(folder / "one.json", "1"), made(folder / "two.json", "2")
    assert first == again, "the same lock, another run"
    return first


@pytest.fixture(scope="module")
def bill(text: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def needed(names: Iterable[str], told: Mapping[str, str]) -> set[str]:
    """What ``names`` need, as the installed packages say, where they are the very versions of ``told``."""
    found, todo = set[str](), set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        if told.get(name) != _installed(name):
            continue
        for line in requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo |= {canonicalize_name(requirement.name)} - found
    return found


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def test_the_sbom_is_valid_cyclonedx(text: bytes) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode()) is None


def test_the_sbom_names_libraries_that_run_and_no_tool(bill: dict[str, Any]) -> None:
    parts = {part["name"]: part for part in bill["components"]}
    base = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    told = {name: part["version"] for name, part in parts.items()}
    assert needed(base, told) <= {name for name, part in parts.items() if part["scope"] == "required"}
    extras = {
        canonicalize_name(Requirement(line).name)
        for listed in PROJECT["project"]["optional-dependencies"].values()
        for line in listed
    }
    assert needed(base | extras, told) <= parts.keys()
    assert not parts.keys() & {"pytest", "mypy", "ruff", "hatchling", "uv", "cyclonedx-python-lib", NAME}
    assert bill["metadata"]["component"]["name"] == NAME
    for part in parts.values():
        assert part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}"
        assert part["hashes"], part["name"]


def test_it_says_who_needs_what(bill: dict[str, Any]) -> None:
    graph = {entry["ref"]: set(entry.get("dependsOn", [])) for entry in bill["dependencies"]}
    by_name = {part["name"]: part["bom-ref"] for part in bill["components"]}
    assert by_name["anyio"] in graph[by_name["starlette"]]
    assert by_name["starlette"] in graph[NAME]
    assert set(by_name.values()) | {NAME} == graph.keys()
