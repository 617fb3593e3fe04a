"""All that a backend brings hangs on its class in the registry: nothing else asks which kind is configured."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast, final, get_args

import pytest

from router.backends.base import (
    ColdBackend,
    IngressBackend,
    OnlineBackend,
    PokesBackend,
    PushBackend,
)
from router.backends.registry import BACKENDS, Entry, load
from router.cli.setup import _setup
from router.config import Cold, Config, Embedded, Ingress, Online, Push
from router.config.roles import Place, Role
from router.doctor import settings
from router.doctor.checks import checks
from router.factory import Factory
from router.findings import Check, Finding, fine, note, on_a_thread
from router.interfaces import ColdQueue
from router.needs import MISSING, Need
from tests.support.backends import opened, tools
from tests.support.clock import ManualClock
from tests.support.repository import ROOT

PACKAGE = ROOT / "router"
REGISTRY = PACKAGE / "backends" / "registry.py"
FACES: dict[type[Ingress | Online | Cold | Push], type] = {
    Ingress: IngressBackend,
    Online: OnlineBackend,
    Cold: ColdBackend,
    Push: PushBackend,
}


def elsewhere() -> Iterator[tuple[Path, ast.AST]]:
    """Every node of the package outside of the registry and the configuration, and its file."""
    for path in PACKAGE.rglob("*.py"):
        if path != REGISTRY and not path.is_relative_to(PACKAGE / "config"):
            yield from ((path, node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def test_only_the_registry_and_the_configuration_ask_for_a_kind() -> None:
    for path, node in elsewhere():
        assert not (isinstance(node, ast.Attribute) and node.attr == "kind"), f"{path}:{node.lineno}"


def test_nothing_is_compared_with_the_name_of_a_backend() -> None:
    """That would ask for the kind by another name. A backend may ask what it keeps itself."""
    for path, node in elsewhere():
        if isinstance(node, ast.Compare | ast.MatchValue):
            named = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)} & BACKENDS.keys()
            assert named <= set(path.parts), f"{path}:{node.lineno}"


@pytest.mark.parametrize("section", FACES)
def test_each_kind_of_a_section_is_of_its_class(section: type[Ingress | Online | Cold | Push]) -> None:
    """``Backends`` relies on it."""
    for kind in get_args(section.model_fields["kind"].annotation):
        assert issubclass(load(kind), FACES[section]), kind
        if section is Online:
            assert issubclass(load(Online.model_validate({"kind": kind, "url": "redis://x"}).poked_by), PokesBackend)


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_backend_is_whole_and_named_by_some_section(kind: str) -> None:
    """mypy finds what a ``final`` class lacks of its bases, and Python refuses to make one of a class that lacks it."""
    backend = load(kind)
    assert getattr(backend, "__final__", False), "mypy accepts a class that is not final and lacks something"
    assert backend(Config(), tools(ManualClock())).name == kind
    assert any(kind in get_args(section.model_fields["kind"].annotation) for section in FACES)


def test_what_lacks_something_cannot_be_made() -> None:
    @final
    class Postgres(ColdBackend):  # type: ignore[misc]  # mypy finds what it lacks, or would call this comment unused
        name = "postgres"
        fix = "start it"

    with pytest.raises(TypeError, match=r"_open.*address.*cold_queue"):
        Postgres(Config(), tools(ManualClock()))  # type: ignore[abstract]  # and again


@final
class Shelf(ColdBackend):
    """A cold queue in another store, with all that may come with it."""

    name = "firestore"
    fix = "put it up"

    async def _open(self, stack: AsyncExitStack) -> None:
        self.queue = cast(ColdQueue, object())

    def address(self, role: Role) -> str:
        return f"the shelf of {role}"

    def cold_queue(self) -> ColdQueue:
        return self.queue

    @asynccontextmanager
    async def needs(self) -> AsyncIterator[list[Need]]:
        yield [Need("shelf", "the wall", self._look, self._make)]

    async def _look(self) -> str:
        return MISSING

    async def _make(self) -> None:
        self.made = True

    def settings(self) -> Iterator[Finding]:
        yield note("config.shelf", "it is low")

    def checks(self) -> list[Check]:
        return [Check("shelf.screws", on_a_thread(lambda: [fine("shelf.screws", "tight")]), "", "")]


@pytest.mark.anyio
async def test_a_line_in_the_registry_is_all_that_a_backend_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(cast(dict[str, Entry], BACKENDS), "firestore", Entry(__name__, "Shelf"))
    config = Config(cold=Cold(kind="firestore"), embedded=Embedded(data_dir=tmp_path))
    async with Factory(config) as factory:
        queue = await factory.cold_queue()
        assert queue is (await opened(factory, Shelf)).queue
        assert factory.place(Role.COLD) == Place(Role.COLD, "firestore", "the shelf of cold")
    assert ("shelf", "the wall", "made") in [
        (step.what, step.where, step.state) for step in await _setup(config, dry_run=False)
    ]
    assert [finding.check for finding in settings.look(config, [])] == ["config.backends", "config.shelf"]
    (cold,) = [check for check in checks(config) if check.name == "cold"]
    assert cold.fix == "cold.kind is firestore: put it up"
    assert "shelf.screws" in [check.name for check in checks(config)]


def test_the_embedded_backends_bring_no_library_of_another() -> None:
    code = (
        "import sys; from router.config import Config; from router.factory import backends\n"
        "print([each.name for each in backends(Config()).used()])\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('google', 'grpc', 'redis')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["['embedded']", "[]"]
