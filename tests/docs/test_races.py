"""docs/races.md: each moment has its paragraph and its tests, and each test that names a moment is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from msgspec import Struct

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "races.md").read_text()
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SUITES = {
    "Redis": ("queues", "lanes", "clocks", "ids", "answers", "notices", "pipeline", "damage"),
    "cluster": ("queues", "lanes", "clocks", "ids", "answers", "notices", "pipeline"),
    "Sentinel": (),
    "Firestore cold": ("queues", "lanes", "clocks", "ids", "answers", "pipeline", "damage"),
    "Firestore online": ("queues", "lanes", "clocks", "ids", "answers", "pipeline", "damage"),
    "Pub/Sub": ("ingress", "notices", "pipeline"),
}
"""Which of the contract suites are run on which backend: ``tests/contract/test_*.py``."""


class Race(Struct):
    """One section of races.md."""

    number: int
    text: str
    tests: list[tuple[str, str]] = []
    """File and test, which is empty for a file as a whole; on the embedded backend and wherever the suite is run."""
    own: list[tuple[str, tuple[str, str]]] = []
    """Backend, file and test."""


def races() -> Iterator[Race]:
    sections, _, _ = PAGE.partition("## Where they are forced")
    for section in sections.split("\n### RACES ")[1:]:
        number, _, text = section.partition("\n")
        race = Race(int(number), text)
        for line in re.findall(r"^\* .*$", text, re.MULTILINE):
            found = re.fullmatch(r"\* (?:([\w/ ]+): )?`([\w/]+\.py)(?:::(\w+))?`", line)
            assert found is not None, line
            backend, test = found[1], (found[2], found[3] or "")
            assert backend in {None, *SUITES, "all together"}, line
            if backend:
                race.own.append((backend, test))
            else:
                race.tests.append(test)
        yield race


RACES = list(races())


def test_every_race_has_a_test_that_says_so() -> None:
    """Each of 1 to 51 has its section, and each test that is named there begins its docstring with the number."""
    assert [race.number for race in RACES] == list(range(1, 52))
    for race in RACES:
        for file, name in [*race.tests, *(test for _, test in race.own)]:
            assert race.number in races_of(TESTS / file, name), (race.number, file, name)


def test_a_race_has_tests_or_says_that_none_forces_it() -> None:
    for race in RACES:
        assert bool(race.tests or race.own) is not ("Not forced yet." in race.text), race.number


def test_every_race_has_its_test_at_every_backend() -> None:
    """``contract`` and ``own`` stand exactly where there is such a test, elsewhere a reason that is explained."""
    _, _, where = PAGE.partition("## Where they are forced")
    reasons = set(re.findall(r"^\* ([a-z]): ", where, re.MULTILINE))
    matrix = [line.strip("| ").split(" | ") for line in where.splitlines() if re.match(r"\| \d", line)]
    assert [row[0] for row in matrix] == [str(race.number) for race in RACES]
    for race, (_, embedded, *cells) in zip(RACES, matrix, strict=True):
        assert embedded in {"yes", *reasons}
        for (backend, suites), cell in zip(SUITES.items(), cells, strict=True):
            there = {f"contract/{suite}.py" for suite in suites} & {file for file, _ in race.tests}
            said = {"contract"} if there else set()
            said |= {"own"} if backend in {backend for backend, _ in race.own} else set()
            assert set(cell.split(", ")) == said or (not said and cell in reasons), (race.number, backend, cell)


def test_every_test_that_names_a_race_is_listed() -> None:
    """A file that names one is listed as a whole, or by tests of its own."""
    listed = {(race.number, *test) for race in RACES for test in [*race.tests, *(test for _, test in race.own)]}
    files = {(number, file) for number, file, _ in listed}
    for path in sorted(TESTS.rglob("*.py")):
        file = str(path.relative_to(TESTS))
        for node in nodes(path):
            name = getattr(node, "name", "")
            for number in told_by(node):
                if name.startswith("test_"):
                    assert {(number, file, name), (number, file, "")} & listed, (number, file, name)
                elif not name:
                    assert (number, file) in files, (number, file)


@cache
def nodes(path: Path) -> list[ast.Module | ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Module, *FUNCTIONS))]


def races_of(path: Path, name: str) -> set[int]:
    """The numbers that a test's docstring begins with, or that of the whole file where ``name`` is empty."""
    for node in nodes(path):
        if getattr(node, "name", "") == name:
            return told_by(node)
    return set()


def told_by(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    told = re.match(r"RACES ([\d, ]+)", ast.get_docstring(node) or "")
    return {int(number) for number in re.findall(r"\d+", told[1])} if told else set()
