"""docs/races.md: each moment has its paragraph and its tests, and each test that names a moment is there."""

from __future__ import annotations

import ast
import re

from tests.support.repository import ROOT
from tools import races
from tools.generated import races_docs

TESTS = ROOT / "tests"
PAGE = (ROOT / "docs" / "races.md").read_text()
HEADINGS = re.findall(r"^### RACES (\d+): \w", PAGE, re.MULTILINE)
MATRIX = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| \d", line)]


def found() -> dict[int, list[races.Case]]:
    return races.tests_of_races(TESTS)


def test_the_page_has_what_the_tests_say() -> None:
    assert races_docs(ROOT) == PAGE, "run: make docs"


def test_every_race_has_a_section_with_a_title() -> None:
    assert [int(number) for number in HEADINGS] == races.sections(PAGE) == list(range(1, 54))


def test_every_race_has_a_test_or_says_that_none_forces_it() -> None:
    for number, *cells in MATRIX:
        assert found().get(int(number)) or set(cells) == {races.UNFORCED}, number


def test_every_race_that_a_test_names_has_a_section() -> None:
    assert set(found()) <= set(races.sections(PAGE))


def test_every_reason_is_explained() -> None:
    explained = set(re.findall(r"^\* ([a-z]): ", PAGE, re.MULTILINE))
    for number, *cells in MATRIX:
        assert set(cells) <= explained | {"yes", "own", "contract", "contract, own"}, number


def test_a_reason_is_given_only_where_there_is_no_test() -> None:
    columns = ["embedded", *races.SUITES]
    for number, *cells in MATRIX:
        for column, reason in races.REASONS.get(int(number), {}).items():
            assert cells[columns.index(column)] == reason, (number, column)


def test_the_backends_of_tests_are_given_for_tests_that_are_there() -> None:
    """A test that is renamed would count as one of another backend."""
    for begins in races.OWN:
        file, _, name = begins.partition("::")
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert (TESTS / file).exists(), file
        assert not name or any(
            node.name == name for node in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(node, functions)
        ), begins
