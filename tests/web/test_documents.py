"""What is written down is what there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import openapi_spec_validator

from router.metrics import Metrics
from router.web import openapi
from router.web.edge import ROUTES
from router.web.problems import KINDS

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_the_openapi_document_is_valid_and_covers_every_route() -> None:
    document = openapi.document()
    openapi_spec_validator.validate(document)
    assert set(document["paths"]) == ROUTES


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"^\| `(router_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    there = {metric.name + ("_total" if metric.type == "counter" else "") for metric in Metrics().registry.collect()}
    assert documented == there


def test_every_race_has_a_test_that_says_so() -> None:
    """Each of 1 to 40 is listed, and each test that is named is there and begins its docstring with the number."""
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", (DOCS / "races.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 41))
    for number, tests in rows:
        for file, name in re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", tests) or [("no test", "")]:
            assert int(number) in races_of(TESTS / file, name), (number, file, name)


def races_of(path: Path, name: str) -> set[int]:
    """The numbers that a test's docstring begins with, or that of the whole file where ``name`` is empty."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (node is tree and not name) or (isinstance(node, FUNCTIONS) and node.name == name):
            told = re.match(r"RACES ([\d, ]+)", ast.get_docstring(node) or "")
            return {int(number) for number in re.findall(r"\d+", told[1])} if told else set()
    return set()


def test_every_problem_is_documented() -> None:
    documented = (DOCS / "http.md").read_text()
    assert [kind.slug for kind in KINDS.values() if f"`{kind.slug}`" not in documented] == []
