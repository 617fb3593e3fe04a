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
SUITES = {
    "Redis": ("queues", "notices", "pipeline"),
    "cluster": ("queues", "notices", "pipeline"),
    "Sentinel": (),
    "Firestore cold": ("queues", "pipeline"),
    "Firestore online": ("queues", "pipeline"),
    "Pub/Sub": ("ingress", "notices", "pipeline"),
}
"""Which of the contract suites are run on which backend: ``tests/contract/test_*.py``."""


def test_the_openapi_document_is_valid_and_covers_every_route() -> None:
    document = openapi.document()
    openapi_spec_validator.validate(document)
    assert set(document["paths"]) == ROUTES


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"^\| `(router_\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE))
    metrics = Metrics()
    metrics.firestore(dict)
    there = {metric.name + ("_total" if metric.type == "counter" else "") for metric in metrics.registry.collect()}
    assert documented == there


def test_every_race_has_a_test_that_says_so() -> None:
    """Each of 1 to 40 is listed, and each test that is named is there and begins its docstring with the number."""
    rows = races("moment", r"(\d+) \| [^|]+ \| (.+)")
    assert [int(number) for number, _ in rows] == list(range(1, 41))
    for number, cell in [*rows, *((number, cell) for number, _, cell in own_tests())]:
        for file, name in named(cell) or [("no test", "")]:
            assert int(number) in races_of(TESTS / file, name), (number, file, name)


def test_every_race_has_its_test_at_every_backend() -> None:
    """``contract`` and ``own`` stand exactly where there is such a test, elsewhere a reason that is explained."""
    general = {number: named(cell) for number, cell in races("moment", r"(\d+) \| [^|]+ \| (.+)")}
    own = {(number, backend) for number, backend, _ in own_tests()}
    reasons = set(re.findall(r"^\* (\w+): ", (DOCS / "races.md").read_text(), re.MULTILINE))
    matrix = races("embedded", r" \| ".join([r"(\d+)", *[r"([\w, ]+)"] * 7]))
    assert [row[0] for row in matrix] == [str(number) for number in range(1, 41)]
    for number, embedded, *cells in matrix:
        assert embedded in {"yes", "e"}
        for (backend, suites), cell in zip(SUITES.items(), cells, strict=True):
            there = {f"contract/{suite}.py" for suite in suites} & {file for file, _ in general[number]}
            said = {"contract"} if there else set()
            said |= {"own"} if (number, backend) in own else set()
            assert set(cell.split(", ")) == said or (not said and cell in reasons), (number, backend, cell)


def test_every_test_that_names_a_race_is_listed() -> None:
    listed = {(number, *test) for number, cell in races("moment", r"(\d+) \| [^|]+ \| (.+)") for test in named(cell)}
    listed |= {(number, *test) for number, _, cell in own_tests() for test in named(cell)}
    for path in sorted(TESTS.rglob("*.py")):
        file = str(path.relative_to(TESTS))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, FUNCTIONS) and node.name.startswith("test_"):
                for number in map(str, told_by(node)):
                    assert {(number, file, node.name), (number, file, "")} & listed, (number, file, node.name)


def races(table: str, row: str) -> list[tuple[str, ...]]:
    """The groups of the rows of the table of races.md whose second column is ``table``; each line is such a row."""
    _, _, lines = (DOCS / "races.md").read_text().partition(f"| no. | {table} |")
    rows = lines.partition("\n\n")[0].splitlines()[2:]
    found = [re.fullmatch(rf"\| {row} \|", line) for line in rows]
    assert all(found), [line for line, match in zip(rows, found, strict=True) if match is None]
    return [match.groups() for match in found if match]


def own_tests() -> list[tuple[str, ...]]:
    """Number, backend and tests, where they are of one backend alone."""
    found = races("backend", r"(\d+) \| ([^|]+) \| (.+)")
    assert {backend for _, backend, _ in found} <= {*SUITES, "all together"}
    return found


def named(cell: str) -> list[tuple[str, str]]:
    """File and test; a file as a whole without a test."""
    return re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", cell)


def races_of(path: Path, name: str) -> set[int]:
    """The numbers that a test's docstring begins with, or that of the whole file where ``name`` is empty."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *FUNCTIONS)) and getattr(node, "name", "") == name:
            return told_by(node)
    return set()


def told_by(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    told = re.match(r"RACES ([\d, ]+)", ast.get_docstring(node) or "")
    return {int(number) for number in re.findall(r"\d+", told[1])} if told else set()


def test_every_problem_is_documented() -> None:
    documented = (DOCS / "http.md").read_text()
    assert [kind.slug for kind in KINDS.values() if f"`{kind.slug}`" not in documented] == []
